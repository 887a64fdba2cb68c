/* Encoders (BERT): hidden states of all tokens, and the scores of a classifier where the checkpoint has one. Attention
 * looks both ways; a sequence's result does not depend on its company in a batch. Numerics as in model.h. */
#pragma once

#include "common/base/pool.h"
#include "common/formats/checkpoint.h"

struct assay_encoder_config {
    size_t hidden, layers, heads, intermediate, vocab, positions, types;
    size_t labels; /* 0 without a classifier */
    float norm_eps;
};

struct assay_encoder;

/* BertModel or BertForSequenceClassification. UNIMPLEMENTED names an architecture or option that we do not have;
 * NOT_FOUND / INVALID_ARGUMENT the tensor or member that is missing or does not fit. The checkpoint may be closed
 * afterwards. */
enum assay_status assay_encoder_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                     struct assay_encoder **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_encoder_free(struct assay_encoder *encoder); /* NULL is fine */
const struct assay_encoder_config *assay_encoder_config(const struct assay_encoder *encoder);
size_t assay_encoder_bytes(const struct assay_encoder *encoder);

struct assay_encoder_sequence {
    const int32_t *ids; /* [tokens], each in [0, vocab); all of token type 0 */
    size_t tokens;      /* 1..positions */
    float *hidden;      /* [tokens, hidden]: the last hidden states */
};

/* OUT_OF_RANGE for an id or a length beyond the model; RESOURCE_EXHAUSTED. Calls on one pool take turns, product by
 * product. */
enum assay_status assay_encoder_forward(const struct assay_encoder *encoder, struct assay_pool *pool,
                                        const struct assay_encoder_sequence *sequences, size_t count,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* pooled[rows, hidden] = tanh(first . W^T + b) of the first tokens' hidden states [rows, hidden]. FAILED_PRECONDITION
 * when the checkpoint has no pooler. */
enum assay_status assay_encoder_pooler(const struct assay_encoder *encoder, struct assay_pool *pool, const float *first,
                                       size_t rows, float *pooled, struct assay_err *err) ASSAY_MUST_USE;
/* scores[rows, labels] of pooled [rows, hidden]. FAILED_PRECONDITION without a classifier. */
enum assay_status assay_encoder_scores(const struct assay_encoder *encoder, struct assay_pool *pool,
                                       const float *pooled, size_t rows, float *scores,
                                       struct assay_err *err) ASSAY_MUST_USE;
