/* Scoring: applies heads part by part and reduces logits to figures by position, without ever holding a row of logits.
 * KL(P || Q) = sum_i P_i (ln P_i - ln Q_i), natural log, over the whole vocabulary, within 1e-6 relative (and 1e-23
 * nats) of its true value for the same f32 logits, however small it is; exactly 0 when both rows of logits are the same
 * bits. nll_ref is within 2e-7 of itself, nll_var - nll_ref within 2e-7 of the mean size of the logits'
 * differences (and 1e-11 nats). docs/NUMERICS.md has what was found. The same bits whatever the threads, the
 * instruction set and the number of variants. A row with NaN or +inf, or with nothing but -inf, is no distribution:
 * what depends on it is NaN, its top is ASSAY_TOP_NONE_*. A logit of -inf is a probability of 0. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/nn/model.h"

/* Equal to no index and not to each other, so that two broken rows do not agree. */
#define ASSAY_TOP_NONE_REF UINT32_MAX
#define ASSAY_TOP_NONE_VAR (UINT32_MAX - 1)

/* One scored position of one variant against the reference. */
struct assay_position {
    double nll_ref;            /* -ln P_ref(label) */
    double nll_var;            /* -ln P_var(label) */
    double kl;                 /* KL(ref || var), nats */
    uint32_t top_ref, top_var; /* argmax; the first index wins a tie */
};

struct assay_scoring_side {
    const struct assay_head *head;
    const float *hidden; /* [rows, d] */
};

/* positions[v * rows + t] for variant v. labels[t] in [0, vocab), else OUT_OF_RANGE. Vocabularies that differ:
 * INVALID_ARGUMENT. RESOURCE_EXHAUSTED when out of memory. The reference's logits are computed once for all variants.
 * On an error positions are undefined. */
enum assay_status assay_score(struct assay_pool *pool, const struct assay_scoring_side *reference,
                              const struct assay_scoring_side *variants, size_t variants_count, const int32_t *labels,
                              size_t rows, struct assay_position *positions, struct assay_err *err) ASSAY_MUST_USE;

/* CPU seconds of all threads together. */
struct assay_scoring_cost {
    double products_s;   /* of hidden states and heads */
    double reductions_s; /* all else */
};

/* The same; *cost says what it took. */
enum assay_status assay_score_measured(struct assay_pool *pool, const struct assay_scoring_side *reference,
                                       const struct assay_scoring_side *variants, size_t variants_count,
                                       const int32_t *labels, size_t rows, struct assay_position *positions,
                                       struct assay_scoring_cost *cost, struct assay_err *err) ASSAY_MUST_USE;

/* The same for one row of logits each of length vocab >= 1; label in [0, vocab). Out of memory it is a broken
 * row's: all NaN. */
struct assay_position assay_score_row(const struct assay_kernels *kernels, const float *ref, const float *var,
                                      size_t vocab, int32_t label);
/* The definition in plain float64, sum of p (ln p - ln q), for checking. Its error is absolute, about 1e-15 nats; the
 * other function keeps its digits for the smallest KL as well. */
struct assay_position assay_score_row_f64(const float *ref, const float *var, size_t vocab, int32_t label);
