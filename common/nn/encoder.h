/* Encoders (BERT, RoBERTa, DistilBERT, MPNet; docs/FAMILIES.md): hidden states of all tokens, and the scores of a
 * classifier where the checkpoint has one. Attention looks both ways; a sequence's result does not depend on its
 * company in a batch. Numerics as in model.h. */
#pragma once

#include "common/base/pool.h"
#include "common/formats/checkpoint.h"
#include "common/nn/model.h"

struct assay_encoder_family;

struct assay_encoder_config {
    char architecture[64]; /* "RobertaForSequenceClassification" */
    const struct assay_encoder_family *family;
    size_t hidden, layers, heads, intermediate, vocab;
    size_t positions; /* most tokens of a sequence */
    size_t types;     /* of tokens; 0: they have none */
    size_t labels;    /* 0 without a classifier */
    size_t buckets;   /* of distances between tokens, with something to add to scores each; 0: there are none */
    int32_t pad;      /* a token of this id stands at position `pad`, others at pad + 1 and on; -1: all count, from 0 */
    enum assay_activation activation;
    float norm_eps;
};

struct assay_encoder;

/* Whether config.json names an encoder, be it one that we do not have all of. */
bool assay_encoder_is(const cJSON *config);
/* Models, with or without the head that predicts masked tokens, and sequence classifiers. UNIMPLEMENTED names an
 * architecture or option that we do not have, INVALID_ARGUMENT a member that is missing or out of range. `what` names
 * the object in errors. */
enum assay_status assay_encoder_config_read(const cJSON *config, const char *what, struct assay_encoder_config *ret,
                                            struct assay_err *err) ASSAY_MUST_USE;

/* Errors as those of assay_encoder_config_read, and NOT_FOUND / INVALID_ARGUMENT for a tensor that is missing or does
 * not fit. The checkpoint may be closed afterwards. */
enum assay_status assay_encoder_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                     struct assay_encoder **ret, struct assay_err *err) ASSAY_MUST_USE;
/* What assay_encoder_bytes would be; errors are those of assay_encoder_load. Matrices and tables are not read. */
enum assay_status assay_encoder_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_encoder_free(struct assay_encoder *encoder); /* NULL is fine */
const struct assay_encoder_config *assay_encoder_config(const struct assay_encoder *encoder);
size_t assay_encoder_bytes(const struct assay_encoder *encoder);

struct assay_encoder_sequence {
    const int32_t *ids;   /* [tokens], each in [0, vocab) */
    const int32_t *types; /* [tokens], each in [0, types), or NULL: all of type 0; unused where tokens have none */
    size_t tokens;        /* 1..positions */
    float *hidden;        /* [tokens, hidden]: the last hidden states */
};

/* OUT_OF_RANGE for an id, a type or a length beyond the model; RESOURCE_EXHAUSTED. Calls on one pool take turns,
 * product by product. */
enum assay_status assay_encoder_forward(const struct assay_encoder *encoder, struct assay_pool *pool,
                                        const struct assay_encoder_sequence *sequences, size_t count,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* pooled[rows, hidden] = act(first . W^T + b) of the first tokens' hidden states [rows, hidden]: what the classifier
 * reads, or what the model's pooler makes where there is no classifier; act is tanh, in DistilBERT relu.
 * FAILED_PRECONDITION when the checkpoint has neither. */
enum assay_status assay_encoder_pooler(const struct assay_encoder *encoder, struct assay_pool *pool, const float *first,
                                       size_t rows, float *pooled, struct assay_err *err) ASSAY_MUST_USE;
/* scores[rows, labels] of pooled [rows, hidden]. FAILED_PRECONDITION without a classifier. */
enum assay_status assay_encoder_scores(const struct assay_encoder *encoder, struct assay_pool *pool,
                                       const float *pooled, size_t rows, float *scores,
                                       struct assay_err *err) ASSAY_MUST_USE;
