#include "services/coordinator/serve.h"

#include <sodium/randombytes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/address.h"
#include "proto/control.pb-c.h"
#include "proto/status.pb-c.h"
#include "proto/work.pb-c.h"

/* How often silence, lease ends and progress are looked at. */
#define TICK_MS 200

static void wake(void *arg)
{
    struct assay_coordinator *c = arg;
    pthread_mutex_lock(&c->lock);
    c->wake_posted = false;
    pthread_mutex_unlock(&c->lock);
    assay_serve_parked(c->serve);
    assay_serve_watchers(c->serve);
    assay_serve_shard_watchers(c->serve);
}

void assay_coordinator_changed(struct assay_coordinator *coordinator)
{
    pthread_cond_broadcast(&coordinator->changed);
    if (!coordinator->wake_posted && coordinator->serve) {
        coordinator->wake_posted = true;
        assay_loop_post(coordinator->loop, wake, coordinator);
    }
}

/* Locked. */
static void health_changed(void *arg, const struct assay_service *service)
{
    struct assay_coordinator *c = arg;
    size_t leases = 0;
    if (service->health == ASSAY_HEALTH_DEAD)
        leases = assay_scheduler_drop_service(c->scheduler, service->id);
    assay_log(ASSAY_LOG_WARN, "service is %s pid=%u precision=%s leases_returned=%zu",
              assay_health_name(service->health), service->pid, service->precision[0] ? service->precision : "-",
              leases);
    assay_coordinator_changed(c);
}

static void note_waiting(const struct assay_serve *serve)
{
    const struct assay_coordinator *c = serve->coordinator;
    size_t watchers = 0;
    for (const struct assay_watcher *at = serve->watchers; at; at = at->next)
        watchers++;
    assay_gauge_set(assay_metric_only(c->metrics.parked), (double)c->calls_parked);
    assay_gauge_set(assay_metric_only(c->metrics.watchers), (double)watchers);
}

static void tick(void *arg)
{
    struct assay_serve *serve = arg;
    struct assay_coordinator *c = serve->coordinator;
    int64_t now_ms = assay_now_ms();
    pthread_mutex_lock(&c->lock);
    assay_registry_tick(&c->registry, now_ms, health_changed, c);
    assay_coordinator_update_shards(c);
    if (assay_scheduler_expire(c->scheduler, now_ms))
        assay_log(ASSAY_LOG_WARN, "a lease ended without progress");
    assay_serve_note_runs(c);
    for (struct assay_job *job = c->active; job; job = job->next_active)
        assay_job_note_progress(job);
    assay_jobs_dispatch(c);
    pthread_mutex_unlock(&c->lock);
    assay_serve_parked(serve);
    assay_serve_watchers(serve);
    note_waiting(serve);
}

static void copy_text(char *ret, size_t bytes, const char *text)
{
    snprintf(ret, bytes, "%s", text ? text : "");
}

/* A worker's key may register inference alone: whoever is taken for a quantizer or an evaluator decides results. */
static enum assay_status check_registration(const struct assay_call *call, const Assay__V1__RegisterRequest *request,
                                            struct assay_err *err)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count, endpoint_bytes = request->endpoint ? strlen(request->endpoint) : 0;
    enum assay_role role = assay_call_role(call);
    if (request->kind < ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE ||
        request->kind > ASSAY__V1__SERVICE_KIND__SERVICE_KIND_EVALUATOR)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "unknown kind of service %d", (int)request->kind);
    if (role != ASSAY_ROLE_ADMIN && request->kind != ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE)
        return assay_err_set(err, ASSAY_PERMISSION_DENIED, "a key of role %s may not register service kind %d",
                             assay_role_name(role), (int)request->kind);
    if (endpoint_bytes >= sizeof((struct assay_service *)NULL)->endpoint)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the endpoint has %zu bytes, at most %zu are allowed",
                             endpoint_bytes, sizeof((struct assay_service *)NULL)->endpoint - 1);
    return endpoint_bytes ? assay_addresses_parse(request->endpoint, addresses, &count, err) : ASSAY_OK;
}

static void register_service(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__RegisterRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_service entry = {.kind = (enum assay_service_kind)request->kind,
                                  .pid = request->pid,
                                  .threads = request->threads,
                                  .memory_bytes = request->memory_bytes};
    if (check_registration(call, request, &err) != ASSAY_OK) {
        assay_call_fail(call, &err);
        return;
    }
    copy_text(entry.endpoint, sizeof entry.endpoint, request->endpoint);
    copy_text(entry.precision, sizeof entry.precision, request->precision);
    copy_text(entry.numerics, sizeof entry.numerics, request->numerics_id);
    copy_text(entry.host, sizeof entry.host, request->host);
    copy_text(entry.device, sizeof entry.device, request->device);
    copy_text(entry.http, sizeof entry.http, request->http);
    if (assay_shard_id_from(request->shard_id.data, request->shard_id.len, &entry.shard_id, NULL) != ASSAY_OK)
        entry.shard_id = assay_shard_id_of_endpoint(entry.endpoint);
    do
        randombytes_buf(&entry.id, sizeof entry.id);
    while (entry.id == 0);
    pthread_mutex_lock(&c->lock);
    enum assay_status status = assay_registry_add(&c->registry, &entry, assay_now_ms(), &err);
    assay_coordinator_update_shards(c);
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        return;
    }
    assay_log(ASSAY_LOG_INFO, "service registered kind=%d pid=%u precision=%s endpoint=%s", (int)entry.kind, entry.pid,
              entry.precision[0] ? entry.precision : "-", entry.endpoint);
    Assay__V1__RegisterReply reply = ASSAY__V1__REGISTER_REPLY__INIT;
    reply.has_service_id = reply.has_heartbeat_ms = true;
    reply.service_id = entry.id;
    reply.heartbeat_ms = ASSAY_HEARTBEAT_MS;
    assay_call_reply(call, &reply.base, NULL, 0);
}

void assay_service_note_loaded(struct assay_service *service, const ProtobufCBinaryData *ids, size_t count)
{
    size_t filled = 0;
    for (size_t i = 0; i < count && filled < ASSAY_LOADED_MAX; i++)
        if (ids[i].len == ASSAY_DIGEST_BYTES)
            memcpy(service->loaded[filled++].digest.bytes, ids[i].data, ASSAY_DIGEST_BYTES);
    service->loaded_count = filled;
}

static void heartbeat(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__HeartbeatRequest *request = assay_call_request(call);
    struct assay_service_counters counters = {0};
    if (request->counters) {
        const Assay__V1__ServiceCounters *from = request->counters;
        counters =
            (struct assay_service_counters){from->chunks_run, from->tokens_run,    from->records_sent, from->compute_us,
                                            from->rss_bytes,  from->models_loaded, from->cpu_ms,       from->uptime_ms};
    }
    pthread_mutex_lock(&c->lock);
    bool known =
        assay_registry_seen(&c->registry, request->service_id, request->counters ? &counters : NULL, assay_now_ms());
    if (known && request->tells_loaded)
        assay_service_note_loaded(assay_registry_find(&c->registry, request->service_id), request->loaded_variant_ids,
                                  request->n_loaded_variant_ids);
    pthread_mutex_unlock(&c->lock);
    Assay__V1__HeartbeatReply reply = ASSAY__V1__HEARTBEAT_REPLY__INIT;
    reply.has_unknown = true;
    reply.unknown = !known;
    assay_call_reply(call, &reply.base, NULL, 0);
}

static const char *state_of(const struct assay_service *service, bool leased)
{
    switch (service->health) {
    case ASSAY_HEALTH_ALIVE:
        return leased ? "leased" : "ready";
    case ASSAY_HEALTH_SUSPECT:
        return "suspect";
    default:
        return "silent";
    }
}

void assay_serve_fill_service(struct assay_service_message *m, bool leased, int64_t now_ms)
{
    assay__v1__service_info__init(&m->info);
    assay__v1__register_request__init(&m->registration);
    assay__v1__service_counters__init(&m->counters);
    m->registration.has_kind = m->registration.has_pid = m->registration.has_threads = true;
    m->registration.has_memory_bytes = m->entry.memory_bytes > 0;
    m->registration.memory_bytes = m->entry.memory_bytes;
    m->registration.kind = (Assay__V1__ServiceKind)m->entry.kind;
    m->registration.pid = m->entry.pid;
    m->registration.threads = m->entry.threads;
    m->registration.endpoint = m->entry.endpoint;
    m->registration.precision = m->entry.precision;
    m->registration.numerics_id = m->entry.numerics;
    m->registration.host = m->entry.host;
    m->registration.device = m->entry.device;
    m->registration.http = m->entry.http;
    const struct assay_service_counters *counters = &m->entry.counters;
    m->counters.has_chunks_run = m->counters.has_tokens_run = m->counters.has_records_sent =
        m->counters.has_compute_us = m->counters.has_rss_bytes = m->counters.has_models_loaded =
            m->counters.has_cpu_ms = m->counters.has_uptime_ms = true;
    m->counters.chunks_run = counters->chunks_run;
    m->counters.tokens_run = counters->tokens_run;
    m->counters.records_sent = counters->records_sent;
    m->counters.compute_us = counters->compute_us;
    m->counters.rss_bytes = counters->rss_bytes;
    m->counters.models_loaded = counters->models_loaded;
    m->counters.cpu_ms = counters->cpu_ms;
    m->counters.uptime_ms = counters->uptime_ms;
    m->info.has_service_id = m->info.has_silent_ms = true;
    m->info.service_id = m->entry.id;
    m->info.silent_ms = (uint64_t)(now_ms - m->entry.seen_ms);
    m->info.registration = &m->registration;
    m->info.counters = &m->counters;
    m->info.state = (char *)(uintptr_t)state_of(&m->entry, leased);
    m->info.n_loaded_variant_ids = m->entry.loaded_count;
    m->info.loaded_variant_ids = m->loaded;
    for (size_t i = 0; i < m->entry.loaded_count; i++)
        m->loaded[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, m->entry.loaded[i].digest.bytes};
}

const assay_method_fn assay_serve_coordinator_methods[] = {register_service,          heartbeat,
                                                           assay_serve_list_services, assay_serve_watch_demand,
                                                           assay_serve_submit_job,    assay_serve_watch_events,
                                                           assay_serve_get_job,       assay_serve_list_jobs,
                                                           assay_serve_cancel_job,    assay_serve_plan_job,
                                                           assay_serve_pause_job,     assay_serve_resume_job,
                                                           assay_serve_retry_job,     assay_serve_remove_job,
                                                           assay_serve_watch_shards,  assay_serve_leave_shards};
_Static_assert(ASSAY_COUNT(assay_serve_coordinator_methods) == 16, "one handler for each method of control.proto");

enum assay_status assay_serve_new(struct assay_coordinator *coordinator, struct assay_err *err)
{
    struct assay_serve *serve = calloc(1, sizeof *serve);
    if (!serve)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    serve->coordinator = coordinator;
    assay_server_add(coordinator->server, &assay__v1__coordinator__descriptor, assay_serve_coordinator_methods,
                     coordinator);
    assay_server_add(coordinator->server, &assay__v1__work__descriptor, assay_serve_work_methods, coordinator);
    assay_server_add(coordinator->server, &assay__v1__status__descriptor, assay_serve_status_methods, coordinator);
    serve->timer = assay_loop_timer(coordinator->loop, TICK_MS, TICK_MS, tick, serve);
    pthread_mutex_lock(&coordinator->lock);
    coordinator->serve = serve;
    pthread_mutex_unlock(&coordinator->lock);
    return ASSAY_OK;
}

void assay_serve_free(struct assay_serve *serve)
{
    if (!serve)
        return;
    assay_serve_benches_free(serve);
    assay_serve_watchers_free(serve);
    assay_serve_shard_watchers_free(serve);
    free(serve);
}
