#include "services/inference/link.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/model.h"
#include "common/wire/shard_message.h"
#include "proto/record.pb-c.h"
#include "proto/work.pb-c.h"

/* Indices into the descriptors. */
enum { WORK_LEASE, WORK_COMPLETE };
enum { RECORDS_PUT };

/* What a reply may take beyond the time that the coordinator holds it. */
#define LEASE_GRACE_MS 5000
/* What the protocol allows, whatever was asked for. */
#define LEASE_CHUNKS_MAX 4096

struct assay_batch_memory {
    atomic_size_t references;
    float floats[];
};

/* Evaluators that are connected at once; past it the one that was connected first makes room. */
#define EVALUATORS_MAX ASSAY_SHARDS_MAX

struct evaluator {
    struct assay_client *client;
    char endpoint[ASSAY_ENDPOINT_MAX];
};

struct assay_link {
    struct assay_loop *loop;
    struct assay_client *leasing, *coordinator;
    pthread_mutex_t lock; /* guards what follows */
    struct evaluator evaluators[EVALUATORS_MAX];
    size_t evaluators_count;
};

/* --- memory of batches --- */

struct assay_batch_memory *assay_batch_memory_new(size_t floats)
{
    if (floats > (SIZE_MAX - sizeof(struct assay_batch_memory)) / sizeof(float))
        return NULL;
    struct assay_batch_memory *memory = malloc(sizeof *memory + floats * sizeof(float));
    if (memory)
        atomic_init(&memory->references, 1);
    return memory;
}

float *assay_batch_memory_floats(struct assay_batch_memory *memory)
{
    return memory->floats;
}

void assay_batch_memory_drop(struct assay_batch_memory *memory)
{
    if (memory && atomic_fetch_sub(&memory->references, 1) == 1)
        free(memory);
}

static void drop_attachment(void *data, void *hint)
{
    (void)data;
    assay_batch_memory_drop(hint);
}

/* --- the link --- */

enum assay_status assay_link_new(struct assay_loop *loop, const char *coordinator, struct assay_link **ret,
                                 struct assay_err *err)
{
    struct assay_link *link = calloc(1, sizeof *link);
    if (!link)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while connecting to %s", coordinator);
    link->loop = loop;
    pthread_mutex_init(&link->lock, NULL);
    enum assay_status status = assay_client_new(loop, coordinator, &link->leasing, err);
    if (status == ASSAY_OK)
        status = assay_client_new(loop, coordinator, &link->coordinator, err);
    if (status == ASSAY_OK)
        *ret = link;
    else
        assay_link_free(link);
    return status;
}

void assay_link_free(struct assay_link *link)
{
    if (!link)
        return;
    for (size_t i = 0; i < link->evaluators_count; i++)
        assay_client_free(link->evaluators[i].client);
    assay_client_free(link->coordinator);
    assay_client_free(link->leasing);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

struct assay_client *assay_link_coordinator(struct assay_link *link)
{
    return link->coordinator;
}

void assay_link_stop_leasing(struct assay_link *link)
{
    assay_client_cancel_all(link->leasing);
}

void assay_link_cancel_all(struct assay_link *link)
{
    assay_client_cancel_all(link->leasing);
    assay_client_cancel_all(link->coordinator);
    pthread_mutex_lock(&link->lock);
    for (size_t i = 0; i < link->evaluators_count; i++)
        assay_client_cancel_all(link->evaluators[i].client);
    pthread_mutex_unlock(&link->lock);
}

/* --- leases --- */

void assay_worker_lease_release(struct assay_worker_lease *lease)
{
    free(lease->chunks);
    free(lease->map);
    assay_reply_free(lease->reply);
    *lease = (struct assay_worker_lease){0};
}

static enum assay_status copy_text(const char *what, const char *text, char *ret, size_t bytes, struct assay_err *err)
{
    if (!text || !text[0] || strlen(text) >= bytes)
        return assay_err_set(err, ASSAY_INTERNAL, "a lease's %s is missing or longer than %zu bytes", what, bytes - 1);
    strcpy(ret, text);
    return ASSAY_OK;
}

static enum assay_status read_variant(const Assay__V1__LeaseReply *reply, struct assay_worker_lease *lease,
                                      struct assay_err *err)
{
    const Assay__V1__Variant *variant = reply->variant;
    if (!variant || !variant->spec)
        return assay_err_set(err, ASSAY_INTERNAL, "a lease's variant or spec is missing");
    enum assay_status status =
        assay_digest_from(variant->variant_id.data, variant->variant_id.len, "variant_id", &lease->variant.digest, err);
    if (status == ASSAY_OK)
        status = copy_text("scheme", variant->spec->scheme, lease->scheme, sizeof lease->scheme, err);
    if (status == ASSAY_OK && variant->artifact_endpoint && variant->artifact_endpoint[0])
        status = copy_text("artifact_endpoint", variant->artifact_endpoint, lease->artifact_endpoint,
                           sizeof lease->artifact_endpoint, err);
    if (status == ASSAY_OK)
        status = copy_text("artifact_dir", variant->artifact_dir, lease->artifact_dir, sizeof lease->artifact_dir, err);
    if (status == ASSAY_OK)
        status =
            copy_text("evaluator_endpoint", reply->evaluator_endpoint, lease->evaluator, sizeof lease->evaluator, err);
    return status;
}

/* Without a map, or with one of no evaluators, all records go to evaluator_endpoint. */
static enum assay_status read_map(const Assay__V1__LeaseReply *reply, struct assay_worker_lease *lease,
                                  struct assay_err *err)
{
    if (!reply->shard_map || reply->shard_map->n_shards == 0)
        return ASSAY_OK;
    lease->map = calloc(1, sizeof *lease->map);
    if (!lease->map)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    enum assay_status status = assay_shard_map_of_message(reply->shard_map, lease->map, err);
    if (status == ASSAY_OK && assay_shard_map_owners(lease->map) == 0)
        status = assay_err_set(err, ASSAY_INTERNAL, "a lease's map of evaluators has no owner");
    return status;
}

/* The ids of all chunks, and how many there must be. */
static enum assay_status find_ids(const Assay__V1__LeaseReply *reply, const struct assay_reply *raw,
                                  const int32_t **ret, struct assay_err *err)
{
    const Assay__V1__Tensor *ids = reply->ids;
    uint64_t wanted = 0;
    for (size_t i = 0; i < reply->n_chunk_tokens; i++)
        wanted += reply->chunk_tokens[i];
    if (!ids || ids->dtype != ASSAY__V1__DTYPE__DTYPE_I32 || ids->n_shape != 1 || ids->shape[0] != wanted ||
        ids->attachment >= assay_reply_attachments(raw))
        return assay_err_set(err, ASSAY_INTERNAL, "a lease's ids are not an attached I32 [%llu]",
                             (unsigned long long)wanted);
    struct assay_bytes bytes = assay_reply_attachment(raw, ids->attachment);
    if (bytes.bytes != wanted * sizeof(int32_t))
        return assay_err_set(err, ASSAY_INTERNAL, "a lease's ids have %zu bytes, wanted %llu", bytes.bytes,
                             (unsigned long long)(wanted * sizeof(int32_t)));
    *ret = bytes.data;
    return ASSAY_OK;
}

static enum assay_status read_chunks(const Assay__V1__LeaseReply *reply, const struct assay_reply *raw,
                                     struct assay_worker_lease *lease, struct assay_err *err)
{
    size_t count = reply->n_chunk_keys;
    const int32_t *ids = NULL;
    if (reply->n_chunk_tokens != count || reply->n_score_begin != count || reply->n_score_end != count)
        return assay_err_set(err, ASSAY_INTERNAL,
                             "a lease's lists differ in length: keys %zu, tokens %zu, begin %zu, end %zu", count,
                             reply->n_chunk_tokens, reply->n_score_begin, reply->n_score_end);
    enum assay_status status = find_ids(reply, raw, &ids, err);
    lease->chunks = calloc(count, sizeof *lease->chunks);
    if (status == ASSAY_OK && !lease->chunks)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a lease of %zu chunks", count);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        struct assay_leased_chunk *chunk = &lease->chunks[i];
        *chunk = (struct assay_leased_chunk){
            .ids = ids,
            .tokens = reply->chunk_tokens[i],
            .begin = reply->score_begin[i],
            .end = reply->score_end[i],
        };
        ids += chunk->tokens;
        status = assay_digest_from(reply->chunk_keys[i].data, reply->chunk_keys[i].len, "chunk_keys",
                                   &chunk->key.digest, err);
        if (status == ASSAY_OK && (chunk->begin > chunk->end || chunk->end > chunk->tokens))
            status = assay_err_set(err, ASSAY_INTERNAL, "a lease's chunk of %u tokens is scored in [%u, %u)",
                                   chunk->tokens, chunk->begin, chunk->end);
    }
    return status;
}

/* A lease that nobody can work on must not wait for its end. */
static void give_back(struct assay_link *link, uint64_t service_id, uint64_t lease_id, enum assay_status status,
                      const struct assay_err *err)
{
    enum { GIVE_BACK_MS = 2000 };
    struct assay_err failure = ASSAY_ERR_INIT;
    assay_err_set(&failure, status, "%s", err ? err->text : "a lease contradicts itself");
    const struct assay_completion completion = {.failure = &failure};
    bool lost;
    enum assay_status ignored = assay_link_complete(link, service_id, lease_id, &completion, GIVE_BACK_MS, &lost, NULL);
    (void)ignored;
}

enum assay_status assay_link_lease(struct assay_link *link, const struct assay_lease_wish *wish,
                                   struct assay_worker_lease *ret, struct assay_err *err)
{
    Assay__V1__LeaseRequest request = ASSAY__V1__LEASE_REQUEST__INIT;
    struct assay_call_options options = {.deadline_ms = wish->wait_ms + LEASE_GRACE_MS};
    struct assay_worker_lease lease = {.service_id = wish->service_id};
    request.has_service_id = request.has_chunks_max = request.has_wait_ms = true;
    request.service_id = wish->service_id;
    request.chunks_max = (uint32_t)wish->chunks_max;
    request.wait_ms = (uint64_t)wish->wait_ms;
    request.has_batch_chunks = true;
    request.batch_chunks = (uint32_t)ASSAY_MAX(wish->chunks_max / 2, 1); /* about two batches are asked for */
    request.has_says_held = request.says_held = true;
    request.n_held_lease_ids = wish->held_count;
    request.held_lease_ids = (uint64_t *)(uintptr_t)wish->held;
    ProtobufCBinaryData ids[ASSAY_LEASE_LOADED_MAX];
    request.n_loaded_variant_ids = ASSAY_MIN(wish->loaded_count, ASSAY_LEASE_LOADED_MAX);
    request.loaded_variant_ids = ids;
    for (size_t i = 0; i < request.n_loaded_variant_ids; i++)
        ids[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)wish->loaded[i].bytes};
    enum assay_status status = assay_call_unary(link->leasing, &assay__v1__work__descriptor, WORK_LEASE, &request.base,
                                                &options, &lease.reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__LeaseReply *reply = assay_reply_message(lease.reply);
    if (reply->n_chunk_keys > LEASE_CHUNKS_MAX)
        status = assay_err_set(err, ASSAY_INTERNAL, "a lease has %zu chunks, wanted at most %d", reply->n_chunk_keys,
                               LEASE_CHUNKS_MAX);
    if (status == ASSAY_OK && reply->n_chunk_keys > 0) {
        lease.lease_id = reply->lease_id;
        lease.count = reply->n_chunk_keys;
        snprintf(lease.trace_id, sizeof lease.trace_id, "%s", reply->trace_id ? reply->trace_id : "");
        lease.wants_f16 = reply->has_record_dtype && reply->record_dtype == ASSAY__V1__DTYPE__DTYPE_F16;
        if (reply->first_chunk_key.len == ASSAY_DIGEST_BYTES)
            memcpy(lease.first_of_job.digest.bytes, reply->first_chunk_key.data, ASSAY_DIGEST_BYTES);
        status = read_variant(reply, &lease, err);
        if (status == ASSAY_OK)
            status = read_map(reply, &lease, err);
        if (status == ASSAY_OK)
            status = read_chunks(reply, lease.reply, &lease, err);
    }
    if (status == ASSAY_OK) {
        *ret = lease;
        return ASSAY_OK;
    }
    give_back(link, wish->service_id, reply->lease_id, status, err);
    assay_worker_lease_release(&lease);
    return status;
}

enum assay_status assay_link_complete(struct assay_link *link, uint64_t service_id, uint64_t lease_id,
                                      const struct assay_completion *completion, int64_t deadline_ms,
                                      bool *ret_lease_lost, struct assay_err *err)
{
    Assay__V1__CompleteRequest request = ASSAY__V1__COMPLETE_REQUEST__INIT;
    struct assay_call_options options = {.deadline_ms = deadline_ms};
    struct assay_reply *reply = NULL;
    ProtobufCBinaryData *keys = calloc(completion->count + 1, sizeof *keys);
    if (!keys)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while completing %zu chunks",
                             completion->count);
    for (size_t i = 0; i < completion->count; i++)
        keys[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)completion->keys[i].digest.bytes};
    request.has_service_id = request.has_lease_id = request.has_tokens = request.has_compute_us = true;
    request.service_id = service_id;
    request.lease_id = lease_id;
    request.n_chunk_keys = completion->count;
    request.chunk_keys = keys;
    request.tokens = completion->tokens;
    request.compute_us = completion->compute_us;
    if (completion->failure) {
        request.failure = (char *)(uintptr_t)completion->failure->text;
        request.has_failure_status = true;
        request.failure_status = completion->failure->status;
        request.has_too_large = request.too_large = completion->too_large;
    }
    enum assay_status status = assay_call_unary(link->coordinator, &assay__v1__work__descriptor, WORK_COMPLETE,
                                                &request.base, &options, &reply, err);
    free(keys);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__CompleteReply *answer = assay_reply_message(reply);
    *ret_lease_lost = answer->lease_lost;
    assay_reply_free(reply);
    return ASSAY_OK;
}

/* --- records --- */

static enum assay_status connect_evaluator(struct assay_link *link, const char *endpoint, struct assay_client **ret,
                                           struct assay_err *err)
{
    struct assay_client *fresh = NULL, *former = NULL;
    for (size_t i = 0; i < link->evaluators_count; i++) {
        if (strcmp(link->evaluators[i].endpoint, endpoint) == 0) {
            *ret = link->evaluators[i].client;
            return ASSAY_OK;
        }
    }
    enum assay_status status = assay_client_new(link->loop, endpoint, &fresh, err);
    if (status != ASSAY_OK)
        return status;
    pthread_mutex_lock(&link->lock);
    if (link->evaluators_count == EVALUATORS_MAX) {
        former = link->evaluators[0].client;
        memmove(link->evaluators, link->evaluators + 1, (EVALUATORS_MAX - 1) * sizeof link->evaluators[0]);
        link->evaluators_count--;
    }
    struct evaluator *evaluator = &link->evaluators[link->evaluators_count++];
    evaluator->client = fresh;
    strncpy(evaluator->endpoint, endpoint, sizeof evaluator->endpoint - 1);
    pthread_mutex_unlock(&link->lock);
    assay_client_free(former);
    *ret = fresh;
    return ASSAY_OK;
}

size_t assay_outgoing_bytes(const struct assay_outgoing *record)
{
    return record->rows * record->width * (record->is_f16 ? sizeof(uint16_t) : sizeof(float));
}

/* One record as messages; what it points to lives as long as the request. */
struct put_record {
    Assay__V1__Record message;
    Assay__V1__Tensor hidden;
    uint64_t shape[2];
};

static void fill_record(struct put_record *put, const struct assay_outgoing *record,
                        const struct assay_variant_id *variant, uint32_t attachment)
{
    assay__v1__record__init(&put->message);
    assay__v1__tensor__init(&put->hidden);
    put->message.has_chunk_key = put->message.has_variant_id = true;
    put->message.chunk_key = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)record->key.digest.bytes};
    put->message.variant_id = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)variant->digest.bytes};
    put->message.numerics_id = (char *)(uintptr_t)assay_numerics_id();
    put->message.hidden = &put->hidden;
    put->shape[0] = record->rows;
    put->shape[1] = record->width;
    put->hidden.has_dtype = put->hidden.has_attachment = true;
    put->hidden.dtype = record->is_f16 ? ASSAY__V1__DTYPE__DTYPE_F16 : ASSAY__V1__DTYPE__DTYPE_F32;
    put->hidden.n_shape = 2;
    put->hidden.shape = put->shape;
    put->hidden.attachment = attachment;
}

static enum assay_status read_put_reply(const Assay__V1__PutRecordsReply *reply, struct assay_put_group *group,
                                        struct assay_shard_map *map, struct assay_err *err)
{
    size_t moved = 0;
    for (size_t i = 0; i < reply->n_moved; i++)
        if (reply->moved[i] < group->count && !group->moved[reply->moved[i]]) {
            group->moved[reply->moved[i]] = true;
            moved++;
        }
    if (reply->stored + moved != group->count)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the evaluator at %s stored %u records of %zu", group->endpoint,
                             reply->stored, group->count);
    if (map)
        map->epoch = 0;
    if (moved > 0 && (!map || !reply->shard_map))
        return assay_err_set(err, ASSAY_INTERNAL, "the evaluator at %s refused records and named no other one",
                             group->endpoint);
    return map && reply->shard_map ? assay_shard_map_of_message(reply->shard_map, map, err) : ASSAY_OK;
}

enum assay_status assay_link_put(struct assay_link *link, struct assay_put_group *group,
                                 struct assay_batch_memory *memory, struct assay_shard_map *map, int64_t deadline_ms,
                                 struct assay_err *err)
{
    struct put_record puts[ASSAY_PUT_RECORDS_MAX];
    Assay__V1__Record *messages[ASSAY_PUT_RECORDS_MAX];
    struct assay_attachment attachments[ASSAY_PUT_RECORDS_MAX];
    Assay__V1__PutRecordsRequest request = ASSAY__V1__PUT_RECORDS_REQUEST__INIT;
    struct assay_client *evaluator = NULL;
    enum assay_status status = connect_evaluator(link, group->endpoint, &evaluator, err);
    if (status != ASSAY_OK)
        return status;
    for (size_t i = 0; i < group->count; i++) {
        fill_record(&puts[i], group->records[i], group->variant, (uint32_t)i);
        messages[i] = &puts[i].message;
        attachments[i] = (struct assay_attachment){
            .data = group->records[i]->hidden,
            .bytes = assay_outgoing_bytes(group->records[i]),
            .release = drop_attachment,
            .hint = memory,
        };
        group->moved[i] = false;
    }
    if (group->count > 0)
        atomic_fetch_add(&memory->references, group->count);
    request.n_records = group->count;
    request.records = messages;
    request.has_epoch = group->epoch != 0;
    request.epoch = group->epoch;
    struct assay_call_options options = {
        .deadline_ms = deadline_ms, .attachments = attachments, .attachments_count = group->count};
    struct assay_reply *reply = NULL;
    status =
        assay_call_unary(evaluator, &assay__v1__records__descriptor, RECORDS_PUT, &request.base, &options, &reply, err);
    if (status == ASSAY_OK)
        status = read_put_reply(assay_reply_message(reply), group, map, err);
    assay_reply_free(reply);
    return status;
}
