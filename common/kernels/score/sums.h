/* What the reductions need beside lanes.h: comparisons, powers of two and sums in float64. As there, every operation
 * rounds once, lane by lane. */
#pragma once

#include <stdbool.h>

#include "common/kernels/lanes.h"

#if defined(ASSAY_LANES_AVX512)

/* One float64 sum a lane. */
struct lanes_sums {
    __m512d lo, hi;
};

LANES_INLINE struct lanes_sums lanes_sums_zero(void)
{
    return (struct lanes_sums){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

LANES_INLINE struct lanes_sums lanes_sums_add(struct lanes_sums s, struct lanes a)
{
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
    return (struct lanes_sums){_mm512_add_pd(s.lo, _mm512_cvtps_pd(_mm512_castps512_ps256(a.v))),
                               _mm512_add_pd(s.hi, _mm512_cvtps_pd(high))};
}

LANES_INLINE void lanes_sums_store(double *p, struct lanes_sums s)
{
    _mm512_storeu_pd(p, s.lo);
    _mm512_storeu_pd(p + 8, s.hi);
}

LANES_INLINE struct lanes lanes_abs(struct lanes a)
{
    return (struct lanes){_mm512_abs_ps(a.v)};
}

/* Whether every lane is at most `bound`; false where one is NaN. */
LANES_INLINE bool lanes_all_within(struct lanes a, float bound)
{
    return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(bound), _CMP_LE_OQ) == 0xffff;
}

/* Bit i is set where lane i equals value. */
LANES_INLINE uint32_t lanes_equal(struct lanes a, float value)
{
    return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(value), _CMP_EQ_OQ);
}

/* a <= bound ? x : y */
LANES_INLINE struct lanes lanes_choose(struct lanes a, float bound, struct lanes x, struct lanes y)
{
    return (struct lanes){_mm512_mask_mov_ps(y.v, _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(bound), _CMP_LE_OQ), x.v)};
}

/* a * 2^n where a and the result are normal; rounded = n + LANES_ROUND_F32. */
LANES_INLINE struct lanes lanes_times_power(struct lanes a, struct lanes rounded)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(rounded.v), 23);
    return (struct lanes){_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), n))};
}

#elif defined(ASSAY_LANES_AVX2)

struct lanes_sums {
    __m256d at[4];
};

LANES_INLINE struct lanes_sums lanes_sums_zero(void)
{
    __m256d zero = _mm256_setzero_pd();
    return (struct lanes_sums){{zero, zero, zero, zero}};
}

LANES_INLINE struct lanes_sums lanes_sums_add(struct lanes_sums s, struct lanes a)
{
    s.at[0] = _mm256_add_pd(s.at[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a.lo)));
    s.at[1] = _mm256_add_pd(s.at[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a.lo, 1)));
    s.at[2] = _mm256_add_pd(s.at[2], _mm256_cvtps_pd(_mm256_castps256_ps128(a.hi)));
    s.at[3] = _mm256_add_pd(s.at[3], _mm256_cvtps_pd(_mm256_extractf128_ps(a.hi, 1)));
    return s;
}

LANES_INLINE void lanes_sums_store(double *p, struct lanes_sums s)
{
    for (size_t i = 0; i < 4; i++)
        _mm256_storeu_pd(p + 4 * i, s.at[i]);
}

LANES_INLINE struct lanes lanes_abs(struct lanes a)
{
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

LANES_INLINE bool lanes_all_within(struct lanes a, float bound)
{
    __m256 limit = _mm256_set1_ps(bound);
    __m256 both = _mm256_and_ps(_mm256_cmp_ps(a.lo, limit, _CMP_LE_OQ), _mm256_cmp_ps(a.hi, limit, _CMP_LE_OQ));
    return _mm256_movemask_ps(both) == 0xff;
}

LANES_INLINE uint32_t lanes_equal(struct lanes a, float value)
{
    __m256 wanted = _mm256_set1_ps(value);
    uint32_t low = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, wanted, _CMP_EQ_OQ));
    return low | (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, wanted, _CMP_EQ_OQ)) << 8;
}

LANES_INLINE struct lanes lanes_choose(struct lanes a, float bound, struct lanes x, struct lanes y)
{
    __m256 limit = _mm256_set1_ps(bound);
    return (struct lanes){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, limit, _CMP_LE_OQ)),
                          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, limit, _CMP_LE_OQ))};
}

LANES_INLINE __m256 lanes_half_times_power(__m256 a, __m256 rounded)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(rounded), 23)));
}

LANES_INLINE struct lanes lanes_times_power(struct lanes a, struct lanes rounded)
{
    return (struct lanes){lanes_half_times_power(a.lo, rounded.lo), lanes_half_times_power(a.hi, rounded.hi)};
}

#else

struct lanes_sums {
    double x[LANES];
};

LANES_INLINE struct lanes_sums lanes_sums_zero(void)
{
    return (struct lanes_sums){{0.0}};
}

LANES_INLINE struct lanes_sums lanes_sums_add(struct lanes_sums s, struct lanes a)
{
    for (size_t i = 0; i < LANES; i++)
        s.x[i] += (double)a.x[i];
    return s;
}

LANES_INLINE void lanes_sums_store(double *p, struct lanes_sums s)
{
    memcpy(p, s.x, sizeof s.x);
}

LANES_INLINE struct lanes lanes_abs(struct lanes a)
{
    for (size_t i = 0; i < LANES; i++)
        a.x[i] = fabsf(a.x[i]);
    return a;
}

LANES_INLINE bool lanes_all_within(struct lanes a, float bound)
{
    bool within = true;
    for (size_t i = 0; i < LANES; i++)
        within &= a.x[i] <= bound;
    return within;
}

LANES_INLINE uint32_t lanes_equal(struct lanes a, float value)
{
    uint32_t equal = 0;
    for (size_t i = 0; i < LANES; i++)
        equal |= (uint32_t)(a.x[i] == value) << i;
    return equal;
}

LANES_INLINE struct lanes lanes_choose(struct lanes a, float bound, struct lanes x, struct lanes y)
{
    for (size_t i = 0; i < LANES; i++)
        y.x[i] = a.x[i] <= bound ? x.x[i] : y.x[i];
    return y;
}

LANES_INLINE struct lanes lanes_times_power(struct lanes a, struct lanes rounded)
{
    for (size_t i = 0; i < LANES; i++) {
        uint32_t bits, n;
        memcpy(&bits, &a.x[i], sizeof bits);
        memcpy(&n, &rounded.x[i], sizeof n);
        bits += n << 23;
        memcpy(&a.x[i], &bits, sizeof bits);
    }
    return a;
}

#endif

/* Lane i with lane i + 8, then + 4, + 2, + 1. */
LANES_INLINE double lanes_sums_total(struct lanes_sums s)
{
    double x[LANES];
    lanes_sums_store(x, s);
    for (size_t step = LANES / 2; step > 0; step /= 2)
        for (size_t i = 0; i < step; i++)
            x[i] += x[i + step];
    return x[0];
}
