#include "services/inference/models.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "common/artifact/manifest.h"
#include "common/base/clock.h"

/* How often a waiting caller looks whether it is cancelled. */
#define WAIT_TICK_MS 100

struct assay_resident {
    struct assay_resident *prev, *next; /* the one used last first */
    enum assay_model_part part;
    struct assay_digest id;
    uint64_t bytes; /* of the budget; 0 until they are known */
    size_t references;
    bool is_loaded; /* else the one who holds it loads it */
    void *object;
};

struct assay_models {
    struct assay_models_options options;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct assay_resident *first, *last;
    uint64_t bytes, loads, unloads;
    uint64_t next_pass, present_pass; /* tickets */
};

/* --- the parts --- */

static enum assay_status load_decoder(const struct assay_checkpoint *checkpoint, struct assay_pool *pool, void **ret,
                                      struct assay_err *err)
{
    struct assay_model *model = NULL;
    enum assay_status status = assay_model_load(checkpoint, pool, &model, err);
    if (status == ASSAY_OK)
        status = assay_model_check_rows(model, pool, err);
    if (status == ASSAY_OK)
        *ret = model;
    else
        assay_model_free(model);
    return status;
}

static enum assay_status load_head(const struct assay_checkpoint *checkpoint, struct assay_pool *pool, void **ret,
                                   struct assay_err *err)
{
    struct assay_head *head = NULL;
    enum assay_status status = assay_head_load(checkpoint, pool, &head, err);
    *ret = head;
    return status;
}

static enum assay_status load_encoder(const struct assay_checkpoint *checkpoint, struct assay_pool *pool, void **ret,
                                      struct assay_err *err)
{
    struct assay_encoder *encoder = NULL;
    enum assay_status status = assay_encoder_load(checkpoint, pool, &encoder, err);
    *ret = encoder;
    return status;
}

static void free_decoder(void *object)
{
    assay_model_free(object);
}

static void free_head(void *object)
{
    assay_head_free(object);
}

static void free_encoder(void *object)
{
    assay_encoder_free(object);
}

static const struct {
    enum assay_status (*measure)(const struct assay_checkpoint *checkpoint, size_t *ret, struct assay_err *err);
    enum assay_status (*load)(const struct assay_checkpoint *checkpoint, struct assay_pool *pool, void **ret,
                              struct assay_err *err);
    void (*free)(void *object);
    const char *name;
} parts[ASSAY_MODEL_PARTS] = {
    [ASSAY_MODEL_DECODER] = {assay_model_measure, load_decoder, free_decoder, "model"},
    [ASSAY_MODEL_HEAD] = {assay_head_measure, load_head, free_head, "head"},
    [ASSAY_MODEL_ENCODER] = {assay_encoder_measure, load_encoder, free_encoder, "encoder"},
};

/* --- the table; all of this is locked --- */

static void take_out(struct assay_models *models, struct assay_resident *resident)
{
    *(resident->prev ? &resident->prev->next : &models->first) = resident->next;
    *(resident->next ? &resident->next->prev : &models->last) = resident->prev;
    resident->prev = resident->next = NULL;
}

static void put_first(struct assay_models *models, struct assay_resident *resident)
{
    resident->next = models->first;
    *(models->first ? &models->first->prev : &models->last) = resident;
    models->first = resident;
}

static struct assay_resident *find(const struct assay_models *models, const struct assay_model_want *want)
{
    struct assay_resident *at = models->first;
    while (at && (at->part != want->part || !assay_digest_equal(&at->id, &want->id)))
        at = at->next;
    return at;
}

/* Idle ones go, the one used longest ago first, until `bytes` more fit into the budget; they are put before *gone,
 * linked by `next`, to be freed. */
static void make_room(struct assay_models *models, uint64_t bytes, struct assay_resident **gone)
{
    struct assay_resident *prev;
    for (struct assay_resident *at = models->last; at && models->bytes + bytes > models->options.bytes_max; at = prev) {
        prev = at->prev;
        if (at->references > 0)
            continue;
        take_out(models, at);
        models->bytes -= at->bytes;
        models->unloads++;
        at->next = *gone;
        *gone = at;
    }
}

/* Unlocked. */
static void free_all(struct assay_resident *gone)
{
    while (gone) {
        struct assay_resident *next = gone->next;
        if (gone->object)
            parts[gone->part].free(gone->object);
        free(gone);
        gone = next;
    }
}

/* Waits for a change. False: the time is over, or the caller is. */
static bool wait_for_change(struct assay_models *models, const struct assay_model_want *want, int64_t until_ms)
{
    int64_t now_ms = assay_now_ms(), tick_ms = ASSAY_MIN(until_ms, now_ms + WAIT_TICK_MS);
    if (now_ms >= until_ms || (want->cancelled && want->cancelled(want->arg)))
        return false;
    struct timespec tick = {.tv_sec = tick_ms / 1000, .tv_nsec = tick_ms % 1000 * 1000000};
    pthread_cond_timedwait(&models->changed, &models->lock, &tick);
    return true;
}

/* --- loading --- */

/* Takes `bytes` of the budget for the part that is about to be loaded. */
static enum assay_status reserve(struct assay_models *models, const struct assay_model_want *want, const char *dir,
                                 struct assay_resident *resident, uint64_t bytes, int64_t until_ms,
                                 struct assay_err *err)
{
    const char *name = parts[want->part].name;
    const struct assay_models_options *options = &models->options;
    if (!options->is_soft && bytes > options->bytes_max)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "the %s of %s takes %llu bytes of memory, --memory-gb allows %llu", name, dir,
                             (unsigned long long)bytes, (unsigned long long)options->bytes_max);
    enum assay_status status = ASSAY_OK;
    struct assay_resident *gone = NULL;
    pthread_mutex_lock(&models->lock);
    make_room(models, bytes, &gone);
    while (!options->is_soft && status == ASSAY_OK && models->bytes + bytes > options->bytes_max) {
        if (wait_for_change(models, want, until_ms))
            make_room(models, bytes, &gone);
        else
            status = assay_err_set(err, ASSAY_UNAVAILABLE,
                                   "no room for the %s of %s, %llu bytes: %llu of the %llu that --memory-gb allows are "
                                   "in use",
                                   name, dir, (unsigned long long)bytes, (unsigned long long)models->bytes,
                                   (unsigned long long)options->bytes_max);
    }
    if (status == ASSAY_OK) {
        resident->bytes = bytes;
        models->bytes += bytes;
    }
    pthread_mutex_unlock(&models->lock);
    free_all(gone);
    return status;
}

static enum assay_status load(struct assay_models *models, const struct assay_model_want *want,
                              struct assay_resident *resident, int64_t until_ms, struct assay_err *err)
{
    char found[ASSAY_PATH_MAX];
    const char *dir = want->find ? found : want->dir;
    struct assay_checkpoint *checkpoint = NULL;
    size_t bytes = 0;
    enum assay_status status = want->find ? want->find(want->arg, found, err) : ASSAY_OK;
    if (status == ASSAY_OK)
        status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = parts[want->part].measure(checkpoint, &bytes, err);
    if (status == ASSAY_OK)
        status = reserve(models, want, dir, resident, bytes, until_ms, err);
    if (status == ASSAY_OK)
        status = parts[want->part].load(checkpoint, models->options.pool, &resident->object, err);
    assay_checkpoint_close(checkpoint);
    return status;
}

/* Locked: what is loaded, once nobody loads it any more; NULL when it has to be loaded. */
static enum assay_status look(struct assay_models *models, const struct assay_model_want *want, int64_t until_ms,
                              struct assay_resident **ret, struct assay_err *err)
{
    struct assay_resident *resident;
    while ((resident = find(models, want)) && !resident->is_loaded)
        if (!wait_for_change(models, want, until_ms))
            return assay_err_set(err, ASSAY_UNAVAILABLE, "the %s of %s is being loaded", parts[want->part].name,
                                 want->dir);
    *ret = resident;
    return ASSAY_OK;
}

/* The table has the part as one that is being loaded; afterwards it is loaded, or gone. */
static enum assay_status fill(struct assay_models *models, const struct assay_model_want *want,
                              struct assay_resident *resident, int64_t until_ms, struct assay_err *err)
{
    enum assay_status status = load(models, want, resident, until_ms, err);
    pthread_mutex_lock(&models->lock);
    if (status == ASSAY_OK) {
        resident->is_loaded = true;
        models->loads++;
    } else {
        take_out(models, resident);
        models->bytes -= resident->bytes;
    }
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
    if (status != ASSAY_OK)
        free(resident);
    return status;
}

enum assay_status assay_models_acquire(struct assay_models *models, const struct assay_model_want *want,
                                       struct assay_resident **ret, bool *ret_was_there, struct assay_err *err)
{
    int64_t until_ms = assay_now_ms() + want->wait_ms;
    struct assay_resident *resident = NULL, *added = calloc(1, sizeof *added);
    if (!added)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the %s of %s", parts[want->part].name,
                             want->dir);
    *added = (struct assay_resident){.part = want->part, .id = want->id, .references = 1};
    pthread_mutex_lock(&models->lock);
    enum assay_status status = look(models, want, until_ms, &resident, err);
    bool is_there = status == ASSAY_OK && resident;
    if (is_there) {
        resident->references++;
        take_out(models, resident);
        put_first(models, resident);
    } else if (status == ASSAY_OK) {
        put_first(models, added);
    }
    pthread_mutex_unlock(&models->lock);
    if (status != ASSAY_OK || is_there) {
        free(added);
    } else {
        resident = added;
        status = fill(models, want, resident, until_ms, err);
    }
    if (status != ASSAY_OK)
        return status;
    *ret = resident;
    if (ret_was_there)
        *ret_was_there = is_there;
    return ASSAY_OK;
}

void assay_models_release(struct assay_models *models, struct assay_resident *resident)
{
    if (!resident)
        return;
    pthread_mutex_lock(&models->lock);
    resident->references--;
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
}

/* --- the rest --- */

struct assay_models *assay_models_new(const struct assay_models_options *options)
{
    struct assay_models *models = calloc(1, sizeof *models);
    if (!models)
        return NULL;
    models->options = *options;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&models->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&models->lock, NULL);
    return models;
}

void assay_models_free(struct assay_models *models)
{
    if (!models)
        return;
    free_all(models->first);
    pthread_cond_destroy(&models->changed);
    pthread_mutex_destroy(&models->lock);
    free(models);
}

const struct assay_model *assay_resident_decoder(const struct assay_resident *resident)
{
    if (resident->part != ASSAY_MODEL_DECODER)
        ASSAY_BUG("not a decoder");
    return resident->object;
}

const struct assay_head *assay_resident_head(const struct assay_resident *resident)
{
    if (resident->part != ASSAY_MODEL_HEAD)
        ASSAY_BUG("not a head");
    return resident->object;
}

const struct assay_encoder *assay_resident_encoder(const struct assay_resident *resident)
{
    if (resident->part != ASSAY_MODEL_ENCODER)
        ASSAY_BUG("not an encoder");
    return resident->object;
}

/* Names, sizes and times of a checkpoint's plain files, in an order of their own. */
static enum assay_status digest_files(const char *dir, struct assay_digest *ret, struct assay_err *err)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, NULL, alphasort);
    if (count < 0)
        return assay_err_errno(err, errno, "cannot read %s", dir);
    char real[PATH_MAX];
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.directory.v1");
    assay_hash_str(&hash, realpath(dir, real) ? real : dir);
    for (int i = 0; i < count; i++) {
        char path[ASSAY_PATH_MAX];
        struct stat stat_of;
        if (assay_path_join(path, dir, entries[i]->d_name, NULL) == ASSAY_OK && stat(path, &stat_of) == 0 &&
            S_ISREG(stat_of.st_mode)) {
            assay_hash_str(&hash, entries[i]->d_name);
            assay_hash_u64(&hash, (uint64_t)stat_of.st_size);
            assay_hash_u64(&hash, (uint64_t)stat_of.st_mtim.tv_sec);
            assay_hash_u64(&hash, (uint64_t)stat_of.st_mtim.tv_nsec);
        }
        free(entries[i]);
    }
    free(entries);
    *ret = assay_hash_final(&hash);
    return ASSAY_OK;
}

enum assay_status assay_models_identify(const char *dir, struct assay_digest *ret, struct assay_err *err)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = assay_manifest_read(dir, &manifest, NULL);
    bool is_ours = status == ASSAY_OK && assay_manifest_check_files(&manifest, dir, NULL) == ASSAY_OK;
    if (is_ours)
        *ret = manifest.variant_id.digest;
    assay_manifest_release(&manifest);
    return is_ours ? ASSAY_OK : digest_files(dir, ret, err);
}

size_t assay_models_list(struct assay_models *models, struct assay_digest *ids, size_t max)
{
    size_t count = 0;
    pthread_mutex_lock(&models->lock);
    for (const struct assay_resident *at = models->first; at && count < max; at = at->next)
        if (at->is_loaded && at->part != ASSAY_MODEL_HEAD)
            ids[count++] = at->id;
    pthread_mutex_unlock(&models->lock);
    return count;
}

struct assay_models_stats assay_models_stats(struct assay_models *models)
{
    pthread_mutex_lock(&models->lock);
    struct assay_models_stats stats = {.loads = models->loads,
                                       .unloads = models->unloads,
                                       .bytes = models->bytes,
                                       .bytes_max = models->options.bytes_max};
    for (const struct assay_resident *at = models->first; at; at = at->next)
        stats.resident += at->is_loaded && at->part != ASSAY_MODEL_HEAD;
    pthread_mutex_unlock(&models->lock);
    return stats;
}

void assay_models_begin_pass(struct assay_models *models)
{
    pthread_mutex_lock(&models->lock);
    uint64_t ticket = models->next_pass++;
    while (models->present_pass != ticket)
        pthread_cond_wait(&models->changed, &models->lock);
    pthread_mutex_unlock(&models->lock);
}

void assay_models_end_pass(struct assay_models *models)
{
    pthread_mutex_lock(&models->lock);
    models->present_pass++;
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
}
