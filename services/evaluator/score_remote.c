#include "services/evaluator/score_remote.h"

#include <stdlib.h>
#include <string.h>

#include "services/evaluator/samples.h"

enum { METHOD_SCORE };

#define TURN_MS 100
#define CREDIT 16

/* --- the request --- */

struct request {
    Assay__V1__ScoreRequest message;
    Assay__V1__Tensor ids;
    uint64_t shape[1];
    ProtobufCBinaryData *keys;
};

static bool fill_request(const struct score_remote *remote, const struct assay_score_spec *spec, struct request *r)
{
    r->message = *remote->request;
    r->keys = calloc(spec->chunks_count + 1, sizeof *r->keys);
    for (size_t i = 0; r->keys && i < spec->chunks_count; i++)
        r->keys[i] = (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)spec->keys[i].digest.bytes};
    assay__v1__tensor__init(&r->ids);
    r->shape[0] = spec->ids_count;
    r->ids.has_dtype = r->ids.has_attachment = true;
    r->ids.dtype = ASSAY__V1__DTYPE__DTYPE_I32;
    r->ids.n_shape = 1;
    r->ids.shape = r->shape;
    r->message.n_chunk_keys = r->message.n_chunk_tokens = spec->chunks_count;
    r->message.n_score_begin = r->message.n_score_end = spec->chunks_count;
    r->message.chunk_keys = r->keys;
    r->message.chunk_tokens = (uint32_t *)(uintptr_t)spec->tokens;
    r->message.score_begin = (uint32_t *)(uintptr_t)spec->begin;
    r->message.score_end = (uint32_t *)(uintptr_t)spec->end;
    r->message.ids = &r->ids;
    r->message.has_samples_only = true;
    r->message.samples_only = true;
    return r->keys != NULL;
}

/* --- the replies --- */

static enum assay_status not_ours(const struct score_remote *remote, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_INTERNAL, "the evaluator at %s told figures that do not fit the request",
                         remote->endpoint);
}

static enum assay_status take_samples(const struct score_remote *remote, const struct assay_reply *reply,
                                      const Assay__V1__ChunkSamples *message, const struct assay_score_sink *sink,
                                      struct assay_err *err)
{
    struct assay_score_samples samples = {.first_pair = message->first_pair,
                                          .pairs = message->pairs,
                                          .cached = message->cached,
                                          .from_f32 = message->from_f32};
    size_t values = 0;
    if (!message->samples || message->samples->attachment >= assay_reply_attachments(reply) || message->pairs < 1 ||
        message->chunk_key.len != ASSAY_DIGEST_BYTES)
        return not_ours(remote, err);
    memcpy(samples.chunk.digest.bytes, message->chunk_key.data, ASSAY_DIGEST_BYTES);
    struct assay_bytes bytes = assay_reply_attachment(reply, message->samples->attachment);
    if (!assay_sample_rows(bytes.bytes, &values) || values % message->pairs != 0)
        return not_ours(remote, err);
    assay_auto(assay_free_ptr) struct assay_position *positions = calloc(values + 1, sizeof *positions);
    if (!positions)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the figures of a chunk");
    if (!assay_sample_decode(bytes.data, bytes.bytes, positions, values))
        return not_ours(remote, err);
    samples.rows = values / message->pairs;
    samples.positions = positions;
    return sink->samples(sink->arg, &samples, err);
}

static enum assay_status take_progress(const struct score_remote *remote, const Assay__V1__ScoreReply *message,
                                       const struct assay_score_sink *sink, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_score_lost *lost = calloc(message->n_lost_chunk_keys + 1, sizeof *lost);
    assay_auto(assay_free_ptr) struct assay_score_result *results = calloc(message->n_scores + 1, sizeof *results);
    struct assay_score_progress progress = {.compute_us = message->compute_us,
                                            .lost = lost,
                                            .lost_count = message->n_lost_chunk_keys,
                                            .results = results,
                                            .results_count = message->n_scores};
    if (!lost || !results)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a message of progress");
    if (message->n_lost_chunk_keys != message->n_lost_variant_ids)
        return not_ours(remote, err);
    for (size_t i = 0; i < message->n_lost_chunk_keys; i++) {
        if (message->lost_chunk_keys[i].len != ASSAY_DIGEST_BYTES ||
            message->lost_variant_ids[i].len != ASSAY_DIGEST_BYTES)
            return not_ours(remote, err);
        memcpy(lost[i].chunk.digest.bytes, message->lost_chunk_keys[i].data, ASSAY_DIGEST_BYTES);
        memcpy(lost[i].variant.digest.bytes, message->lost_variant_ids[i].data, ASSAY_DIGEST_BYTES);
    }
    for (size_t i = 0; i < message->n_scores; i++)
        results[i].numerics = message->scores[i]->numerics_id ? message->scores[i]->numerics_id : "";
    return sink->send(sink->arg, &progress, err);
}

static enum assay_status take_reply(const struct score_remote *remote, const struct assay_reply *reply,
                                    const struct assay_score_sink *sink, struct assay_err *err)
{
    const Assay__V1__ScoreReply *message = assay_reply_message(reply);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < message->n_samples && status == ASSAY_OK; i++)
        status = take_samples(remote, reply, message->samples[i], sink, err);
    return status == ASSAY_OK ? take_progress(remote, message, sink, err) : status;
}

static enum assay_status follow(const struct score_remote *remote, struct assay_stream *stream,
                                const struct assay_score_sink *sink, struct assay_err *err)
{
    for (;;) {
        struct assay_reply *reply = NULL;
        struct assay_err why = ASSAY_ERR_INIT;
        enum assay_status status = assay_stream_next(stream, TURN_MS, &reply, &why);
        if (status == ASSAY_OK && !reply)
            return ASSAY_OK;
        if (status == ASSAY_OK)
            status = take_reply(remote, reply, sink, err);
        else if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0])
            status = ASSAY_OK;
        else
            assay_err_set(err, status, "%s", why.text);
        assay_reply_free(reply);
        if (status == ASSAY_OK && sink->cancelled(sink->arg))
            status = assay_err_set(err, ASSAY_CANCELLED, "scoring was cancelled");
        if (status != ASSAY_OK)
            return status;
    }
}

enum assay_status score_remote_run(void *arg, const struct assay_score_spec *spec, const struct assay_score_sink *sink,
                                   struct assay_err *err)
{
    const struct score_remote *remote = arg;
    struct assay_client *client = NULL;
    struct assay_stream *stream = NULL;
    struct request request = {.keys = NULL};
    enum assay_status status = ASSAY_OK;
    if (!fill_request(remote, spec, &request))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a request of %zu chunks",
                               spec->chunks_count);
    if (status == ASSAY_OK)
        status = assay_client_new(remote->loop, remote->endpoint, &client, err);
    if (status == ASSAY_OK) {
        const struct assay_attachment ids = {.data = spec->ids, .bytes = spec->ids_count * sizeof(int32_t)};
        const struct assay_call_options options = {
            .attachments = &ids, .attachments_count = 1, .trace_id = remote->trace_id};
        status = assay_stream_open(client, &assay__v1__evaluator__descriptor, METHOD_SCORE, &request.message.base,
                                   &options, CREDIT, &stream, err);
    }
    if (status == ASSAY_OK)
        status = follow(remote, stream, sink, err);
    assay_stream_close(stream);
    assay_client_free(client);
    free(request.keys);
    /* The other one may know of a change before we do. */
    if (status == ASSAY_ABORTED && err)
        err->status = ASSAY_UNAVAILABLE;
    return status == ASSAY_ABORTED ? ASSAY_UNAVAILABLE : status;
}
