#include "services/evaluator/report.h"

#include <math.h>
#include <stdlib.h>

#include "services/evaluator/samples.h"

/* Of one attachment. */
#define SAMPLES_BYTES_MAX ((size_t)64 << 20)

/* A score with everything that it points to. */
struct score_message {
    Assay__V1__VariantScore score;
    Assay__V1__Estimate perplexity, increase, same_top1, delta_p, mean_nll;
    Assay__V1__Distribution kl;
};

/* A figure that could not be computed is absent; 0 would be a measurement. */
#define SET_FINITE(message, field, number)                                                                             \
    do {                                                                                                               \
        (message)->has_##field = isfinite(number);                                                                     \
        (message)->field = isfinite(number) ? (number) : 0;                                                            \
    } while (0)

static void fill_estimate(Assay__V1__Estimate *message, const struct assay_estimate *estimate)
{
    assay__v1__estimate__init(message);
    SET_FINITE(message, value, estimate->value);
    SET_FINITE(message, standard_error, estimate->se);
    SET_FINITE(message, interval_low, estimate->low);
    SET_FINITE(message, interval_high, estimate->high);
    message->has_n = true;
    message->n = estimate->n;
    if (!message->has_value)
        message->missing = "the logits of at least one position are not finite, or the value is too large";
    else if (!message->has_interval_low || !message->has_interval_high)
        message->missing = "an interval needs at least two chunks";
}

static void fill_distribution(Assay__V1__Distribution *message, const struct assay_distribution *distribution)
{
    assay__v1__distribution__init(message);
    SET_FINITE(message, mean, distribution->mean);
    SET_FINITE(message, standard_error, distribution->se);
    SET_FINITE(message, interval_low, distribution->low);
    SET_FINITE(message, interval_high, distribution->high);
    SET_FINITE(message, median, distribution->median);
    SET_FINITE(message, p90, distribution->p90);
    SET_FINITE(message, p95, distribution->p95);
    SET_FINITE(message, p99, distribution->p99);
    SET_FINITE(message, min, distribution->min);
    SET_FINITE(message, max, distribution->max);
    message->has_n = true;
    message->n = distribution->n;
}

static ProtobufCBinaryData digest_bytes(const struct assay_digest *digest)
{
    return (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)digest->bytes};
}

static void fill_f16_error(Assay__V1__VariantScore *score, const struct assay_dtype_error *error)
{
    if (error->n == 0) {
        score->record_kl_error_missing = "no chunk has records of both f16 and f32";
        return;
    }
    SET_FINITE(score, record_kl_error_mean_nats, error->mean_nats);
    SET_FINITE(score, record_kl_error_max_nats, error->max_nats);
    SET_FINITE(score, record_kl_error_relative, error->relative);
    score->has_record_kl_error_n = true;
    score->record_kl_error_n = error->n;
}

static void fill_score(struct score_message *message, const struct assay_score_result *result)
{
    Assay__V1__VariantScore *score = &message->score;
    assay__v1__variant_score__init(score);
    score->has_variant_id = true;
    score->variant_id = digest_bytes(&result->variant.digest);
    score->numerics_id = (char *)result->numerics;
    score->has_record_dtype = true;
    score->record_dtype = result->dtype == ASSAY_RECORD_F16 ? ASSAY__V1__DTYPE__DTYPE_F16 : ASSAY__V1__DTYPE__DTYPE_F32;
    if (result->is_share)
        return;
    fill_estimate(&message->perplexity, &result->pair.perplexity);
    fill_estimate(&message->mean_nll, &result->pair.mean_nll);
    score->perplexity = &message->perplexity;
    score->mean_nll_nats = &message->mean_nll;
    if (result->is_reference)
        return;
    fill_estimate(&message->increase, &result->pair.perplexity_increase_percent);
    fill_estimate(&message->same_top1, &result->pair.same_top1_percent);
    fill_estimate(&message->delta_p, &result->pair.delta_p_rms_percent);
    fill_distribution(&message->kl, &result->pair.kl);
    score->perplexity_increase_percent = &message->increase;
    score->same_top1_percent = &message->same_top1;
    score->delta_p_rms_percent = &message->delta_p;
    score->kl_nats = &message->kl;
    score->n_chunk_kl_nats = result->chunks_count;
    score->chunk_kl_nats = (double *)result->chunk_kl;
    if (result->dtype == ASSAY_RECORD_F16)
        fill_f16_error(score, &result->f16_error);
}

/* Figures of a chunk by position: an attachment holds the pairs that fit one message part. */
enum assay_status assay_report_samples(const struct assay_score_samples *samples, struct assay_call *call,
                                       struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    size_t most = ASSAY_MAX(SAMPLES_BYTES_MAX / (samples->rows * sizeof *samples->positions), (size_t)1);
    for (size_t done = 0, pairs; done < samples->pairs && status == ASSAY_OK; done += pairs) {
        Assay__V1__ScoreReply reply = ASSAY__V1__SCORE_REPLY__INIT;
        Assay__V1__ChunkSamples message = ASSAY__V1__CHUNK_SAMPLES__INIT, *list[] = {&message};
        Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
        struct assay_attachment attachment = {.release = assay_attachment_free};
        void *bytes = NULL;
        uint64_t shape[1];
        pairs = ASSAY_MIN(samples->pairs - done, most);
        status = assay_sample_encode(samples->positions + done * samples->rows, pairs * samples->rows, &bytes,
                                     &attachment.bytes, err);
        if (status != ASSAY_OK)
            return status;
        attachment.data = bytes;
        shape[0] = attachment.bytes;
        tensor.has_dtype = tensor.has_attachment = true;
        tensor.dtype = ASSAY__V1__DTYPE__DTYPE_U8;
        tensor.n_shape = 1;
        tensor.shape = shape;
        message.has_chunk_key = message.has_first_pair = message.has_pairs = true;
        message.chunk_key = digest_bytes(&samples->chunk.digest);
        message.first_pair = (uint32_t)(samples->first_pair + done);
        message.pairs = (uint32_t)pairs;
        message.has_cached = message.has_from_f32 = true;
        message.cached = samples->cached;
        message.from_f32 = samples->from_f32;
        message.samples = &tensor;
        reply.n_samples = 1;
        reply.samples = list;
        status = assay_call_send(call, &reply.base, &attachment, 1);
        if (status != ASSAY_OK)
            assay_err_set(err, status, "the client of a Score call is gone");
    }
    return status;
}

struct buffers {
    struct score_message *messages;
    Assay__V1__VariantScore **scores;
    ProtobufCBinaryData *lost_variants, *lost_chunks;
};

static bool allocate(const struct assay_score_progress *progress, struct buffers *buffers)
{
    buffers->messages = calloc(progress->results_count + 1, sizeof *buffers->messages);
    buffers->scores = calloc(progress->results_count + 1, sizeof(Assay__V1__VariantScore *));
    buffers->lost_variants = calloc(progress->lost_count + 1, sizeof *buffers->lost_variants);
    buffers->lost_chunks = calloc(progress->lost_count + 1, sizeof *buffers->lost_chunks);
    return buffers->messages && buffers->scores && buffers->lost_variants && buffers->lost_chunks;
}

static void fill_reply(const struct assay_score_progress *progress, struct buffers *buffers,
                       Assay__V1__ScoreReply *reply)
{
    assay__v1__score_reply__init(reply);
    reply->has_chunks_done = reply->has_chunks_total = reply->has_chunks_cached = true;
    reply->chunks_done = progress->chunks_done;
    reply->chunks_total = progress->chunks_total;
    reply->chunks_cached = progress->chunks_cached;
    reply->has_tokens_scored = reply->has_compute_us = true;
    reply->tokens_scored = progress->tokens_scored;
    reply->compute_us = progress->compute_us;
    for (size_t i = 0; i < progress->results_count; i++) {
        fill_score(&buffers->messages[i], &progress->results[i]);
        buffers->scores[i] = &buffers->messages[i].score;
    }
    reply->n_scores = progress->results_count;
    reply->scores = buffers->scores;
    for (size_t i = 0; i < progress->lost_count; i++) {
        buffers->lost_variants[i] = digest_bytes(&progress->lost[i].variant.digest);
        buffers->lost_chunks[i] = digest_bytes(&progress->lost[i].chunk.digest);
    }
    reply->n_lost_variant_ids = reply->n_lost_chunk_keys = progress->lost_count;
    reply->lost_variant_ids = buffers->lost_variants;
    reply->lost_chunk_keys = buffers->lost_chunks;
}

enum assay_status assay_report_progress(const struct assay_score_progress *progress, assay_report_send_fn send,
                                        void *arg, struct assay_err *err)
{
    struct buffers buffers = {0};
    Assay__V1__ScoreReply reply;
    enum assay_status status;
    if (allocate(progress, &buffers)) {
        fill_reply(progress, &buffers, &reply);
        status = send(arg, &reply, err);
    } else {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a message of progress");
    }
    free(buffers.messages);
    free(buffers.scores);
    free(buffers.lost_variants);
    free(buffers.lost_chunks);
    return status;
}
