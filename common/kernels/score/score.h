/* Reductions over one row of logits. Infinite and huge logits are fine; a NaN in a row makes its sums NaN.
 * Every path gives the same bits: the same fused multiply-adds on the same 64 partial sums. exp() is within 1e-11
 * relative down to e^-700 and 0 below. No alignment is needed; nothing outside the rows is read. Cannot fail. Any
 * thread. */
#pragma once

#include "common/kernels/kernels.h"

struct assay_score_ops {
    /* The largest of x[n], NaN left out; -inf for none. *ret_index: the first place where it stands, n when there is
     * none. */
    float (*top)(const float *x, size_t n, size_t *ret_index);
    /* sum_i exp(x[i] - max); max is the largest of x. */
    double (*sum_exp)(const float *x, size_t n, double max);
    /* sum_i p_i (ln p_i - ln q_i) with p = exp(x - lse_x), q = exp(y - lse_y), both summing to 1. Computed as a sum of
     * terms p (d + exp(-d) - 1) >= 0, d = ln p - ln q: nothing cancels, and an error of lse_x - lse_y enters squared. 0
     * for rows of the same bits. */
    double (*kl)(const float *x, const float *y, size_t n, double lse_x, double lse_y);
};

/* The reductions of a path. */
const struct assay_score_ops *assay_score_ops(const struct assay_kernels *kernels);
