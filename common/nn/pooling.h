/* How the hidden states of a text become one embedding, as the modules of sentence-transformers say. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/status.h"

enum assay_pooling_kind {
    ASSAY_POOLING_MEAN,
    ASSAY_POOLING_MEAN_ROOT,     /* the sum by the root of the number of tokens */
    ASSAY_POOLING_MEAN_WEIGHTED, /* token i counts i + 1 times */
    ASSAY_POOLING_MAX,           /* of each dimension */
    ASSAY_POOLING_FIRST,
    ASSAY_POOLING_LAST
};

struct assay_pooling {
    size_t tokens_max;            /* of a text */
    enum assay_pooling_kind kind; /* what is made of all tokens, or which of them is taken */
    bool normalize;               /* to length 1 */
    bool is_stated;               /* there is a modules.json */
};

/* Reads modules.json, the pooling's config.json and sentence_bert_config.json under `dir`; what is missing: mean,
 * normalized, `positions` tokens. UNIMPLEMENTED names what we do not have, a prompt that every text is to have among
 * it.
 */
enum assay_status assay_pooling_read(const char *dir, size_t positions, struct assay_pooling *ret,
                                     struct assay_err *err) ASSAY_MUST_USE;

/* embedding[width] of hidden[tokens, width]; tokens >= 1. */
void assay_pooling_apply(const struct assay_pooling *pooling, const float *hidden, size_t tokens, size_t width,
                         float *embedding);
