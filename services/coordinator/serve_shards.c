/* The map of evaluators: kept in the store, told to who watches it. */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/shard_message.h"
#include "services/coordinator/serve.h"

#define TABLE "shards"
#define KEY "map"

struct assay_shard_watcher {
    struct assay_shard_watcher *next;
    struct assay_call *call;
    struct assay_serve *serve;
    bool sent_any;
    struct assay_shard_map sent;
};

/* --- the store --- */

enum assay_status assay_coordinator_load_shards(struct assay_coordinator *c, struct assay_err *err)
{
    void *bytes = NULL;
    size_t len = 0;
    struct assay_shard_map *map = calloc(1, sizeof *map);
    Assay__V1__ShardMap *message = NULL;
    if (!map)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    enum assay_status status = assay_store_get(c->store, TABLE, KEY, strlen(KEY), &bytes, &len, err);
    if (status == ASSAY_OK)
        message = assay__v1__shard_map__unpack(NULL, len, bytes);
    struct assay_err why = ASSAY_ERR_INIT;
    if (message && assay_shard_map_of_message(message, map, &why) != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "the map of evaluators is begun anew reason=\"%s\"", why.text);
    /* Without the map of before, evaluators are taken as they register: at worst records move. */
    if (status == ASSAY_NOT_FOUND || status == ASSAY_DATA_LOSS)
        status = ASSAY_OK;
    assay_shards_init(&c->shards, map, assay_now_ms());
    if (message)
        assay__v1__shard_map__free_unpacked(message, NULL);
    free(bytes);
    free(map);
    return status;
}

static enum assay_status keep_map(struct assay_coordinator *c, struct assay_err *err)
{
    struct assay_shard_message *message = assay_shard_message_new(&c->shards.map);
    size_t len = message ? assay__v1__shard_map__get_packed_size(&message->message) : 0;
    assay_auto(assay_free_ptr) uint8_t *packed = message ? malloc(len + 1) : NULL;
    enum assay_status status;
    if (packed) {
        assay__v1__shard_map__pack(&message->message, packed);
        const struct assay_put put = {TABLE, KEY, strlen(KEY), packed, len};
        status = assay_store_put(c->store, &put, 1, err);
    } else {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    }
    free(message);
    return status;
}

void assay_coordinator_update_shards(struct assay_coordinator *c)
{
    struct assay_err err = ASSAY_ERR_INIT;
    /* The clock, so that epochs grow even if the store is begun anew. */
    if (!assay_shards_update(&c->shards, &c->registry, assay_now_ms(), (uint64_t)assay_wall_ms()))
        return;
    if (keep_map(c, &err) != ASSAY_OK)
        assay_log(ASSAY_LOG_ERROR, "cannot store the map of evaluators reason=\"%s\"", err.text);
    assay_log(ASSAY_LOG_INFO, "evaluators changed epoch=%llu owners=%zu leaving=%zu",
              (unsigned long long)c->shards.map.epoch, assay_shard_map_owners(&c->shards.map),
              c->shards.map.count - assay_shard_map_owners(&c->shards.map));
    assay_coordinator_changed(c);
}

/* --- WatchShards --- */

static void watcher_remove(struct assay_shard_watcher *watcher)
{
    struct assay_shard_watcher **at = &watcher->serve->shard_watchers;
    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    free(watcher);
}

static void watcher_cancelled(void *arg)
{
    struct assay_shard_watcher *watcher = arg;
    struct assay_err err;
    assay_err_set(&err, ASSAY_CANCELLED, "the watcher went away");
    assay_call_fail(watcher->call, &err);
    watcher_remove(watcher);
}

static void send_map(void *arg)
{
    struct assay_shard_watcher *watcher = arg;
    struct assay_coordinator *c = watcher->serve->coordinator;
    if (assay_call_credit(watcher->call) == 0)
        return;
    pthread_mutex_lock(&c->lock);
    bool news = !watcher->sent_any || watcher->sent.epoch != c->shards.map.epoch ||
                !assay_shard_map_same(&watcher->sent, &c->shards.map);
    if (news)
        watcher->sent = c->shards.map;
    pthread_mutex_unlock(&c->lock);
    struct assay_shard_message *message = news ? assay_shard_message_new(&watcher->sent) : NULL;
    if (message && assay_call_send(watcher->call, &message->message.base, NULL, 0) == ASSAY_OK)
        watcher->sent_any = true;
    else if (news)
        watcher->sent_any = false;
    free(message);
}

void assay_serve_shard_watchers(struct assay_serve *serve)
{
    for (struct assay_shard_watcher *watcher = serve->shard_watchers; watcher; watcher = watcher->next)
        send_map(watcher);
}

void assay_serve_watch_shards(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_shard_watcher *watcher = calloc(1, sizeof *watcher);
    if (!watcher) {
        struct assay_err err;
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a watcher");
        assay_call_fail(call, &err);
        return;
    }
    watcher->call = call;
    watcher->serve = c->serve;
    watcher->next = c->serve->shard_watchers;
    c->serve->shard_watchers = watcher;
    assay_call_on_cancel(call, watcher_cancelled, watcher);
    assay_call_on_credit(call, send_map, watcher);
    send_map(watcher);
}

void assay_serve_shard_watchers_free(struct assay_serve *serve)
{
    while (serve->shard_watchers)
        watcher_remove(serve->shard_watchers);
}

/* --- LeaveShards --- */

/* Locked. */
static bool leave(struct assay_coordinator *c, const Assay__V1__LeaveShardsRequest *request)
{
    struct assay_service *service = assay_registry_find(&c->registry, request->service_id);
    if (!service || service->kind != ASSAY_SERVICE_EVALUATOR)
        return false;
    size_t at = assay_shard_map_find(&c->shards.map, &service->shard_id);
    bool owns = at != ASSAY_SHARD_NONE && !c->shards.map.shards[at].leaving;
    if (request->gone)
        assay_registry_remove(&c->registry, request->service_id);
    else if (!owns || assay_shard_map_owners(&c->shards.map) > 1)
        service->leaving = true;
    assay_coordinator_update_shards(c);
    return true;
}

void assay_serve_leave_shards(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_shard_map *map = malloc(sizeof *map);
    pthread_mutex_lock(&c->lock);
    bool known = map && leave(c, assay_call_request(call));
    if (map)
        *map = c->shards.map;
    pthread_mutex_unlock(&c->lock);
    struct assay_shard_message *message = map && known ? assay_shard_message_new(map) : NULL;
    if (map && !known)
        assay_err_set(&err, ASSAY_NOT_FOUND, "the coordinator does not know this evaluator, it must register");
    else if (!message)
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    if (err.status == ASSAY_OK)
        assay_call_reply(call, &message->message.base, NULL, 0);
    else
        assay_call_fail(call, &err);
    free(message);
    free(map);
}
