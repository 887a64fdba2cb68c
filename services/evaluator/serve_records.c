#include <stdlib.h>
#include <string.h>

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
    struct assay_writer_entry entry;
    struct assay_record records[];
};

static void put_done(void *arg, const struct assay_err *err)
{
    struct put_call *put = arg;
    if (err->status == ASSAY_OK) {
        Assay__V1__PutRecordsReply reply = ASSAY__V1__PUT_RECORDS_REPLY__INIT;
        reply.has_stored = true;
        reply.stored = (uint32_t)put->entry.count;
        assay_call_reply(put->call, &reply.base, NULL, 0);
    } else {
        assay_call_fail(put->call, err);
    }
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

void serve_put(struct assay_call *call, void *service)
{
    struct assay_evaluator *evaluator = service;
    const Assay__V1__PutRecordsRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    if (request->n_records > ASSAY_PUT_RECORDS_MAX) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "a Put has at most %d records, found %zu", ASSAY_PUT_RECORDS_MAX,
                      request->n_records);
        assay_call_fail(call, &err);
        return;
    }
    struct put_call *put = calloc(1, sizeof *put + request->n_records * sizeof *put->records);
    if (!put) {
        fail(call, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Put");
        return;
    }
    put->call = call;
    put->entry =
        (struct assay_writer_entry){.records = put->records, .count = request->n_records, .done = put_done, .arg = put};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < request->n_records && status == ASSAY_OK; i++) {
        status = read_record(call, request->records[i], &put->records[i], &err);
        if (status != ASSAY_OK)
            assay_err_prefix(&err, "records[%zu]", i);
    }
    if (status == ASSAY_OK)
        status = assay_writer_submit(evaluator->writer, &put->entry, &err);
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
    size_t count;
    struct assay_chunk_key keys[];
};

/* On the writer's thread: after the Puts that came before. */
static void have_answer(void *arg, const struct assay_err *none)
{
    (void)none;
    struct have_call *have = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    char numerics[ASSAY_NUMERICS_BYTES_MAX + 1];
    uint8_t *there = calloc(have->count + 1, 1);
    if (!there)
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Have of %zu keys", have->count);
    else
        err.status = assay_records_have(have->evaluator->records, &have->variant, have->dtype, have->keys, have->count,
                                        there, numerics, &err);
    if (err.status == ASSAY_OK) {
        Assay__V1__HaveRecordsReply reply = ASSAY__V1__HAVE_RECORDS_REPLY__INIT;
        reply.numerics_id = numerics;
        reply.has_have = true;
        reply.have = (ProtobufCBinaryData){have->count, there};
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
