/* The reductions in float64: for rows where f32 does not reach, and to join parts. Loops run over blocks of BLOCK
 * independent partial sums, so that the compiler may use vectors of any width and the bits stay. */
#pragma once

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/kernels/score/ops.h"

#define BLOCK 64

/* first ? a : b by bits, so that no branch keeps the compiler from using vectors. */
static inline double either(bool first, double a, double b)
{
    uint64_t mask = 0 - (uint64_t)first, bits_a, bits_b;
    memcpy(&bits_a, &a, sizeof bits_a);
    memcpy(&bits_b, &b, sizeof bits_b);
    bits_a = (bits_a & mask) | (bits_b & ~mask);
    memcpy(&a, &bits_a, sizeof a);
    return a;
}

/* exp(t) for t <= 700: 2^k e^r, |r| <= ln 2 / 2, e^r = 1 + r + r^2 g(r). g interpolates at Chebyshev nodes: 4.3e-12. */
static inline double exp_f64(double t)
{
    const double log2e = 0x1.71547652b82fep+0, ln2 = 0x1.62e42fefa39efp-1;
    const double shift = 0x1.8p52; /* leaves the rounded integer in the low bits */
    const double least = -700.0;   /* 2^k stays a normal number */
    double shifted = __builtin_fma(t, log2e, shift);
    double r = __builtin_fma(shifted - shift, -ln2, t);
    double g = 0x1.a1131351400c3p-16;
    g = __builtin_fma(g, r, 0x1.a15169e096556p-13);
    g = __builtin_fma(g, r, 0x1.6c1685919d367p-10);
    g = __builtin_fma(g, r, 0x1.1110c63a4eed0p-7);
    g = __builtin_fma(g, r, 0x1.5555555c85f99p-5);
    g = __builtin_fma(g, r, 0x1.5555556750672p-3);
    g = __builtin_fma(g, r, 0.5);
    double e = __builtin_fma(r * r, g, r) + 1.0;
    uint64_t k, bits;
    memcpy(&k, &shifted, sizeof k);
    memcpy(&bits, &e, sizeof bits);
    bits += k << 52;
    memcpy(&e, &bits, sizeof e);
    return either(t < least, 0.0, e);
}

/* d + exp(-d) - 1 for |d| <= 1: d^2 h(d), h by interpolation at Chebyshev nodes: 1.0e-11 relative. */
static inline double excess_small(double d)
{
    double h = -0x1.b557c78eb1ae2p-26;
    h = __builtin_fma(h, d, 0x1.2d8c80e712d58p-22);
    h = __builtin_fma(h, d, -0x1.71d208a299728p-19);
    h = __builtin_fma(h, d, 0x1.a00628e52cb26p-16);
    h = __builtin_fma(h, d, -0x1.a01a131097a98p-13);
    h = __builtin_fma(h, d, 0x1.6c16ddcf83609p-10);
    h = __builtin_fma(h, d, -0x1.1111110857b52p-7);
    h = __builtin_fma(h, d, 0x1.55555538edba5p-5);
    h = __builtin_fma(h, d, -0x1.5555555558201p-3);
    h = __builtin_fma(h, d, 0x1.0000000009173p-1);
    return d * d * h;
}

/* The last, short block, filled with logits that weigh nothing. */
static inline const float *padded(const float *x, size_t n, float block[BLOCK])
{
    for (size_t l = 0; l < BLOCK; l++)
        block[l] = l < n ? x[l] : -INFINITY;
    return block;
}

static inline double sum_of(const double partial[BLOCK])
{
    double folded[BLOCK];
    memcpy(folded, partial, sizeof folded);
    for (size_t half = BLOCK / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++)
            folded[l] += folded[l + half];
    return folded[0];
}

static inline void add_exp(const float *restrict x, double max, double *restrict partial)
{
    for (size_t l = 0; l < BLOCK; l++)
        partial[l] += exp_f64((double)x[l] - max);
}

static double row_sum_exp(const float *x, size_t n, double max)
{
    double partial[BLOCK] = {0.0};
    float block[BLOCK];
    size_t whole = n - n % BLOCK;
    for (size_t at = 0; at < whole; at += BLOCK)
        add_exp(x + at, max, partial);
    if (whole < n)
        add_exp(padded(x + whole, n - whole, block), max, partial);
    return sum_of(partial);
}

/* Terms of any d. For |d| > 1 they are q - p + p d, which loses no digits there. p = 0 leaves q, also where d is
 * infinite or, with both logits -inf, NaN. */
static inline void add_terms(const float *restrict x, const float *restrict y, double lse_x, double lse_y,
                             double *restrict partial)
{
    double shift = lse_x - lse_y;
    for (size_t l = 0; l < BLOCK; l++) {
        double p = exp_f64((double)x[l] - lse_x), q = exp_f64((double)y[l] - lse_y);
        double d = ((double)x[l] - (double)y[l]) - shift;
        double wide = (q - p) + p * d, near = p * excess_small(d);
        partial[l] += either(p == 0.0, q, either(fabs(d) <= 1.0, near, wide));
    }
}

static inline void add_small_terms(const float *restrict x, const float *restrict y, double lse_x, double lse_y,
                                   double *restrict partial)
{
    double shift = lse_x - lse_y;
    for (size_t l = 0; l < BLOCK; l++) {
        double d = ((double)x[l] - (double)y[l]) - shift;
        partial[l] += exp_f64((double)x[l] - lse_x) * excess_small(d);
    }
}

static inline bool all_small(const float *restrict x, const float *restrict y, double shift)
{
    int64_t beyond = 0;
    for (size_t l = 0; l < BLOCK; l++)
        beyond |= !(fabs(((double)x[l] - (double)y[l]) - shift) <= 1.0);
    return beyond == 0;
}

static double row_kl(const float *x, const float *y, size_t n, double lse_x, double lse_y)
{
    double partial[BLOCK] = {0.0};
    float block_x[BLOCK], block_y[BLOCK];
    size_t whole = n - n % BLOCK;
    for (size_t at = 0; at < whole; at += BLOCK) {
        if (all_small(x + at, y + at, lse_x - lse_y))
            add_small_terms(x + at, y + at, lse_x, lse_y, partial);
        else
            add_terms(x + at, y + at, lse_x, lse_y, partial);
    }
    if (whole < n)
        add_terms(padded(x + whole, n - whole, block_x), padded(y + whole, n - whole, block_y), lse_x, lse_y, partial);
    return sum_of(partial);
}

/* sum w (d + exp(-d) - 1), d = gap - middle. */
static double gaps_excess(const double *weights, const double *gaps, size_t n, double middle)
{
    double partial[BLOCK] = {0.0};
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t here = n - at < BLOCK ? n - at : BLOCK;
        for (size_t l = 0; l < here; l++) {
            double d = gaps[at + l] - middle;
            double wide = exp_f64(-d) + (d - 1.0);
            partial[l] += weights[at + l] * either(fabs(d) <= 1.0, excess_small(d), wide);
        }
    }
    return sum_of(partial);
}
