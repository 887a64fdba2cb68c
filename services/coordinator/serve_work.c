#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proto/work.pb-c.h"
#include "services/coordinator/driver.h"
#include "services/coordinator/serve.h"

#define CHUNKS_MAX 4096
#define WAIT_MS_MAX 60000

/* What a LeaseReply needs beside the message itself. */
struct lease_reply {
    Assay__V1__LeaseReply message;
    struct assay_variant_message variant;
    Assay__V1__Tensor ids_tensor;
    uint64_t shape[1];
    ProtobufCBinaryData *keys;
    uint32_t *tokens, *begins, *ends;
    int32_t *ids; /* malloc; taken over by the attachment */
    char evaluator[256];
};

static void lease_reply_release(struct lease_reply *r)
{
    free(r->keys);
    free(r->tokens);
    free(r->begins);
    free(r->ends);
}

/* Locked: copies what the lease says out of the plan. False: out of memory. */
static bool lease_reply_fill(const struct assay_lease *lease, const char *evaluator, struct lease_reply *r)
{
    const struct assay_job_run *run = assay_run_owner(lease->run);
    const struct assay_plan *plan = &run->job->plan;
    size_t index = (size_t)(run - run->job->runs), ids = 0;
    for (size_t i = 0; i < lease->count; i++)
        ids += plan->chunks.at[plan->run_chunks[lease->chunks[i]]].tokens;
    r->keys = calloc(lease->count, sizeof *r->keys);
    r->tokens = calloc(lease->count, sizeof *r->tokens);
    r->begins = calloc(lease->count, sizeof *r->begins);
    r->ends = calloc(lease->count, sizeof *r->ends);
    r->ids = malloc(ids * sizeof *r->ids);
    if (!r->keys || !r->tokens || !r->begins || !r->ends || !r->ids)
        return false;
    size_t at = 0;
    for (size_t i = 0; i < lease->count; i++) {
        const struct assay_chunk *chunk = &plan->chunks.at[plan->run_chunks[lease->chunks[i]]];
        r->keys[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)chunk->key.digest.bytes};
        r->tokens[i] = chunk->tokens;
        r->begins[i] = chunk->score_begin;
        r->ends[i] = chunk->score_end;
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
    snprintf(r->evaluator, sizeof r->evaluator, "%s", evaluator);
    Assay__V1__LeaseReply *message = &r->message;
    message->has_lease_id = message->has_lease_ms = true;
    message->lease_id = lease->id;
    message->lease_ms = ASSAY_LEASE_MS;
    message->variant = &r->variant.variant;
    message->evaluator_endpoint = r->evaluator;
    message->n_chunk_keys = message->n_chunk_tokens = message->n_score_begin = message->n_score_end = lease->count;
    message->chunk_keys = r->keys;
    message->chunk_tokens = r->tokens;
    message->score_begin = r->begins;
    message->score_end = r->ends;
    message->ids = &r->ids_tensor;
    message->has_record_dtype = true;
    message->record_dtype = plan->record_dtype;
    return true;
}

/* Answers the call with a lease if there is work for it. Keys point into the plan, which outlives the call's packing: a
 * job frees its plan only after its runs are out of the scheduler and its thread has ended. */
static bool try_lease(struct assay_coordinator *c, struct assay_call *call)
{
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    struct lease_reply r = {.message = ASSAY__V1__LEASE_REPLY__INIT};
    struct assay_variant_id loaded;
    bool has_loaded = request->has_loaded_variant_id && request->loaded_variant_id.len == ASSAY_DIGEST_BYTES;
    if (has_loaded)
        memcpy(loaded.digest.bytes, request->loaded_variant_id.data, ASSAY_DIGEST_BYTES);
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_lease lease;
    bool filled = false;
    pthread_mutex_lock(&c->lock);
    const struct assay_service *service = assay_registry_find(&c->registry, request->service_id);
    const struct assay_service *evaluator = assay_registry_pick(&c->registry, ASSAY_SERVICE_EVALUATOR);
    size_t chunks_max = ASSAY_MIN(ASSAY_MAX(request->chunks_max, 1u), (uint32_t)CHUNKS_MAX);
    bool leased =
        service && evaluator &&
        assay_scheduler_lease(c->scheduler, service->id, service->precision, service->numerics,
                              has_loaded ? &loaded : NULL, chunks_max,
                              assay_registry_workers(&c->registry, service->precision), assay_now_ms(), &lease, &err);
    if (leased) {
        filled = lease_reply_fill(&lease, evaluator->endpoint, &r);
        if (!filled)
            assay_scheduler_return(c->scheduler, service->id, lease.id, false, "");
    }
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

static void reply_no_work(struct assay_call *call)
{
    Assay__V1__LeaseReply reply = ASSAY__V1__LEASE_REPLY__INIT;
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void parked_cancelled(void *arg)
{
    struct assay_parked *parked = arg;
    struct assay_parked **at = &parked->serve->parked;
    while (*at != parked)
        at = &(*at)->next;
    *at = parked->next;
    struct assay_err err;
    assay_err_set(&err, ASSAY_CANCELLED, "the worker gave up waiting for a lease");
    assay_call_fail(parked->call, &err);
    free(parked);
}

static void lease_chunks(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&c->lock);
    bool known = assay_registry_seen(&c->registry, request->service_id, NULL, assay_now_ms());
    bool stopping = c->stopping;
    pthread_mutex_unlock(&c->lock);
    if (!known || stopping) {
        if (!known)
            assay_err_set(&err, ASSAY_NOT_FOUND, "the coordinator does not know this service, it must register");
        else
            assay_err_set(&err, ASSAY_UNAVAILABLE, "the coordinator is shutting down");
        assay_call_fail(call, &err);
        return;
    }
    if (try_lease(c, call))
        return;
    struct assay_parked *parked = request->wait_ms ? malloc(sizeof *parked) : NULL;
    if (!parked) {
        reply_no_work(call);
        return;
    }
    int64_t wait_ms = (int64_t)ASSAY_MIN(request->wait_ms, (uint64_t)WAIT_MS_MAX);
    *parked = (struct assay_parked){c->serve->parked, call, c->serve, assay_now_ms() + wait_ms};
    c->serve->parked = parked;
    assay_call_on_cancel(call, parked_cancelled, parked);
}

void assay_serve_parked(struct assay_serve *serve)
{
    int64_t now_ms = assay_now_ms();
    struct assay_parked **at = &serve->parked;
    while (*at) {
        struct assay_parked *parked = *at;
        bool over = now_ms >= parked->until_ms;
        if (over)
            reply_no_work(parked->call);
        if (over || try_lease(serve->coordinator, parked->call)) {
            *at = parked->next;
            free(parked);
        } else {
            at = &parked->next;
        }
    }
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

/* Locked: the keys of a message as ours; malloc, NULL when empty, out of memory or of a wrong size. */
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

/* Locked. False: the lease is lost. */
static bool apply_complete(struct assay_coordinator *c, const Assay__V1__CompleteRequest *request,
                           const struct assay_chunk_key *keys)
{
    struct assay_run *run = NULL;
    size_t newly = 0;
    if (!assay_scheduler_complete(c->scheduler, request->service_id, request->lease_id, keys, request->n_chunk_keys,
                                  assay_now_ms(), &run, &newly))
        return false;
    struct assay_job_run *job_run = assay_run_owner(run);
    struct assay_job *job = job_run->job;
    job_run->chunks_run += newly;
    job_run->tokens_run += request->tokens;
    job_run->compute_us += request->compute_us;
    size_t index = (size_t)(job_run - job->runs);
    assay_job_advance(job, job_run->phase, assay_run_done(run), job->record->results[index]->chunks_cached,
                      assay_run_total(run));
    if (request->failure && request->failure[0]) {
        enum assay_status status = (enum assay_status)request->failure_status;
        assay_log(ASSAY_LOG_WARN, "worker returned chunks variant=%s reason=\"%.300s\"",
                  job->plan.variants[index].label, request->failure);
        if (is_final(status))
            assay_err_set(&job_run->failure, status, "%.400s", request->failure);
        assay_scheduler_return(c->scheduler, request->service_id, request->lease_id, status != ASSAY_UNAVAILABLE,
                               request->failure);
    }
    assay_coordinator_changed(c);
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
    bool kept = apply_complete(c, request, keys);
    pthread_mutex_unlock(&c->lock);
    Assay__V1__CompleteReply reply = ASSAY__V1__COMPLETE_REPLY__INIT;
    reply.has_lease_lost = true;
    reply.lease_lost = !kept;
    assay_call_reply(call, &reply.base, NULL, 0);
}

const assay_method_fn assay_serve_work_methods[] = {lease_chunks, complete_chunks};
