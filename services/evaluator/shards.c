#include "services/evaluator/shards.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct assay_shards {
    struct assay_shard_id self;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct assay_shard_map map;
    size_t own; /* our place in the map, or ASSAY_SHARD_NONE */
    uint64_t version;
    uint64_t settled_epoch;
    uint64_t done_epochs[ASSAY_SHARDS_MAX]; /* by place in the map: the last one that it was done with us */
};

struct assay_shards *assay_shards_new(const struct assay_shard_id *self)
{
    struct assay_shards *shards = calloc(1, sizeof *shards);
    if (!shards)
        return NULL;
    shards->self = *self;
    shards->own = ASSAY_SHARD_NONE;
    pthread_mutex_init(&shards->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&shards->changed, &attr);
    pthread_condattr_destroy(&attr);
    return shards;
}

void assay_shards_free(struct assay_shards *shards)
{
    if (!shards)
        return;
    pthread_cond_destroy(&shards->changed);
    pthread_mutex_destroy(&shards->lock);
    free(shards);
}

const struct assay_shard_id *assay_shards_self(const struct assay_shards *shards)
{
    return &shards->self;
}

uint64_t assay_shards_epoch(struct assay_shards *shards)
{
    pthread_mutex_lock(&shards->lock);
    uint64_t epoch = shards->map.epoch;
    pthread_mutex_unlock(&shards->lock);
    return epoch;
}

void assay_shards_map(struct assay_shards *shards, struct assay_shard_map *ret)
{
    pthread_mutex_lock(&shards->lock);
    *ret = shards->map;
    pthread_mutex_unlock(&shards->lock);
}

/* Marks of those that are in both maps. */
static void keep_marks(struct assay_shards *shards, const struct assay_shard_map *map)
{
    uint64_t marks[ASSAY_SHARDS_MAX] = {0};
    for (size_t i = 0; i < map->count; i++) {
        size_t before = assay_shard_map_find(&shards->map, &map->shards[i].id);
        if (before != ASSAY_SHARD_NONE)
            marks[i] = shards->done_epochs[before];
    }
    memcpy(shards->done_epochs, marks, sizeof marks);
}

void assay_shards_set_map(struct assay_shards *shards, const struct assay_shard_map *map)
{
    pthread_mutex_lock(&shards->lock);
    keep_marks(shards, map);
    shards->map = *map;
    shards->own = assay_shard_map_find(map, &shards->self);
    shards->version++;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

void assay_shards_settle(struct assay_shards *shards, uint64_t epoch)
{
    pthread_mutex_lock(&shards->lock);
    if (epoch == shards->map.epoch)
        shards->settled_epoch = epoch;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

void assay_shards_wait(struct assay_shards *shards, uint64_t *seen, int64_t wait_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + wait_ms % 1000 * 1000000;
    until.tv_sec += wait_ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&shards->lock);
    if (shards->version == *seen)
        pthread_cond_timedwait(&shards->changed, &shards->lock, &until);
    *seen = shards->version;
    pthread_mutex_unlock(&shards->lock);
}

void assay_shards_wake(struct assay_shards *shards)
{
    pthread_mutex_lock(&shards->lock);
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

bool assay_shards_is_news(struct assay_shards *shards, uint64_t seen)
{
    pthread_mutex_lock(&shards->lock);
    bool news = shards->version != seen;
    pthread_mutex_unlock(&shards->lock);
    return news;
}

enum assay_status assay_shards_check(struct assay_shards *shards, uint64_t epoch, bool wants_settled,
                                     struct assay_err *err)
{
    pthread_mutex_lock(&shards->lock);
    uint64_t ours = shards->map.epoch;
    bool settled = shards->settled_epoch == ours;
    pthread_mutex_unlock(&shards->lock);
    if (epoch > ours)
        return assay_err_set(err, ASSAY_UNAVAILABLE,
                             "this evaluator has not heard yet that the evaluators changed: it knows epoch %llu, "
                             "wanted %llu",
                             (unsigned long long)ours, (unsigned long long)epoch);
    if (epoch < ours)
        return assay_err_set(err, ASSAY_ABORTED, "the evaluators changed meanwhile: found epoch %llu, now it is %llu",
                             (unsigned long long)epoch, (unsigned long long)ours);
    if (wants_settled && !settled)
        return assay_err_set(err, ASSAY_UNAVAILABLE,
                             "this evaluator is still fetching its share of the records from the others");
    return ASSAY_OK;
}

bool assay_shards_is_mine(struct assay_shards *shards, const struct assay_chunk_key *chunk)
{
    pthread_mutex_lock(&shards->lock);
    bool mine = shards->map.count == 0 || assay_shard_map_owner(&shards->map, chunk) == shards->own;
    pthread_mutex_unlock(&shards->lock);
    return mine;
}

void assay_shards_note_done(struct assay_shards *shards, const struct assay_shard_id *who, uint64_t epoch)
{
    pthread_mutex_lock(&shards->lock);
    size_t at = assay_shard_map_find(&shards->map, who);
    if (at != ASSAY_SHARD_NONE)
        shards->done_epochs[at] = epoch;
    pthread_cond_broadcast(&shards->changed);
    pthread_mutex_unlock(&shards->lock);
}

bool assay_shards_all_done(struct assay_shards *shards)
{
    pthread_mutex_lock(&shards->lock);
    bool done = shards->own != ASSAY_SHARD_NONE && shards->map.shards[shards->own].leaving;
    for (size_t i = 0; done && i < shards->map.count; i++)
        done = shards->map.shards[i].leaving || shards->done_epochs[i] == shards->map.epoch;
    pthread_mutex_unlock(&shards->lock);
    return done;
}
