#include "services/evaluator/heads.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A head, and the directories that were found to hold it. */
struct shared_head {
    struct shared_head *next;
    struct assay_head *head;
    struct assay_digest digest;
    size_t users;
    char **dirs;
    size_t dirs_count;
};

struct assay_heads {
    struct assay_pool *pool;
    pthread_mutex_t lock; /* held while loading: two jobs of one model load it once */
    struct shared_head *first;
};

struct assay_heads *assay_heads_new(struct assay_pool *pool)
{
    struct assay_heads *heads = calloc(1, sizeof *heads);
    if (!heads)
        return NULL;
    heads->pool = pool;
    pthread_mutex_init(&heads->lock, NULL);
    return heads;
}

static void free_shared(struct shared_head *shared)
{
    for (size_t i = 0; i < shared->dirs_count; i++)
        free(shared->dirs[i]);
    free(shared->dirs);
    assay_head_free(shared->head);
    free(shared);
}

void assay_heads_free(struct assay_heads *heads)
{
    if (!heads)
        return;
    for (struct shared_head *shared = heads->first, *next; shared; shared = next) {
        next = shared->next;
        free_shared(shared);
    }
    pthread_mutex_destroy(&heads->lock);
    free(heads);
}

static struct shared_head *find_dir(struct assay_heads *heads, const char *dir)
{
    for (struct shared_head *shared = heads->first; shared; shared = shared->next)
        for (size_t i = 0; i < shared->dirs_count; i++)
            if (strcmp(shared->dirs[i], dir) == 0)
                return shared;
    return NULL;
}

static bool add_dir(struct shared_head *shared, const char *dir)
{
    char **dirs = realloc(shared->dirs, (shared->dirs_count + 1) * sizeof *dirs);
    if (dirs)
        shared->dirs = dirs;
    char *copy = dirs ? strdup(dir) : NULL;
    if (!copy)
        return false;
    shared->dirs[shared->dirs_count++] = copy;
    return true;
}

/* Takes the head over: into the list, or freed when the same one is there. */
static struct shared_head *share(struct assay_heads *heads, struct assay_head *head)
{
    struct assay_digest digest = assay_head_digest(head);
    for (struct shared_head *shared = heads->first; shared; shared = shared->next) {
        if (assay_digest_equal(&shared->digest, &digest)) {
            assay_head_free(head);
            return shared;
        }
    }
    struct shared_head *shared = calloc(1, sizeof *shared);
    if (!shared) {
        assay_head_free(head);
        return NULL;
    }
    *shared = (struct shared_head){.next = heads->first, .head = head, .digest = digest};
    heads->first = shared;
    return shared;
}

static void free_unused(struct assay_heads *heads)
{
    struct shared_head **link = &heads->first;
    while (*link) {
        struct shared_head *shared = *link;
        if (shared->users > 0) {
            link = &shared->next;
            continue;
        }
        *link = shared->next;
        free_shared(shared);
    }
}

static enum assay_status load(struct assay_heads *heads, const char *dir, struct shared_head **ret,
                              struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_head *head = NULL;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = assay_head_load(checkpoint, heads->pool, &head, err);
    assay_checkpoint_close(checkpoint);
    if (status != ASSAY_OK)
        return status;
    struct shared_head *shared = share(heads, head);
    if (!shared || !add_dir(shared, dir)) {
        free_unused(heads);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the head of %s", dir);
    }
    *ret = shared;
    return ASSAY_OK;
}

enum assay_status assay_heads_get(struct assay_heads *heads, const char *artifact_dir, const struct assay_head **ret,
                                  struct assay_err *err)
{
    pthread_mutex_lock(&heads->lock);
    struct shared_head *shared = find_dir(heads, artifact_dir);
    enum assay_status status = shared ? ASSAY_OK : load(heads, artifact_dir, &shared, err);
    if (status == ASSAY_OK) {
        shared->users++;
        *ret = shared->head;
    }
    pthread_mutex_unlock(&heads->lock);
    return status;
}

void assay_heads_put(struct assay_heads *heads, const struct assay_head *head)
{
    if (!head)
        return;
    pthread_mutex_lock(&heads->lock);
    struct shared_head *shared = heads->first;
    while (shared && shared->head != head)
        shared = shared->next;
    if (!shared || shared->users == 0)
        ASSAY_BUG("a head was given back that nobody has");
    shared->users--;
    free_unused(heads);
    pthread_mutex_unlock(&heads->lock);
}

size_t assay_heads_count(struct assay_heads *heads)
{
    size_t count = 0;
    pthread_mutex_lock(&heads->lock);
    for (const struct shared_head *shared = heads->first; shared; shared = shared->next)
        count++;
    pthread_mutex_unlock(&heads->lock);
    return count;
}
