/* The figures of a part of a row, in f32 with sums in float64 (score.h says what they are and how accurate). Where f32
 * does not reach, at infinities and huge numbers, body.h's float64 answers instead. Compiled once for each instruction
 * set: the including file names the table OPS. */
#pragma once

#include "common/kernels/score/body.h"
#include "common/kernels/score/sums.h"

/* Vectors that go through the same operations side by side, which hides the latency of each. */
#if defined(ASSAY_LANES_AVX512)
#define ABREAST 4
#else
#define ABREAST 2
#endif
#define EACH(i) _Pragma("GCC unroll 4") for (size_t i = 0; i < ABREAST; i++)
/* Elements whose products are added in f32 before they go to a float64 sum. */
#define STEP (4 * LANES)
#define STEPS (ASSAY_SCORE_PART / STEP)
/* Largest |shift| of an exponential and |x| within reach of it: x - n ln 2 keeps its digits. */
#define SHIFT_MAX 256.0
/* Largest |x - y - their middle|: beyond twice that exp(y - x) comes near to the end of f32. */
#define GAP_MAX 40.0f
/* Nats below the shift where an exponential is as good as 0; there it still is a normal number. */
#define DEPTH_MAX 86.0f

/* ln 2 in f32, 1.9e-9 too large, which an exponential feels by its distance from the shift alone: 2.4e-7 at DEPTH_MAX.
 */
#define LN2 0x1.62e43p-1f

/* A shift of n0 LN2: the constants for exponentials beside it. */
struct shift {
    struct lanes floor, round;
    double at; /* n0 LN2 */
};

static struct shift shift_of(double about)
{
    double n0 = rint(about * 0x1.71547652b82fep+0), at = n0 * (double)LN2;
    return (struct shift){lanes_set((float)(at - DEPTH_MAX)), lanes_set(LANES_ROUND_F32 - (float)n0), at};
}

/* x = exp(x - shift) within 1.1e-7, and 1.4e-9 for each nat below the shift; what is more than DEPTH_MAX below it
 * counts as that. x - shift <= 88. 2^k e^r, e^r by interpolation at Chebyshev nodes: 1.0e-8. The shift is in the power
 * of two alone: nothing is subtracted from x that rounds. */
LANES_INLINE void exponential(struct lanes x[ABREAST], const struct shift *s)
{
    struct lanes n[ABREAST], p[ABREAST];
    EACH(i) x[i] = lanes_max(s->floor, x[i]);
    EACH(i) n[i] = lanes_fma(x[i], lanes_set(0x1.715476p+0f), s->round);
    EACH(i) x[i] = lanes_fma(lanes_sub(n[i], s->round), lanes_set(-LN2), x[i]);
    EACH(i) p[i] = lanes_fma(lanes_set(0x1.6d127ep-10f), x[i], lanes_set(0x1.120ce4p-7f));
    EACH(i) p[i] = lanes_fma(p[i], x[i], lanes_set(0x1.555518p-5f));
    EACH(i) p[i] = lanes_fma(p[i], x[i], lanes_set(0x1.5554dcp-3f));
    EACH(i) p[i] = lanes_fma(p[i], x[i], lanes_set(0x1p-1f));
    EACH(i) p[i] = lanes_fma(p[i], x[i], lanes_set(1.0f));
    EACH(i) p[i] = lanes_fma(p[i], x[i], lanes_set(1.0f));
    EACH(i) x[i] = lanes_times_power(p[i], n[i]);
}

/* e + exp(-e) - 1 for |e| <= NEAR: e^2 h(e), h by interpolation at Chebyshev nodes: 5.8e-8 relative. */
#define NEAR 2.0f
LANES_INLINE void excess_near(const struct lanes e[ABREAST], struct lanes h[ABREAST])
{
    EACH(i) h[i] = lanes_fma(lanes_set(-0x1.cada2ep-26f), e[i], lanes_set(0x1.3f212ap-22f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.71150cp-19f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1.9ed106p-16f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.a01e84p-13f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1.6c1e22p-10f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.111108p-7f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1.555538p-5f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.555556p-3f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1p-1f));
    EACH(i) h[i] = lanes_mul(lanes_mul(e[i], e[i]), h[i]);
}

/* The same for |e| <= CLOSE, with half the terms: 5.9e-8 relative. */
#define CLOSE 0.5f
LANES_INLINE void excess_close(const struct lanes e[ABREAST], struct lanes h[ABREAST])
{
    EACH(i) h[i] = lanes_fma(lanes_set(-0x1.a2463ap-13f), e[i], lanes_set(0x1.6e88dcp-10f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.11104p-7f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1.55538p-5f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(-0x1.555556p-3f));
    EACH(i) h[i] = lanes_fma(h[i], e[i], lanes_set(0x1p-1f));
    EACH(i) h[i] = lanes_mul(lanes_mul(e[i], e[i]), h[i]);
}

/* The four vectors of a step as one: (0 + 1) + (2 + 3), whatever ABREAST is. */
LANES_INLINE struct lanes fold(const struct lanes v[STEP / LANES])
{
    return lanes_add(lanes_add(v[0], v[1]), lanes_add(v[2], v[3]));
}

/* Where rows follow each other in memory, the next one's step comes into the cache meanwhile; elsewhere it does no
 * harm.
 */
LANES_INLINE void prefetch_next(const float *x)
{
    _Pragma("GCC unroll 4") for (size_t i = 0; i < STEP; i += LANES) __builtin_prefetch(x + ASSAY_SCORE_PART + i);
}

/* --- the reference --- */

/* Writes the weights of a step; returns their sum by lanes. */
LANES_INLINE struct lanes weigh(const float *x, const struct shift *s, float *weights)
{
    struct lanes p[STEP / LANES];
    _Pragma("GCC unroll 4") for (size_t at = 0; at < STEP / LANES; at += ABREAST)
    {
        EACH(i) p[at + i] = lanes_load(x + (at + i) * LANES);
        exponential(p + at, s);
        EACH(i) lanes_store(weights + (at + i) * LANES, p[at + i]);
    }
    return fold(p);
}

/* Every step's largest by lanes, then where the largest of all stands: without branches that depend on the data. */
static float part_top(const float *x, size_t n, uint32_t *ret_index)
{
    struct lanes top = lanes_set(-INFINITY), largest[STEPS];
    float last[STEP];
    uint32_t steps = 0;
    uint64_t places = 0;
    size_t whole = n - n % STEP;
    for (size_t at = 0; at < n; at += STEP) {
        const float *from = at < whole ? x + at : padded(x + at, n - at, last);
        struct lanes low = lanes_max(lanes_load(from), lanes_load(from + LANES));
        struct lanes high = lanes_max(lanes_load(from + 2 * LANES), lanes_load(from + 3 * LANES));
        largest[at / STEP] = lanes_max(low, high);
        top = lanes_max(largest[at / STEP], top);
    }
    float max = lanes_largest(top);
    for (size_t i = 0; i < (n + STEP - 1) / STEP; i++)
        steps |= (uint32_t)(lanes_equal(largest[i], max) != 0) << i;
    size_t begin = steps == 0 ? n : (size_t)__builtin_ctz(steps) * STEP;
    if (begin < whole)
        for (size_t i = 0; i < STEP; i += LANES)
            places |= (uint64_t)lanes_equal(lanes_load(x + begin + i), max) << i;
    else
        for (size_t i = begin; i < n; i++)
            places |= (uint64_t)(x[i] == max) << (i - begin);
    *ret_index = (uint32_t)(places == 0 ? n : begin + (size_t)__builtin_ctzll(places));
    return max;
}

/* ln sum exp in float64; -inf for nothing but -inf. */
static double lse_f64(const float *x, size_t n, float max)
{
    if (max == -INFINITY) {
        for (size_t i = 0; i < n; i++)
            if (isnan(x[i]))
                return NAN;
        return -INFINITY;
    }
    return (double)max + log(row_sum_exp(x, n, max));
}

/* The same for a step that is short or has the top in it, which is left out. */
static struct lanes weigh_rest(const float *x, size_t n, size_t top, const struct shift *s, float *weights)
{
    float block[STEP];
    for (size_t i = 0; i < STEP; i++)
        block[i] = i < n && i != top ? x[i] : -INFINITY;
    struct lanes sum = weigh(block, s, weights);
    for (size_t i = n; i < STEP; i++)
        weights[i] = 0.0f;
    return sum;
}

static void part_reduce(const float *x, size_t n, float *weights, struct assay_score_part *ret)
{
    float max = part_top(x, n, &ret->top);
    ret->max = max;
    ret->weighed = fabsf(max) <= (float)SHIFT_MAX;
    if (!ret->weighed) {
        ret->lse = lse_f64(x, n, max);
        ret->sum = max == -INFINITY && !isnan(ret->lse) ? 0.0 : row_sum_exp(x, n, max);
        return;
    }
    const struct shift s = shift_of(max);
    struct lanes sum[STEPS];
    struct lanes_sums sums = lanes_sums_zero();
    size_t whole = n - n % STEP, first = ret->top - ret->top % STEP;
    for (size_t at = 0; at < whole; at += STEP) {
        prefetch_next(x + at);
        sum[at / STEP] = weigh(x + at, &s, weights + at);
    }
    sum[first / STEP] =
        weigh_rest(x + first, ASSAY_MIN(n - first, (size_t)STEP), ret->top - first, &s, weights + first);
    if (whole < n && first != whole)
        sum[whole / STEP] = weigh_rest(x + whole, n - whole, STEP, &s, weights + whole);
    for (size_t at = 0; at < n; at += STEP)
        sums = lanes_sums_add(sums, sum[at / STEP]);
    /* The top by itself, in float64: a sum that is all but it keeps the digits of the rest. */
    double top = exp((double)max - s.at), rest = lanes_sums_total(sums);
    weights[ret->top] = (float)top;
    ret->weight = rest + top;
    ret->shift = s.at;
    ret->sum = 1.0 + rest / top;
    ret->lse = (double)max + log(ret->sum);
}

/* --- a variant against it --- */

struct middle {
    struct lanes center; /* about the mean of x - y */
    struct lanes widest; /* |x - y - center| */
    struct lanes_sums sums;
};

/* x - y - center as one f32, without the rounding of x - y. Some sums are products with 1: processors have units for
 * sums and for multiply-adds, and here both have work. */
LANES_INLINE void gap_of(const struct lanes x[ABREAST], const struct lanes y[ABREAST], struct lanes center,
                         struct lanes gap[ABREAST])
{
    const struct lanes one = lanes_set(1.0f), minus = lanes_set(-1.0f);
    struct lanes s[ABREAST], b[ABREAST], lost[ABREAST];
    EACH(i) s[i] = lanes_sub(x[i], y[i]);
    EACH(i) b[i] = lanes_sub(s[i], x[i]);
    EACH(i) lost[i] = lanes_sub(s[i], b[i]);
    EACH(i) lost[i] = lanes_fma(lost[i], minus, x[i]);
    EACH(i) b[i] = lanes_fma(b[i], one, y[i]);
    EACH(i) lost[i] = lanes_sub(lost[i], b[i]);
    EACH(i) s[i] = lanes_fma(center, minus, s[i]);
    EACH(i) gap[i] = lanes_add(s[i], lost[i]);
}

LANES_INLINE void step_gaps(const float *x, const float *y, const float *weights, float *gaps, struct middle *m)
{
    struct lanes gap[STEP / LANES];
    _Pragma("GCC unroll 4") for (size_t at = 0; at < STEP / LANES; at += ABREAST)
    {
        struct lanes a[ABREAST], b[ABREAST];
        EACH(i) a[i] = lanes_load(x + (at + i) * LANES);
        EACH(i) b[i] = lanes_load(y + (at + i) * LANES);
        gap_of(a, b, m->center, gap + at);
        EACH(i) lanes_store(gaps + (at + i) * LANES, gap[at + i]);
        EACH(i) m->widest = lanes_max(lanes_abs(gap[at + i]), m->widest);
        EACH(i) gap[at + i] = lanes_mul(lanes_load(weights + (at + i) * LANES), gap[at + i]);
    }
    m->sums = lanes_sums_add(m->sums, fold(gap));
}

/* The last, short step: what is behind n repeats the first element; its weight is 0. */
static void copy_short(const float *from, size_t n, float *to)
{
    for (size_t i = 0; i < STEP; i++)
        to[i] = from[i < n ? i : 0];
}

struct gaps {
    float at[ASSAY_SCORE_PART]; /* x - y - center */
    double mean;                /* under the weights */
    bool near, close;           /* all within NEAR, CLOSE of the mean */
};

/* False when f32 does not reach. */
static bool measure_gaps(const float *x, const float *y, size_t n, const float *weights, double weight, float center,
                         struct gaps *gaps)
{
    struct middle m = {lanes_set(center), lanes_zero(), lanes_sums_zero()};
    size_t whole = n - n % STEP;
    for (size_t at = 0; at < whole; at += STEP) {
        prefetch_next(y + at);
        step_gaps(x + at, y + at, weights + at, gaps->at + at, &m);
    }
    if (whole < n) {
        float last_x[STEP], last_y[STEP];
        copy_short(x + whole, n - whole, last_x);
        copy_short(y + whole, n - whole, last_y);
        step_gaps(last_x, last_y, weights + whole, gaps->at + whole, &m);
    }
    gaps->mean = lanes_sums_total(m.sums) / weight;
    struct lanes widest = lanes_add(m.widest, lanes_set((float)fabs(gaps->mean)));
    gaps->near = lanes_all_within(widest, NEAR);
    gaps->close = lanes_all_within(widest, CLOSE);
    /* A NaN may pass by the widest gap, not by the mean. */
    return lanes_all_within(m.widest, GAP_MAX) && fabs(gaps->mean) <= GAP_MAX;
}

LANES_INLINE struct lanes step_near(const float *gaps, const float *weights, struct lanes mean, bool close)
{
    struct lanes term[STEP / LANES];
    _Pragma("GCC unroll 4") for (size_t at = 0; at < STEP / LANES; at += ABREAST)
    {
        struct lanes e[ABREAST];
        EACH(i) e[i] = lanes_sub(lanes_load(gaps + (at + i) * LANES), mean);
        if (close)
            excess_close(e, term + at);
        else
            excess_near(e, term + at);
        EACH(i) term[at + i] = lanes_mul(lanes_load(weights + (at + i) * LANES), term[at + i]);
    }
    return fold(term);
}

/* Beyond |e| = NEAR a term is q - p + p e, with q = exp(y - s) * scale from y itself. */
LANES_INLINE struct lanes step_wide(const float *gaps, const float *weights, const float *y, struct lanes mean,
                                    const struct shift *s, struct lanes scale)
{
    struct lanes term[STEP / LANES];
    _Pragma("GCC unroll 4") for (size_t at = 0; at < STEP / LANES; at += ABREAST)
    {
        struct lanes e[ABREAST], q[ABREAST], p[ABREAST];
        EACH(i) e[i] = lanes_sub(lanes_load(gaps + (at + i) * LANES), mean);
        EACH(i) q[i] = lanes_load(y + (at + i) * LANES);
        exponential(q, s);
        EACH(i) p[i] = lanes_load(weights + (at + i) * LANES);
        EACH(i) q[i] = lanes_fma(q[i], scale, lanes_mul(p[i], lanes_sub(e[i], lanes_set(1.0f))));
        excess_near(e, term + at);
        EACH(i) term[at + i] = lanes_choose(lanes_abs(e[i]), NEAR, lanes_mul(p[i], term[at + i]), q[i]);
    }
    return fold(term);
}

LANES_INLINE bool step_is_near(const float *gaps, struct lanes mean)
{
    struct lanes widest = lanes_zero();
    _Pragma("GCC unroll 4") for (size_t at = 0; at < STEP; at += LANES) widest =
        lanes_max(lanes_abs(lanes_sub(lanes_load(gaps + at), mean)), widest);
    return lanes_all_within(widest, NEAR);
}

static struct lanes step_any(const struct gaps *gaps, size_t at, const float *y, size_t n, const float *weights,
                             struct lanes mean, const struct shift *s, struct lanes scale)
{
    float last[STEP];
    if (step_is_near(gaps->at + at, mean))
        return step_near(gaps->at + at, weights + at, mean, false);
    if (at + STEP <= n)
        return step_wide(gaps->at + at, weights + at, y + at, mean, s, scale);
    for (size_t i = 0; i < STEP; i++)
        last[i] = i < n - at ? y[at + i] : -INFINITY;
    return step_wide(gaps->at + at, weights + at, last, mean, s, scale);
}

/* sum p (e + exp(-e) - 1), e = gap - mean; `shift` is where exp(y - shift) is q. */
static double measure_excess(const struct gaps *gaps, const float *y, size_t n, const float *weights, double shift)
{
    struct lanes_sums sums = lanes_sums_zero();
    struct lanes mean = lanes_set((float)gaps->mean);
    if (gaps->close) {
        for (size_t at = 0; at < n; at += STEP)
            sums = lanes_sums_add(sums, step_near(gaps->at + at, weights + at, mean, true));
    } else if (gaps->near) {
        for (size_t at = 0; at < n; at += STEP)
            sums = lanes_sums_add(sums, step_near(gaps->at + at, weights + at, mean, false));
    } else {
        const struct shift s = shift_of(shift);
        struct lanes scale = lanes_set((float)exp(s.at - shift));
        for (size_t at = 0; at < n; at += STEP)
            sums = lanes_sums_add(sums, step_any(gaps, at, y, n, weights, mean, &s, scale));
    }
    return lanes_sums_total(sums);
}

/* In float64, for rows of any numbers. */
static void compare_f64(const float *x, const float *y, size_t n, const struct assay_score_part *ref,
                        struct assay_score_gap *ret)
{
    double lse_x = lse_f64(x, n, ref->max), lse_y = lse_f64(y, n, ret->max);
    ret->kl = 0.0;
    if (lse_x == -INFINITY || lse_y == -INFINITY) {
        ret->gap = lse_x == lse_y ? 0.0 : lse_x - lse_y;
        ret->lse = lse_y;
        return;
    }
    ret->kl = row_kl(x, y, n, lse_x, lse_y);
    ret->gap = lse_x - lse_y;
    /* Relative to the reference's own sum, so that rows of the same bits are the same to the last one. */
    ret->lse = isnan(ref->lse) ? lse_y : ref->lse - ret->gap;
}

static void part_compare(const float *x, const float *y, size_t n, const float *weights,
                         const struct assay_score_part *ref, struct assay_score_gap *ret)
{
    _Alignas(64) struct gaps gaps;
    ret->max = part_top(y, n, &ret->top);
    bool reached = ref->weighed && fabsf(ret->max) <= (float)SHIFT_MAX;
    float center = reached ? x[ref->top] - y[ref->top] : 0.0f;
    double excess = 0.0;
    for (int attempt = 0; reached && attempt < 2; attempt++) {
        reached = measure_gaps(x, y, n, weights, ref->weight, center, &gaps);
        double shift = ref->shift - ((double)center + gaps.mean);
        reached = reached && fabs(shift) <= SHIFT_MAX;
        if (!reached)
            break;
        excess = measure_excess(&gaps, y, n, weights, shift) / ref->weight;
        /* The rounding of a gap is relative to its distance from the center, which has to be near the mean therefore:
         * within about two standard deviations. */
        if (attempt > 0 || gaps.mean * gaps.mean <= 8.0 * excess)
            break;
        center = (float)((double)center + gaps.mean);
    }
    if (!reached) {
        compare_f64(x, y, n, ref, ret);
        return;
    }
    ret->kl = log1p(excess);
    ret->gap = ((double)center + gaps.mean) - ret->kl;
    ret->lse = ref->lse - ret->gap;
}

const struct assay_score_ops OPS = {part_reduce, part_compare, gaps_excess};
