#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/wire/shard_message.h"
#include "proto/work.pb-c.h"
#include "services/coordinator/driver.h"
#include "services/coordinator/engine.h"
#include "services/coordinator/serve.h"

#define WAIT_MS_MAX 60000
#define HELD_LEASES_MAX 64

/* What a LeaseReply needs beside the message itself. */
struct lease_reply {
    Assay__V1__LeaseReply message;
    struct assay_variant_message variant;
    struct assay_shard_message *shards;
    Assay__V1__Tensor ids_tensor;
    uint64_t shape[1];
    ProtobufCBinaryData *keys;
    uint32_t *tokens;
    int32_t *ids; /* malloc; taken over by the attachment */
    char trace_id[2 * ASSAY_JOB_ID_BYTES + 1];
    char quantizer[ASSAY_SHARD_ENDPOINT_MAX];
};

static void lease_reply_release(struct lease_reply *r)
{
    free(r->keys);
    free(r->tokens);
    free(r->shards);
}

/* The map of evaluators, which does not change on another thread while the reply is packed. False: out of memory. */
static bool fill_shards(const struct assay_shard_map *map, struct lease_reply *r)
{
    r->shards = assay_shard_message_new(map);
    if (!r->shards)
        return false;
    r->message.shard_map = &r->shards->message;
    for (size_t i = map->count; i-- > 0;)
        if (!map->shards[i].leaving)
            r->message.evaluator_endpoint = (char *)(uintptr_t)map->shards[i].endpoint;
    return true;
}

/* Locked: who serves the artifact to a worker that does not see it. */
static void fill_artifact_endpoint(const struct assay_coordinator *c, struct lease_reply *r)
{
    const struct assay_service *quantizer = assay_registry_pick(&c->registry, ASSAY_SERVICE_QUANTIZER);
    if (!quantizer)
        return;
    strcpy(r->quantizer, quantizer->endpoint);
    r->variant.variant.artifact_endpoint = r->quantizer;
}

/* Locked: copies what the lease says out of the plan. False: out of memory. */
static bool lease_reply_fill(const struct assay_lease *lease, const struct assay_shard_map *map, struct lease_reply *r)
{
    const struct assay_job_run *run = assay_run_owner(lease->run);
    const struct assay_plan *plan = &run->job->plan;
    size_t index = (size_t)(run - run->job->runs), ids = 0;
    for (size_t i = 0; i < lease->count; i++)
        ids += plan->chunks.at[plan->run_chunks[lease->chunks[i]]].tokens;
    r->keys = calloc(lease->count, sizeof *r->keys);
    r->tokens = calloc(lease->count, 3 * sizeof *r->tokens);
    r->ids = malloc(ids * sizeof *r->ids);
    if (!r->keys || !r->tokens || !r->ids || !fill_shards(map, r))
        return false;
    uint32_t *begins = r->tokens + lease->count, *ends = begins + lease->count;
    size_t at = 0;
    for (size_t i = 0; i < lease->count; i++) {
        const struct assay_chunk *chunk = &plan->chunks.at[plan->run_chunks[lease->chunks[i]]];
        r->keys[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)chunk->key.digest.bytes};
        r->tokens[i] = chunk->tokens;
        begins[i] = chunk->score_begin;
        ends[i] = chunk->score_end;
        memcpy(r->ids + at, chunk->ids, chunk->tokens * sizeof *r->ids);
        at += chunk->tokens;
    }
    assay_variant_message_fill(plan, &plan->variants[index], &r->variant);
    assay__v1__tensor__init(&r->ids_tensor);
    r->shape[0] = ids;
    r->ids_tensor.has_dtype = r->ids_tensor.has_attachment = true;
    r->ids_tensor.dtype = ASSAY__V1__DTYPE__DTYPE_I32;
    r->ids_tensor.n_shape = 1;
    r->ids_tensor.shape = r->shape;
    Assay__V1__LeaseReply *message = &r->message;
    message->has_lease_id = message->has_lease_ms = true;
    message->lease_id = lease->id;
    message->lease_ms = (uint64_t)lease->lease_ms;
    message->variant = &r->variant.variant;
    message->n_chunk_keys = message->n_chunk_tokens = message->n_score_begin = message->n_score_end = lease->count;
    message->chunk_keys = r->keys;
    message->chunk_tokens = r->tokens;
    message->score_begin = begins;
    message->score_end = ends;
    message->ids = &r->ids_tensor;
    message->has_record_dtype = true;
    message->record_dtype = plan->record_dtype;
    message->has_first_chunk_key = true;
    message->first_chunk_key = (ProtobufCBinaryData){
        ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)plan->chunks.at[plan->run_chunks[0]].key.digest.bytes};
    message->trace_id = assay_job_hex(run->job, r->trace_id);
    return true;
}

/* Locked: which models the worker says it has loaded. */
static void note_loaded(struct assay_service *service, const Assay__V1__LeaseRequest *request)
{
    if (request->n_loaded_variant_ids == 0 && request->has_loaded_variant_id)
        assay_service_note_loaded(service, &request->loaded_variant_id, 1);
    else
        assay_service_note_loaded(service, request->loaded_variant_ids, request->n_loaded_variant_ids);
}

/* Locked: leases whose replies the worker never got must not wait for their end. */
static void return_unheard(struct assay_coordinator *c, const Assay__V1__LeaseRequest *request)
{
    if (!request->says_held || request->n_held_lease_ids > HELD_LEASES_MAX)
        return;
    size_t returned = assay_scheduler_keep_leases(c->scheduler, request->service_id, request->held_lease_ids,
                                                  request->n_held_lease_ids);
    if (returned == 0)
        return;
    assay_log(ASSAY_LOG_WARN, "a worker does not have leases that were given to it service=%llu leases=%zu",
              (unsigned long long)request->service_id, returned);
    assay_serve_note_runs(c);
    assay_coordinator_changed(c);
}

/* Locked: a lease for the caller, its reply filled. */
static bool grant(struct assay_coordinator *c, const Assay__V1__LeaseRequest *request, struct lease_reply *r)
{
    const struct assay_service *service = assay_registry_find(&c->registry, request->service_id);
    if (!service || assay_shard_map_owners(&c->shards.map) == 0 || service->health != ASSAY_HEALTH_ALIVE)
        return false;
    char bound[ASSAY_QUEUE_BYTES_MAX];
    struct assay_ask ask = {.service_id = service->id,
                            .precision = assay_queue_of_worker(service->precision, service->numerics, bound),
                            .numerics_id = service->numerics,
                            .loaded = service->loaded,
                            .loaded_count = service->loaded_count,
                            .chunks_max = ASSAY_MIN(ASSAY_MAX(request->chunks_max, 1u), ASSAY_LEASE_CHUNKS_MAX),
                            .batch_chunks = ASSAY_MIN(request->batch_chunks, ASSAY_LEASE_CHUNKS_MAX),
                            .workers = assay_registry_workers(&c->registry, service->precision)};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_lease lease;
    bool leased = assay_scheduler_lease(c->scheduler, &ask, assay_now_ms(), &lease, &err);
    if (!leased && err.status == ASSAY_OK) {
        ask.precision = service->precision;
        leased = assay_scheduler_lease(c->scheduler, &ask, assay_now_ms(), &lease, &err);
    }
    if (!leased) {
        if (err.status != ASSAY_OK)
            assay_log(ASSAY_LOG_ERROR, "cannot lend chunks reason=\"%s\"", err.text);
        return false;
    }
    bool filled = lease_reply_fill(&lease, &c->shards.map, r);
    if (filled)
        fill_artifact_endpoint(c, r);
    if (!filled)
        assay_scheduler_return(c->scheduler, service->id, lease.id, false, "");
    return filled;
}

/* Answers the call with a lease if there is work for it. Keys point into the plan, which outlives the call's packing: a
 * job frees its plan only after its runs are out of the scheduler and its thread has ended. */
bool assay_serve_try_lease(struct assay_coordinator *c, struct assay_call *call)
{
    struct lease_reply r = {.message = ASSAY__V1__LEASE_REPLY__INIT};
    int64_t begun_us = assay_now_us();
    pthread_mutex_lock(&c->lock);
    bool filled = grant(c, assay_call_request(call), &r);
    int64_t took_us = assay_now_us() - begun_us;
    assay_histogram_observe(assay_metric_only(c->metrics.decisions), (uint64_t)took_us);
    pthread_mutex_unlock(&c->lock);
    if (filled) {
        const struct assay_attachment ids = {r.ids, r.shape[0] * sizeof *r.ids, assay_attachment_free, NULL};
        assay_call_reply(call, &r.message.base, &ids, 1);
    } else {
        free(r.ids);
    }
    lease_reply_release(&r);
    return filled;
}

/* --- Lease --- */

static void lease_chunks(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_bench *bench = NULL;
    struct assay_variant_id loaded[ASSAY_LOADED_MAX];
    size_t loaded_count = 0;
    pthread_mutex_lock(&c->lock);
    bool known = assay_registry_seen(&c->registry, request->service_id, NULL, assay_now_ms());
    bool stopping = c->stopping;
    if (known) {
        struct assay_service *worker = assay_registry_find(&c->registry, request->service_id);
        note_loaded(worker, request);
        return_unheard(c, request);
        loaded_count = worker->loaded_count;
        memcpy(loaded, worker->loaded, loaded_count * sizeof *loaded);
        bench = assay_bench_get(c->serve, worker->precision, worker->numerics);
    }
    pthread_mutex_unlock(&c->lock);
    if (!known || stopping) {
        if (!known)
            assay_err_set(&err, ASSAY_NOT_FOUND, "the coordinator does not know this service, it must register");
        else
            assay_err_set(&err, ASSAY_UNAVAILABLE, "the coordinator is shutting down");
        assay_call_fail(call, &err);
        return;
    }
    if (!assay_serve_try_lease(c, call))
        assay_serve_park(c->serve, call, request->wait_ms ? bench : NULL, loaded, loaded_count,
                         (int64_t)ASSAY_MIN(request->wait_ms, (uint64_t)WAIT_MS_MAX));
}

/* --- Complete --- */

void assay_serve_note_runs(struct assay_coordinator *c)
{
    struct assay_run *run;
    while ((run = assay_scheduler_next_changed(c->scheduler)))
        assay_job_note_run(assay_run_owner(run));
}

/* A failure that says something about the model or the machine's set-up, not about this try. */
static bool is_final(enum assay_status status)
{
    switch (status) {
    case ASSAY_INVALID_ARGUMENT:
    case ASSAY_NOT_FOUND:
    case ASSAY_FAILED_PRECONDITION:
    case ASSAY_OUT_OF_RANGE:
    case ASSAY_UNIMPLEMENTED:
    case ASSAY_DATA_LOSS:
        return true;
    default:
        return false;
    }
}

/* The keys of a message as ours; malloc, NULL when empty, out of memory or of a wrong size. */
static struct assay_chunk_key *keys_of(const Assay__V1__CompleteRequest *request)
{
    struct assay_chunk_key *keys = malloc(ASSAY_MAX(request->n_chunk_keys, 1) * sizeof *keys);
    for (size_t i = 0; keys && i < request->n_chunk_keys; i++) {
        if (request->chunk_keys[i].len != ASSAY_DIGEST_BYTES) {
            free(keys);
            return NULL;
        }
        memcpy(keys[i].digest.bytes, request->chunk_keys[i].data, ASSAY_DIGEST_BYTES);
    }
    return keys;
}

/* Locked: work counts whatever becomes of its lease. */
static void note_work(const struct assay_coordinator *c, const Assay__V1__CompleteRequest *request)
{
    const struct assay_service *service = assay_registry_find(&c->registry, request->service_id);
    const char *precision = service ? service->precision : "";
    assay_counter_add(assay_metric_series(c->metrics.chunks_run, &precision), request->n_chunk_keys);
    assay_counter_add(assay_metric_series(c->metrics.tokens_run, &precision), request->tokens);
    assay_counter_add(assay_metric_series(c->metrics.compute, &precision), request->compute_us);
}

/* Locked: a worker gives a lease up. */
static void apply_failure(struct assay_coordinator *c, const Assay__V1__CompleteRequest *request,
                          struct assay_job_run *job_run)
{
    enum assay_status status = (enum assay_status)request->failure_status;
    const char *label = job_run ? job_run->job->plan.variants[job_run - job_run->job->runs].label : "-";
    assay_log(ASSAY_LOG_WARN, "worker returned chunks variant=%s reason=\"%.300s\"", label, request->failure);
    if (request->too_large) {
        assay_scheduler_refuse(c->scheduler, request->service_id, request->lease_id, request->failure);
    } else {
        if (job_run && is_final(status))
            assay_err_set(&job_run->failure, status, "%.400s", request->failure);
        assay_scheduler_return(c->scheduler, request->service_id, request->lease_id, status != ASSAY_UNAVAILABLE,
                               request->failure);
    }
    assay_coordinator_changed(c);
}

/* Locked. False: the lease is lost. */
static bool apply_complete(struct assay_coordinator *c, const Assay__V1__CompleteRequest *request,
                           const struct assay_chunk_key *keys)
{
    struct assay_run *run = NULL;
    size_t newly = 0;
    if (!assay_scheduler_complete(c->scheduler, request->service_id, request->lease_id, keys, request->n_chunk_keys,
                                  request->compute_us, assay_now_ms(), &run, &newly))
        return false;
    struct assay_job_run *job_run = run ? assay_run_owner(run) : NULL;
    if (job_run) {
        job_run->tokens_run += request->tokens;
        job_run->compute_us += request->compute_us;
    }
    if (request->failure && request->failure[0])
        apply_failure(c, request, job_run);
    assay_serve_note_runs(c);
    return true;
}

static void complete_chunks(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__CompleteRequest *request = assay_call_request(call);
    assay_auto(assay_free_ptr) struct assay_chunk_key *keys = keys_of(request);
    if (!keys) {
        struct assay_err err;
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "chunk_keys: each has %d bytes", ASSAY_DIGEST_BYTES);
        assay_call_fail(call, &err);
        return;
    }
    pthread_mutex_lock(&c->lock);
    assay_registry_seen(&c->registry, request->service_id, NULL, assay_now_ms());
    note_work(c, request);
    bool kept = apply_complete(c, request, keys);
    assay_counter_add(assay_metric_only(c->metrics.late_answers), !kept);
    pthread_mutex_unlock(&c->lock);
    Assay__V1__CompleteReply reply = ASSAY__V1__COMPLETE_REPLY__INIT;
    reply.has_lease_lost = true;
    reply.lease_lost = !kept;
    assay_call_reply(call, &reply.base, NULL, 0);
}

const assay_method_fn assay_serve_work_methods[] = {lease_chunks, complete_chunks};
