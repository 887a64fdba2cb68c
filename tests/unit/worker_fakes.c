#include "tests/unit/worker_fakes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A call that waits for its time. */
struct parked {
    struct fakes *fakes;
    struct assay_call *call;
    uint64_t timer;
};

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK) {
        fprintf(stderr, "fakes: %s\n", err->text);
        abort();
    }
}

static void saw(struct fakes *fakes)
{
    pthread_cond_broadcast(&fakes->changed);
    pthread_mutex_unlock(&fakes->lock);
}

/* --- coordinator --- */

static void on_register(struct assay_call *call, void *service)
{
    struct fakes *fakes = service;
    const Assay__V1__RegisterRequest *request = assay_call_request(call);
    Assay__V1__RegisterReply reply = ASSAY__V1__REGISTER_REPLY__INIT;
    pthread_mutex_lock(&fakes->lock);
    reply.has_service_id = reply.has_heartbeat_ms = true;
    reply.service_id = ++fakes->registrations;
    reply.heartbeat_ms = 50;
    fakes->memory_bytes = request->memory_bytes;
    snprintf(fakes->precision, sizeof fakes->precision, "%s", request->precision ? request->precision : "");
    snprintf(fakes->numerics_id, sizeof fakes->numerics_id, "%s", request->numerics_id ? request->numerics_id : "");
    saw(fakes);
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void on_heartbeat(struct assay_call *call, void *service)
{
    struct fakes *fakes = service;
    const Assay__V1__HeartbeatRequest *request = assay_call_request(call);
    Assay__V1__HeartbeatReply reply = ASSAY__V1__HEARTBEAT_REPLY__INIT;
    pthread_mutex_lock(&fakes->lock);
    if (request->counters)
        fakes->counters = *request->counters;
    fakes->beat_loaded_count = request->tells_loaded ? request->n_loaded_variant_ids : SIZE_MAX;
    saw(fakes);
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void reply_lease(struct fakes *fakes, struct assay_call *call, const struct fake_lease *lease, uint64_t id)
{
    ProtobufCBinaryData keys[FAKE_CHUNKS_MAX];
    uint32_t tokens[FAKE_CHUNKS_MAX], begins[FAKE_CHUNKS_MAX], ends[FAKE_CHUNKS_MAX];
    Assay__V1__LeaseReply reply = ASSAY__V1__LEASE_REPLY__INIT;
    Assay__V1__Variant variant = ASSAY__V1__VARIANT__INIT;
    Assay__V1__VariantSpec spec = ASSAY__V1__VARIANT_SPEC__INIT;
    Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
    uint64_t total = 0;
    for (size_t i = 0; i < lease->count; i++) {
        keys[i] = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)lease->chunks[i].key};
        tokens[i] = lease->chunks[i].tokens;
        begins[i] = lease->chunks[i].begin;
        ends[i] = lease->chunks[i].end;
        total += tokens[i];
    }
    int32_t *ids = malloc((total + 1) * sizeof *ids), *at = ids;
    for (size_t i = 0; i < lease->count; at += tokens[i++])
        memcpy(at, lease->chunks[i].ids, tokens[i] * sizeof *ids);
    spec.scheme = (char *)(uintptr_t)lease->scheme;
    variant.has_variant_id = true;
    variant.variant_id = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)lease->variant_id};
    variant.spec = &spec;
    variant.artifact_dir = (char *)(uintptr_t)lease->artifact_dir;
    tensor.has_dtype = tensor.has_attachment = true;
    tensor.dtype = ASSAY__V1__DTYPE__DTYPE_I32;
    tensor.n_shape = 1;
    tensor.shape = &total;
    reply.has_lease_id = reply.has_lease_ms = true;
    reply.lease_id = id;
    reply.lease_ms = 60000;
    reply.variant = &variant;
    reply.evaluator_endpoint = (char *)(uintptr_t)(lease->evaluator ? lease->evaluator : fakes->evaluator_endpoint);
    reply.n_chunk_keys = reply.n_chunk_tokens = reply.n_score_begin = lease->count;
    reply.n_score_end = lease->count - lease->is_broken;
    reply.chunk_keys = keys;
    reply.chunk_tokens = tokens;
    reply.score_begin = begins;
    reply.score_end = ends;
    reply.ids = &tensor;
    const struct assay_attachment attachment = {ids, total * sizeof *ids, assay_attachment_free, NULL};
    assay_call_reply(call, &reply.base, &attachment, 1);
}

static void unpark(void *arg)
{
    struct parked *parked = arg;
    Assay__V1__LeaseReply nothing = ASSAY__V1__LEASE_REPLY__INIT;
    assay_call_reply(parked->call, &nothing.base, NULL, 0);
    free(parked);
}

static void on_parked_cancelled(void *arg)
{
    struct parked *parked = arg;
    struct assay_err err;
    assay_err_set(&err, ASSAY_CANCELLED, "cancelled");
    assay_loop_timer_cancel(parked->fakes->loop, parked->timer);
    assay_call_fail(parked->call, &err);
    free(parked);
}

static void on_lease(struct assay_call *call, void *service)
{
    struct fakes *fakes = service;
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    const struct fake_lease *lease = NULL;
    uint64_t id = 0;
    pthread_mutex_lock(&fakes->lock);
    fakes->lease_calls++;
    fakes->chunks_max = request->chunks_max;
    fakes->loaded_count = ASSAY_MIN(request->n_loaded_variant_ids, ASSAY_COUNT(fakes->loaded));
    for (size_t i = 0; i < fakes->loaded_count; i++)
        memcpy(fakes->loaded[i], request->loaded_variant_ids[i].data, sizeof fakes->loaded[i]);
    bool forgotten = request->service_id == fakes->forgotten_service_id;
    int64_t park_ms = fakes->park_ms;
    if (!forgotten && fakes->leases_given < fakes->leases_count) {
        lease = &fakes->leases[fakes->leases_given++];
        id = fakes->leases_given;
    }
    saw(fakes);
    if (forgotten) {
        struct assay_err err;
        assay_err_set(&err, ASSAY_NOT_FOUND, "who are you");
        assay_call_fail(call, &err);
    } else if (lease) {
        reply_lease(fakes, call, lease, id);
    } else {
        struct parked *parked = malloc(sizeof *parked);
        *parked = (struct parked){fakes, call, 0};
        parked->timer = assay_loop_timer(fakes->loop, park_ms, 0, unpark, parked);
        assay_call_on_cancel(call, on_parked_cancelled, parked);
    }
}

static void on_complete(struct assay_call *call, void *service)
{
    struct fakes *fakes = service;
    const Assay__V1__CompleteRequest *request = assay_call_request(call);
    Assay__V1__CompleteReply reply = ASSAY__V1__COMPLETE_REPLY__INIT;
    pthread_mutex_lock(&fakes->lock);
    struct fake_complete *complete = &fakes->completes[fakes->completes_count++];
    complete->service_id = request->service_id;
    complete->lease_id = request->lease_id;
    complete->tokens = request->tokens;
    complete->compute_us = request->compute_us;
    complete->count = request->n_chunk_keys;
    complete->acknowledged = true;
    for (size_t i = 0; i < complete->count; i++) {
        memcpy(complete->keys[i], request->chunk_keys[i].data, 32);
        complete->acknowledged = complete->acknowledged && fakes_record(fakes, complete->keys[i]);
    }
    snprintf(complete->failure, sizeof complete->failure, "%s", request->failure ? request->failure : "");
    complete->failure_status = request->failure_status;
    complete->too_large = request->too_large;
    reply.has_lease_lost = true;
    reply.lease_lost = request->lease_id == fakes->lost_lease_id;
    saw(fakes);
    assay_call_reply(call, &reply.base, NULL, 0);
}

/* --- evaluator --- */

const struct fake_record *fakes_record(const struct fakes *fakes, const unsigned char key[32])
{
    for (size_t i = 0; i < fakes->records_count; i++)
        if (memcmp(fakes->records[i].key, key, 32) == 0)
            return &fakes->records[i];
    return NULL;
}

static void store(struct fakes *fakes, struct assay_call *call, const Assay__V1__Record *record)
{
    const Assay__V1__Tensor *hidden = record->hidden;
    struct assay_bytes bytes = assay_call_attachment(call, hidden->attachment);
    struct fake_record *stored = &fakes->records[fakes->records_count];
    if (hidden->n_shape != 2 || hidden->dtype != ASSAY__V1__DTYPE__DTYPE_F32 ||
        bytes.bytes != hidden->shape[0] * hidden->shape[1] * sizeof(float) ||
        fakes_record(fakes, record->chunk_key.data))
        return;
    memcpy(stored->key, record->chunk_key.data, 32);
    memcpy(stored->variant_id, record->variant_id.data, 32);
    snprintf(stored->numerics_id, sizeof stored->numerics_id, "%s", record->numerics_id);
    stored->rows = hidden->shape[0];
    stored->width = hidden->shape[1];
    stored->hidden = malloc(bytes.bytes + 1);
    memcpy(stored->hidden, bytes.data, bytes.bytes);
    fakes->records_count++;
}

static void store_all(struct fakes *fakes, struct assay_call *call)
{
    const Assay__V1__PutRecordsRequest *request = assay_call_request(call);
    Assay__V1__PutRecordsReply reply = ASSAY__V1__PUT_RECORDS_REPLY__INIT;
    reply.has_stored = true;
    reply.stored = (uint32_t)request->n_records;
    pthread_mutex_lock(&fakes->lock);
    for (size_t i = 0; i < request->n_records; i++)
        store(fakes, call, request->records[i]);
    saw(fakes);
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void on_put(struct assay_call *call, void *service)
{
    struct fakes *fakes = service;
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&fakes->lock);
    fakes->puts++;
    bool hold = fakes->hold_puts;
    if (fakes->puts_to_fail > 0) {
        fakes->puts_to_fail--;
        assay_err_set(&err, fakes->put_failure, "no room at the inn");
    } else if (hold) {
        fakes->held[fakes->held_count++] = call;
    }
    saw(fakes);
    if (err.status != ASSAY_OK)
        assay_call_fail(call, &err);
    else if (!hold)
        store_all(fakes, call);
}

static void release_held(void *arg)
{
    struct fakes *fakes = arg;
    struct assay_call *held[ASSAY_COUNT(fakes->held)];
    pthread_mutex_lock(&fakes->lock);
    size_t count = fakes->held_count;
    memcpy(held, fakes->held, sizeof held);
    fakes->held_count = 0;
    fakes->hold_puts = false;
    pthread_mutex_unlock(&fakes->lock);
    for (size_t i = 0; i < count; i++)
        store_all(fakes, held[i]);
}

void fakes_release_puts(struct fakes *fakes)
{
    assay_loop_call(fakes->loop, release_held, fakes);
}

/* --- both --- */

static void start_coordinator(void *arg)
{
    static const assay_method_fn coordinator[] = {on_register, on_heartbeat, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    static const assay_method_fn work[] = {on_lease, on_complete};
    struct fakes *fakes = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    _Static_assert(ASSAY_COUNT(coordinator) == 9, "one handler a method of service Coordinator");
    must(assay_server_new(fakes->loop, fakes->coordinator_endpoint, &fakes->coordinator, &err), &err);
    assay_server_add(fakes->coordinator, &assay__v1__coordinator__descriptor, coordinator, fakes);
    assay_server_add(fakes->coordinator, &assay__v1__work__descriptor, work, fakes);
}

void fakes_start_coordinator(struct fakes *fakes)
{
    assay_loop_call(fakes->loop, start_coordinator, fakes);
}

struct fakes *fakes_new(const char *dir, bool with_coordinator)
{
    static const assay_method_fn records[] = {on_put, NULL};
    struct fakes *fakes = calloc(1, sizeof *fakes);
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_init(&fakes->lock, NULL);
    pthread_cond_init(&fakes->changed, NULL);
    fakes->park_ms = 20;
    snprintf(fakes->coordinator_endpoint, sizeof fakes->coordinator_endpoint, "ipc://%s/coordinator.sock", dir);
    snprintf(fakes->evaluator_endpoint, sizeof fakes->evaluator_endpoint, "ipc://%s/evaluator.sock", dir);
    must(assay_loop_new(&fakes->loop, &err), &err);
    must(assay_server_new(fakes->loop, fakes->evaluator_endpoint, &fakes->evaluator, &err), &err);
    assay_server_add(fakes->evaluator, &assay__v1__records__descriptor, records, fakes);
    if (with_coordinator)
        start_coordinator(fakes);
    must(assay_loop_start(fakes->loop, &err), &err);
    return fakes;
}

void fakes_free(struct fakes *fakes)
{
    fakes_release_puts(fakes);
    assay_loop_stop_join(fakes->loop);
    assay_server_free(fakes->coordinator);
    assay_server_free(fakes->evaluator);
    assay_loop_free(fakes->loop);
    for (size_t i = 0; i < fakes->records_count; i++)
        free(fakes->records[i].hidden);
    pthread_cond_destroy(&fakes->changed);
    pthread_mutex_destroy(&fakes->lock);
    free(fakes);
}

void fakes_add_lease(struct fakes *fakes, const struct fake_lease *lease)
{
    pthread_mutex_lock(&fakes->lock);
    fakes->leases[fakes->leases_count++] = *lease;
    pthread_mutex_unlock(&fakes->lock);
}

bool fakes_wait(struct fakes *fakes, bool (*done)(const struct fakes *fakes, const void *arg), const void *arg)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&fakes->lock);
    bool held = done(fakes, arg);
    while (!held && pthread_cond_timedwait(&fakes->changed, &fakes->lock, &until) == 0)
        held = done(fakes, arg);
    pthread_mutex_unlock(&fakes->lock);
    return held;
}
