/* One row of logits at a time: what scoring does between the products. */
#pragma once

#include "common/kernels/score/score.h"
#include "common/nn/scoring.h"

/* ln sum exp = max + log_sum, kept apart so that small ones keep their digits. */
struct assay_row_figures {
    double max, log_sum;
    size_t top; /* meaningless unless valid */
    bool valid; /* false for a row with NaN or +inf, and for one of -inf only */
};

struct assay_row_figures assay_row_reduce(const struct assay_score_ops *ops, const float *logits, size_t vocab);
/* -ln P(label). */
double assay_row_nll(const struct assay_row_figures *figures, const float *logits, int32_t label);
struct assay_position assay_row_compare(const struct assay_score_ops *ops, const struct assay_row_figures *ref_figures,
                                        const float *ref, const float *var, size_t vocab, int32_t label);
