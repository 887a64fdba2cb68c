/* Scoring: applies heads tile by tile and reduces logits to figures by position, without ever holding [T, V].
 * KL(P || Q) = sum_i P_i (ln P_i - ln Q_i), natural log, over the whole vocabulary; float64 sums, within 1e-6 relative of the
 * float64 value from the same f32 logits; exactly 0 when both rows of logits are the same bits. */
#pragma once

#include "common/nn/model.h"

/* One scored position of one variant against the reference. */
struct assay_position {
    double nll_ref;  /* -ln P_ref(label) */
    double nll_var;  /* -ln P_var(label) */
    double kl;       /* KL(ref || var), nats */
    uint32_t top_ref, top_var; /* argmax; the first index wins a tie */
};

struct assay_scoring_side {
    const struct assay_head *head;
    const float *hidden; /* [rows, d] */
};

/* positions[v * rows + t] for variant v. labels[t] in [0, vocab), else OUT_OF_RANGE. Vocabularies that differ:
 * INVALID_ARGUMENT. A variant with the reference's head shares its products. The reference's logits are computed once. */
enum assay_status assay_score(struct assay_pool *pool, const struct assay_scoring_side *reference,
                              const struct assay_scoring_side *variants, size_t variants_count, const int32_t *labels,
                              size_t rows, struct assay_position *positions, struct assay_err *err) ASSAY_MUST_USE;

/* The same from logits that are there: one row of length vocab each. Plain float64, for checking. */
struct assay_position assay_score_row_f64(const float *ref, const float *var, size_t vocab, int32_t label);
