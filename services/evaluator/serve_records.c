#include <stdlib.h>
#include <string.h>

#include "common/wire/shard_message.h"
#include "proto/record.pb-c.h"
#include "services/evaluator/serve_internal.h"

static void fail(struct assay_call *call, enum assay_status status, const char *sentence)
{
    struct assay_err err = ASSAY_ERR_INIT;
    assay_err_set(&err, status, "%s", sentence);
    assay_call_fail(call, &err);
}

/* --- Put --- */

struct put_call {
    struct assay_call *call;
    struct assay_evaluator *evaluator;
    struct assay_writer_entry entry;
    uint32_t *moved; /* indices of records that belong elsewhere; behind the records */
    size_t moved_count;
    bool is_stale; /* the sender goes by an older map */
    struct assay_record records[];
};

static enum assay_status reply_put(const struct put_call *put, struct assay_err *err)
{
    Assay__V1__PutRecordsReply reply = ASSAY__V1__PUT_RECORDS_REPLY__INIT;
    assay_auto(assay_free_ptr) struct assay_shard_map *map = NULL;
    assay_auto(assay_free_ptr) struct assay_shard_message *message = NULL;
    reply.has_stored = true;
    reply.stored = (uint32_t)put->entry.count;
    reply.n_moved = put->moved_count;
    reply.moved = put->moved;
    if (put->moved_count > 0 || put->is_stale) {
        map = malloc(sizeof *map);
        if (map)
            assay_shards_map(put->evaluator->shards, map);
        message = map ? assay_shard_message_new(map) : NULL;
        if (!message)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the answer to a Put");
        reply.shard_map = &message->message;
    }
    assay_call_reply(put->call, &reply.base, NULL, 0);
    return ASSAY_OK;
}

static void put_done(void *arg, const struct assay_err *err)
{
    struct put_call *put = arg;
    struct assay_err failure = *err;
    if (failure.status != ASSAY_OK || reply_put(put, &failure) != ASSAY_OK)
        assay_call_fail(put->call, &failure);
    free(put);
}

static enum assay_status read_record(const struct assay_call *call, const Assay__V1__Record *message,
                                     struct assay_record *ret, struct assay_err *err)
{
    uint64_t shape[2];
    struct assay_bytes bytes;
    enum assay_status status =
        assay_digest_from(message->chunk_key.data, message->chunk_key.len, "chunk_key", &ret->chunk.digest, err);
    if (status == ASSAY_OK)
        status = assay_digest_from(message->variant_id.data, message->variant_id.len, "variant_id",
                                   &ret->variant.digest, err);
    if (status == ASSAY_OK && !message->numerics_id)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "numerics_id is missing");
    const Assay__V1__Tensor *hidden = message->hidden;
    if (status == ASSAY_OK && !(hidden && serve_record_dtype(hidden->has_dtype, hidden->dtype, &ret->dtype)))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "hidden is not a tensor of dtype F32 or F16");
    if (status == ASSAY_OK)
        status = serve_tensor(call, hidden, hidden->dtype, 2, "hidden", shape, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    ret->numerics = message->numerics_id;
    ret->rows = shape[0];
    ret->cols = shape[1];
    ret->hidden = bytes.data;
    return ASSAY_OK;
}

/* Reads the records that belong here; the others are noted. */
static enum assay_status read_put(struct put_call *put, const Assay__V1__PutRecordsRequest *request,
                                  struct assay_err *err)
{
    struct assay_shards *shards = put->evaluator->shards;
    char hex[ASSAY_DIGEST_HEX];
    uint64_t epoch = assay_shards_epoch(shards);
    if (request->has_epoch && request->epoch > epoch)
        return assay_shards_check(shards, request->epoch, false, err);
    put->is_stale = request->has_epoch && request->epoch < epoch;
    for (size_t i = 0; i < request->n_records; i++) {
        struct assay_record *record = &put->records[put->entry.count];
        enum assay_status status = read_record(put->call, request->records[i], record, err);
        if (status != ASSAY_OK) {
            assay_err_prefix(err, "records[%zu]", i);
            return status;
        }
        if (assay_shards_is_mine(shards, &record->chunk))
            put->entry.count++;
        else if (request->has_epoch)
            put->moved[put->moved_count++] = (uint32_t)i;
        else
            return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                                 "the record of chunk %s belongs to another evaluator; a Put names the epoch of the "
                                 "map that it follows",
                                 assay_digest_hex(&record->chunk.digest, hex));
    }
    return ASSAY_OK;
}

void serve_put(struct assay_call *call, void *service)
{
    struct assay_evaluator *evaluator = service;
    const Assay__V1__PutRecordsRequest *request = assay_call_request(call);
    size_t count = request->n_records;
    struct assay_err err = ASSAY_ERR_INIT;
    if (count > ASSAY_PUT_RECORDS_MAX) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "a Put has at most %d records, found %zu", ASSAY_PUT_RECORDS_MAX,
                      count);
        assay_call_fail(call, &err);
        return;
    }
    struct put_call *put = calloc(1, sizeof *put + count * (sizeof *put->records + sizeof *put->moved));
    if (!put) {
        fail(call, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Put");
        return;
    }
    put->call = call;
    put->evaluator = evaluator;
    put->moved = (uint32_t *)(void *)(put->records + count);
    put->entry = (struct assay_writer_entry){.records = put->records, .done = put_done, .arg = put};
    pthread_mutex_lock(&evaluator->taking);
    enum assay_status status = read_put(put, request, &err);
    if (status == ASSAY_OK)
        status = assay_writer_submit(evaluator->writer, &put->entry, &err);
    pthread_mutex_unlock(&evaluator->taking);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        free(put);
    }
}

/* --- Have --- */

struct have_call {
    struct assay_call *call;
    struct assay_evaluator *evaluator;
    struct assay_writer_entry entry;
    struct assay_variant_id variant;
    enum assay_record_dtype dtype;
    const char *numerics; /* of the request; may be NULL */
    size_t count;
    struct assay_chunk_key keys[];
};

/* On the writer's thread: after the Puts that came before. */
static void have_answer(void *arg, const struct assay_err *none)
{
    (void)none;
    struct have_call *have = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_record_sets sets;
    char numerics[ASSAY_NUMERICS_BYTES_MAX + 1];
    uint8_t *there = calloc(have->count + 1, 1);
    if (!there)
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Have of %zu keys", have->count);
    else
        err.status = assay_records_have_set(have->evaluator->records, &have->variant, have->dtype, have->keys,
                                            have->count, have->numerics, there, numerics, &sets, &err);
    if (err.status == ASSAY_OK) {
        Assay__V1__HaveRecordsReply reply = ASSAY__V1__HAVE_RECORDS_REPLY__INIT;
        reply.numerics_id = numerics;
        reply.has_have = true;
        reply.have = (ProtobufCBinaryData){have->count, there};
        reply.n_numerics_ids = reply.n_numerics_counts = sets.count;
        reply.numerics_ids = (char **)(uintptr_t)sets.names;
        reply.numerics_counts = sets.counts;
        assay_call_reply(have->call, &reply.base, NULL, 0);
    } else {
        assay_call_fail(have->call, &err);
    }
    free(there);
    free(have);
}

static enum assay_status read_have(const Assay__V1__HaveRecordsRequest *request, struct have_call *have,
                                   struct assay_err *err)
{
    enum assay_status status =
        assay_digest_from(request->variant_id.data, request->variant_id.len, "variant_id", &have->variant.digest, err);
    if (status == ASSAY_OK && !serve_record_dtype(request->has_record_dtype, request->record_dtype, &have->dtype))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "record_dtype is neither F32 nor F16");
    if (status == ASSAY_OK && request->has_epoch)
        status = assay_shards_check(have->evaluator->shards, request->epoch, true, err);
    have->numerics = request->numerics_id;
    for (size_t i = 0; i < request->n_chunk_keys && status == ASSAY_OK; i++)
        status = assay_digest_from(request->chunk_keys[i].data, request->chunk_keys[i].len, "chunk_keys",
                                   &have->keys[i].digest, err);
    return status;
}

void serve_have(struct assay_call *call, void *service)
{
    struct assay_evaluator *evaluator = service;
    const Assay__V1__HaveRecordsRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    if (request->n_chunk_keys > ASSAY_HAVE_KEYS_MAX) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "a Have has at most %d keys, found %zu", ASSAY_HAVE_KEYS_MAX,
                      request->n_chunk_keys);
        assay_call_fail(call, &err);
        return;
    }
    struct have_call *have = calloc(1, sizeof *have + request->n_chunk_keys * sizeof *have->keys);
    if (!have) {
        fail(call, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Have");
        return;
    }
    have->call = call;
    have->evaluator = evaluator;
    have->count = request->n_chunk_keys;
    have->entry = (struct assay_writer_entry){.done = have_answer, .arg = have};
    enum assay_status status = read_have(request, have, &err);
    if (status == ASSAY_OK)
        status = assay_writer_submit(evaluator->writer, &have->entry, &err);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        free(have);
    }
}
