#include "services/evaluator/takeover.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/shard_message.h"
#include "services/evaluator/fetch_share.h"

#define WATCH_TURN_MS 500
#define WATCH_AGAIN_MS 500
#define WATCH_CREDIT 4
#define FETCH_AGAIN_MS 200
#define LEAVE_CALL_MS 2000

struct assay_takeover {
    struct assay_loop *loop;
    struct assay_client *coordinator;
    struct assay_records *records;
    struct assay_shards *shards;
    pthread_t watcher, fetcher;
    bool watcher_runs, fetcher_runs;
    atomic_bool stopping;
};

static unsigned method_index(const char *name)
{
    const ProtobufCServiceDescriptor *service = &assay__v1__coordinator__descriptor;
    return (unsigned)(protobuf_c_service_descriptor_get_method_by_name(service, name) - service->methods);
}

static void pause_ms(struct assay_takeover *takeover, int64_t ms)
{
    int64_t until_ms = assay_now_ms() + ms;
    uint64_t seen = UINT64_MAX;
    assay_shards_wait(takeover->shards, &seen, 0); /* the counter as it is */
    while (!atomic_load(&takeover->stopping) && assay_now_ms() < until_ms)
        assay_shards_wait(takeover->shards, &seen, until_ms - assay_now_ms());
}

/* --- listening --- */

static void take_map(struct assay_takeover *takeover, const Assay__V1__ShardMap *message)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_shard_map *map = calloc(1, sizeof *map);
    if (!map)
        return;
    if (assay_shard_map_of_message(message, map, &err) == ASSAY_OK) {
        assay_log(ASSAY_LOG_INFO, "evaluators epoch=%llu owners=%zu leaving=%zu", (unsigned long long)map->epoch,
                  assay_shard_map_owners(map), map->count - assay_shard_map_owners(map));
        assay_shards_set_map(takeover->shards, map);
    } else {
        assay_log(ASSAY_LOG_WARN, "a map of evaluators is not used reason=\"%s\"", err.text);
    }
    free(map);
}

/* Until the stream ends. */
static enum assay_status watch(struct assay_takeover *takeover)
{
    Assay__V1__WatchShardsRequest request = ASSAY__V1__WATCH_SHARDS_REQUEST__INIT;
    struct assay_stream *stream = NULL;
    const struct assay_call_options options = {.owner = takeover};
    enum assay_status status =
        assay_stream_open(takeover->coordinator, &assay__v1__coordinator__descriptor, method_index("WatchShards"),
                          &request.base, &options, WATCH_CREDIT, &stream, NULL);
    while (status == ASSAY_OK && !atomic_load(&takeover->stopping)) {
        struct assay_reply *reply = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        status = assay_stream_next(stream, WATCH_TURN_MS, &reply, &err);
        if (status == ASSAY_OK && !reply)
            break;
        if (status == ASSAY_OK)
            take_map(takeover, assay_reply_message(reply));
        else if (status == ASSAY_DEADLINE_EXCEEDED && !err.text[0])
            status = ASSAY_OK;
        assay_reply_free(reply);
    }
    assay_stream_close(stream);
    return status;
}

static void *watch_main(void *arg)
{
    struct assay_takeover *takeover = arg;
    pthread_setname_np(pthread_self(), "assay-shards");
    while (!atomic_load(&takeover->stopping)) {
        enum assay_status status = watch(takeover);
        pause_ms(takeover, status == ASSAY_UNIMPLEMENTED ? 10 * WATCH_AGAIN_MS : WATCH_AGAIN_MS);
    }
    return NULL;
}

/* --- fetching --- */

struct round {
    struct assay_takeover *takeover;
    uint64_t seen; /* the map that it is for */
};

static bool is_over(void *arg)
{
    const struct round *round = arg;
    return atomic_load(&round->takeover->stopping) || assay_shards_is_news(round->takeover->shards, round->seen);
}

/* Everybody who is not us, once. False: the map changed, or somebody does not answer yet. */
static bool fetch_all(struct round *round, const struct assay_shard_map *map, bool *finished)
{
    struct assay_takeover *takeover = round->takeover;
    bool all = true;
    for (size_t i = 0; i < map->count && !is_over(round); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        struct share_fetch fetch = {.loop = takeover->loop,
                                    .records = takeover->records,
                                    .self = assay_shards_self(takeover->shards),
                                    .epoch = map->epoch,
                                    .endpoint = map->shards[i].endpoint,
                                    .cancelled = is_over,
                                    .arg = round};
        if (finished[i] || assay_shard_id_compare(&map->shards[i].id, fetch.self) == 0)
            continue;
        enum assay_status status = share_fetch_run(&fetch, &err);
        finished[i] = status == ASSAY_OK;
        all = all && finished[i];
        if (status != ASSAY_OK && status != ASSAY_CANCELLED)
            assay_log(ASSAY_LOG_WARN, "cannot fetch a share yet from=%s reason=\"%s\"", fetch.endpoint, err.text);
        if (fetch.fetched > 0)
            assay_log(ASSAY_LOG_INFO, "fetched a share from=%s values=%llu bytes=%llu wall_ms=%lld", fetch.endpoint,
                      (unsigned long long)fetch.fetched, (unsigned long long)fetch.fetched_bytes,
                      (long long)fetch.wall_ms);
    }
    return all && !is_over(round);
}

/* Until the share is here, or the map is another one. Those that are gone leave the map after a while. */
static void take_over(struct round *round, const struct assay_shard_map *map)
{
    struct assay_takeover *takeover = round->takeover;
    bool finished[ASSAY_SHARDS_MAX] = {false};
    while (!is_over(round)) {
        if (fetch_all(round, map, finished)) {
            assay_shards_settle(takeover->shards, map->epoch);
            return;
        }
        if (!is_over(round))
            pause_ms(takeover, FETCH_AGAIN_MS);
    }
}

static void *fetch_main(void *arg)
{
    struct assay_takeover *takeover = arg;
    struct round round = {.takeover = takeover};
    struct assay_shard_map *map = calloc(1, sizeof *map);
    pthread_setname_np(pthread_self(), "assay-takeover");
    while (map && !atomic_load(&takeover->stopping)) {
        assay_shards_wait(takeover->shards, &round.seen, WATCH_TURN_MS);
        uint64_t epoch = assay_shards_epoch(takeover->shards);
        if (epoch == 0 || assay_shards_check(takeover->shards, epoch, true, NULL) == ASSAY_OK)
            continue;
        assay_shards_map(takeover->shards, map);
        take_over(&round, map);
    }
    free(map);
    return NULL;
}

enum assay_status assay_takeover_start(struct assay_loop *loop, struct assay_client *coordinator,
                                       struct assay_records *records, struct assay_shards *shards,
                                       struct assay_takeover **ret, struct assay_err *err)
{
    struct assay_takeover *takeover = calloc(1, sizeof *takeover);
    if (!takeover)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    takeover->loop = loop;
    takeover->coordinator = coordinator;
    takeover->records = records;
    takeover->shards = shards;
    takeover->watcher_runs = pthread_create(&takeover->watcher, NULL, watch_main, takeover) == 0;
    takeover->fetcher_runs =
        takeover->watcher_runs && pthread_create(&takeover->fetcher, NULL, fetch_main, takeover) == 0;
    if (!takeover->fetcher_runs) {
        assay_takeover_stop(takeover);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot start a thread");
    }
    *ret = takeover;
    return ASSAY_OK;
}

/* --- leaving --- */

/* True when the coordinator has us as leaving now. */
static bool tell_coordinator(struct assay_takeover *takeover, uint64_t service_id, bool gone)
{
    Assay__V1__LeaveShardsRequest request = ASSAY__V1__LEAVE_SHARDS_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    const struct assay_call_options options = {.deadline_ms = LEAVE_CALL_MS, .owner = takeover};
    request.has_service_id = request.has_gone = true;
    request.service_id = service_id;
    request.gone = gone;
    if (assay_call_unary(takeover->coordinator, &assay__v1__coordinator__descriptor, method_index("LeaveShards"),
                         &request.base, &options, &reply, NULL) != ASSAY_OK)
        return false;
    const Assay__V1__ShardMap *map = assay_reply_message(reply);
    const struct assay_shard_id *self = assay_shards_self(takeover->shards);
    bool leaving = false;
    for (size_t i = 0; i < map->n_shards; i++)
        if (map->shards[i]->shard_id.len == sizeof self->bytes &&
            memcmp(map->shards[i]->shard_id.data, self->bytes, sizeof self->bytes) == 0)
            leaving = map->shards[i]->leaving;
    assay_reply_free(reply);
    return leaving;
}

bool assay_takeover_leave(struct assay_takeover *takeover, struct assay_member *member, int64_t leave_ms)
{
    int64_t until_ms = assay_now_ms() + leave_ms;
    uint64_t service_id = assay_member_id(member, 0), seen = 0;
    if (leave_ms <= 0 || service_id == 0 || !tell_coordinator(takeover, service_id, false))
        return false;
    assay_log(ASSAY_LOG_INFO, "leaving, the other evaluators fetch what is here");
    while (!assay_shards_all_done(takeover->shards) && assay_now_ms() < until_ms) {
        assay_shards_wait(takeover->shards, &seen, ASSAY_MIN(until_ms - assay_now_ms(), (int64_t)WATCH_TURN_MS));
        uint64_t now_id = assay_member_id(member, 0);
        if (now_id != 0 && now_id != service_id) { /* a coordinator that was started again has to be told, too */
            service_id = now_id;
            tell_coordinator(takeover, service_id, false);
        }
    }
    bool done = assay_shards_all_done(takeover->shards);
    tell_coordinator(takeover, service_id, true);
    return done;
}

void assay_takeover_stop(struct assay_takeover *takeover)
{
    if (!takeover)
        return;
    atomic_store(&takeover->stopping, true);
    assay_shards_wake(takeover->shards);
    assay_client_cancel_owned(takeover->coordinator, takeover);
    if (takeover->watcher_runs)
        pthread_join(takeover->watcher, NULL);
    if (takeover->fetcher_runs)
        pthread_join(takeover->fetcher, NULL);
    free(takeover);
}
