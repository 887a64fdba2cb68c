/* Reductions of rows of logits, part by part: a part is ASSAY_SCORE_PART elements of a row, the last one what is left.
 * Weights and differences are f32, sums float64. Every path gives the same bits: the same operations on the same
 * lanes. No alignment is needed; nothing outside the parts is read. Cannot fail. Any thread.
 *
 * Let p be the weights exp(x - max) over their sum, g = x - y and m the mean of g under p. Then
 *     ln sum exp x - ln sum exp y = m - KL    and    KL = ln(1 + sum p (e + exp(-e) - 1)),    e = g - m.
 * Every term is at least 0, so nothing cancels however small KL is, and neither needs the sum of exp y. The parts of a
 * row join by the chain rule: KL of the row = sum over parts of the part's share times its KL, + KL of the shares. */
#pragma once

#include "common/kernels/kernels.h"

#define ASSAY_SCORE_PART 1024

/* A part of the reference's row. */
struct assay_score_part {
    float max;            /* NaN left out; -inf for none */
    uint32_t top;         /* the first place of max; the part's length when there is none */
    double sum;           /* sum exp(x - max): 0 where all are -inf, NaN with a NaN or +inf */
    double lse;           /* ln sum exp x: -inf and NaN likewise */
    bool weighed;         /* the weights were written: */
    double shift, weight; /* they are exp(x - shift), their sum is weight */
};

/* A part of a variant's row beside it. */
struct assay_score_gap {
    float max;
    uint32_t top;
    double gap; /* lse of the reference - lse; 0 when both are -inf */
    double lse; /* ln sum exp y */
    double kl;  /* of the part's own distributions; 0 when one of them is none */
};

struct assay_score_ops {
    /* n in [1, ASSAY_SCORE_PART]. weights[ASSAY_SCORE_PART] receives exp(x - shift) with a shift next to max, within
     * 1.1e-7 relative, and 1.4e-9 for each nat below the shift, down to e^-86, and some 1e-38 below that; unless the
     * part is beyond f32 (weighed). What sum has beside the largest element is as accurate. */
    void (*reduce)(const float *x, size_t n, float *weights, struct assay_score_part *ret);
    /* `weights` and `ref` as `reduce` made them of x. */
    void (*compare)(const float *x, const float *y, size_t n, const float *weights, const struct assay_score_part *ref,
                    struct assay_score_gap *ret);
    /* sum_i weights[i] (d + exp(-d) - 1), d = gaps[i] - middle, |d| <= 700; within 1e-10 relative. */
    double (*excess)(const double *weights, const double *gaps, size_t n, double middle);
};

/* The reductions of a path. */
const struct assay_score_ops *assay_score_ops(const struct assay_kernels *kernels);
