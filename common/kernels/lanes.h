/* Sixteen floats and the operations on them, for bodies that are written once and compiled for each instruction set.
 * The including file defines ASSAY_LANES_AVX512 or ASSAY_LANES_AVX2, or neither for portable C. Every operation rounds
 * once, lane by lane, so that a body gives the same bits whatever it is compiled for. */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/dtype.h"

#define LANES 16
/* Adding it rounds to an integer and leaves that integer in the low bits. */
#define LANES_ROUND_F32 0x1.8p23f
#define LANES_ROUND_BITS 0x4b400000

#define LANES_INLINE static inline __attribute__((always_inline))

#if defined(ASSAY_LANES_AVX512)

#include <immintrin.h>

struct lanes {
    __m512 v;
};

LANES_INLINE struct lanes lanes_zero(void)
{
    return (struct lanes){_mm512_setzero_ps()};
}

LANES_INLINE struct lanes lanes_set(float x)
{
    return (struct lanes){_mm512_set1_ps(x)};
}

LANES_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){_mm512_loadu_ps(p)};
}

LANES_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm512_storeu_ps(p, a.v);
}

LANES_INLINE struct lanes lanes_load_n(const float *p, size_t n)
{
    return (struct lanes){_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p)};
}

LANES_INLINE void lanes_store_n(float *p, struct lanes a, size_t n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a.v);
}

LANES_INLINE struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_add_ps(a.v, b.v)};
}

LANES_INLINE struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_sub_ps(a.v, b.v)};
}

LANES_INLINE struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_mul_ps(a.v, b.v)};
}

LANES_INLINE struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_div_ps(a.v, b.v)};
}

LANES_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

/* Here the processor is told to flush. */
#define lanes_fma_flushed lanes_fma

/* a > b ? a : b, so b where either is NaN. */
LANES_INLINE struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_max_ps(a.v, b.v)};
}

/* a < b ? a : b, so b where either is NaN. */
LANES_INLINE struct lanes lanes_min(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm512_min_ps(a.v, b.v)};
}

/* a * 2^n in two exact steps (the last may round in the subnormals); rounded = n + LANES_ROUND_F32, n in [-150, 128].
 */
LANES_INLINE struct lanes lanes_scale(struct lanes a, struct lanes rounded)
{
    __m512i bias = _mm512_set1_epi32(127);
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(rounded.v), _mm512_set1_epi32(LANES_ROUND_BITS));
    __m512i half = _mm512_srai_epi32(n, 1), rest = _mm512_sub_epi32(n, half);
    __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(half, bias), 23));
    __m512 second = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(rest, bias), 23));
    return (struct lanes){_mm512_mul_ps(_mm512_mul_ps(a.v, first), second)};
}

LANES_INLINE struct lanes lanes_from_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (struct lanes){_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}

LANES_INLINE struct lanes lanes_from_f16(const uint16_t *p)
{
    return (struct lanes){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))};
}

LANES_INLINE struct lanes lanes_from_i8(const int8_t *p)
{
    return (struct lanes){_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)))};
}

LANES_INLINE struct lanes lanes_from_u8(const uint8_t *p)
{
    return (struct lanes){_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)))};
}

/* table[c], c being the low or high half of bytes p[0], p[4], .. p[60]. Up to 3 bytes behind them are read. */
LANES_INLINE struct lanes lanes_from_table(const float table[16], const uint8_t *p, bool high)
{
    __m512i index = _mm512_loadu_si512(p); /* of which four bits count */
    return (struct lanes){_mm512_permutexvar_ps(high ? _mm512_srli_epi32(index, 4) : index, _mm512_loadu_ps(table))};
}

/* c + lanes_halves_bias(high) of the same halves: c is put into the last bits of that power of two. */
LANES_INLINE struct lanes lanes_from_halves(const uint8_t *p, bool high)
{
    __m512i half = _mm512_set1_epi32(high ? 0xf0 : 0xf), power = _mm512_set1_epi32(high ? 0x49000000 : 0x4b000000);
    return (struct lanes){_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_loadu_si512(p), half, power, 0xea))};
}

#elif defined(ASSAY_LANES_AVX2)

#include <immintrin.h>

struct lanes {
    __m256 lo, hi;
};

LANES_INLINE struct lanes lanes_zero(void)
{
    return (struct lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

LANES_INLINE struct lanes lanes_set(float x)
{
    __m256 v = _mm256_set1_ps(x);
    return (struct lanes){v, v};
}

LANES_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

LANES_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

LANES_INLINE struct lanes lanes_add(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

LANES_INLINE struct lanes lanes_sub(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

LANES_INLINE struct lanes lanes_mul(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

LANES_INLINE struct lanes lanes_div(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

LANES_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    return (struct lanes){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

#define lanes_fma_flushed lanes_fma

LANES_INLINE struct lanes lanes_max(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

LANES_INLINE struct lanes lanes_min(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

LANES_INLINE __m256 lanes_scale_half(__m256 a, __m256 rounded)
{
    __m256i bias = _mm256_set1_epi32(127);
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_set1_epi32(LANES_ROUND_BITS));
    __m256i half = _mm256_srai_epi32(n, 1), rest = _mm256_sub_epi32(n, half);
    __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, first), second);
}

LANES_INLINE struct lanes lanes_scale(struct lanes a, struct lanes rounded)
{
    return (struct lanes){lanes_scale_half(a.lo, rounded.lo), lanes_scale_half(a.hi, rounded.hi)};
}

LANES_INLINE __m256 lanes_widen_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

LANES_INLINE struct lanes lanes_from_bf16(const uint16_t *p)
{
    return (struct lanes){lanes_widen_bf16(p), lanes_widen_bf16(p + 8)};
}

LANES_INLINE struct lanes lanes_from_f16(const uint16_t *p)
{
    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

LANES_INLINE struct lanes lanes_from_i8(const int8_t *p)
{
    return (struct lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}

LANES_INLINE struct lanes lanes_from_u8(const uint8_t *p)
{
    return (struct lanes){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}

LANES_INLINE __m256 lanes_table_half(const float table[16], const uint8_t *p, bool high)
{
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p), index = high ? _mm256_srli_epi32(bytes, 4) : bytes;
    __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), index);
    __m256 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), index);
    return _mm256_blendv_ps(first, second, _mm256_castsi256_ps(_mm256_slli_epi32(bytes, high ? 24 : 28)));
}

LANES_INLINE struct lanes lanes_from_table(const float table[16], const uint8_t *p, bool high)
{
    return (struct lanes){lanes_table_half(table, p, high), lanes_table_half(table, p + 32, high)};
}

LANES_INLINE __m256 lanes_biased_half(const uint8_t *p, bool high)
{
    __m256i half = _mm256_set1_epi32(high ? 0xf0 : 0xf), power = _mm256_set1_epi32(high ? 0x49000000 : 0x4b000000);
    __m256i bytes = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(bytes, half), power));
}

LANES_INLINE struct lanes lanes_from_halves(const uint8_t *p, bool high)
{
    return (struct lanes){lanes_biased_half(p, high), lanes_biased_half(p + 32, high)};
}

#else

struct lanes {
    float x[LANES];
};

LANES_INLINE struct lanes lanes_set(float x)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = x;
    return r;
}

LANES_INLINE struct lanes lanes_zero(void)
{
    return lanes_set(0.0f);
}

LANES_INLINE struct lanes lanes_load(const float *p)
{
    struct lanes r;
    memcpy(r.x, p, sizeof r.x);
    return r;
}

LANES_INLINE void lanes_store(float *p, struct lanes a)
{
    memcpy(p, a.x, sizeof a.x);
}

#define LANES_EACH(name, expression)                                                                                   \
    LANES_INLINE struct lanes name(struct lanes a, struct lanes b)                                                     \
    {                                                                                                                  \
        struct lanes r;                                                                                                \
        for (size_t i = 0; i < LANES; i++)                                                                             \
            r.x[i] = (expression);                                                                                     \
        return r;                                                                                                      \
    }
LANES_EACH(lanes_add, a.x[i] + b.x[i])
LANES_EACH(lanes_sub, a.x[i] - b.x[i])
LANES_EACH(lanes_mul, a.x[i] * b.x[i])
LANES_EACH(lanes_div, a.x[i] / b.x[i])
LANES_EACH(lanes_max, a.x[i] > b.x[i] ? a.x[i] : b.x[i])
LANES_EACH(lanes_min, a.x[i] < b.x[i] ? a.x[i] : b.x[i])
#undef LANES_EACH

LANES_INLINE struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = fmaf(a.x[i], b.x[i], c.x[i]);
    return r;
}

/* a * b + c where a subnormal result, seen after rounding to 24 bits, becomes a zero of its sign. c, and a and b if not
 * 0, are normal. Near the border the result is computed again with more room below it. */
LANES_INLINE struct lanes lanes_fma_flushed(struct lanes a, struct lanes b, struct lanes c)
{
    struct lanes r = lanes_fma(a, b, c);
    for (size_t i = 0; i < LANES; i++)
        if (fabsf(r.x[i]) <= 0x1p-126f && fabsf(fmaf(a.x[i] * 0x1p50f, b.x[i] * 0x1p50f, c.x[i] * 0x1p100f)) < 0x1p-26f)
            r.x[i] = copysignf(0.0f, r.x[i]);
    return r;
}

LANES_INLINE float lanes_power(uint32_t biased_exponent)
{
    uint32_t bits = biased_exponent << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

LANES_INLINE struct lanes lanes_scale(struct lanes a, struct lanes rounded)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++) {
        uint32_t bits;
        memcpy(&bits, &rounded.x[i], sizeof bits);
        uint32_t n = bits - LANES_ROUND_BITS, half = n >> 1 | (n & 0x80000000u);
        r.x[i] = a.x[i] * lanes_power(half + 127) * lanes_power(n - half + 127);
    }
    return r;
}

LANES_INLINE struct lanes lanes_from_bf16(const uint16_t *p)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = assay_bf16_to_f32(p[i]);
    return r;
}

LANES_INLINE struct lanes lanes_from_f16(const uint16_t *p)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = assay_f16_to_f32(p[i]);
    return r;
}

LANES_INLINE struct lanes lanes_from_i8(const int8_t *p)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = (float)p[i];
    return r;
}

LANES_INLINE struct lanes lanes_from_u8(const uint8_t *p)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = (float)p[i];
    return r;
}

LANES_INLINE struct lanes lanes_from_table(const float table[16], const uint8_t *p, bool high)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = table[high ? p[4 * i] >> 4 : p[4 * i] & 15];
    return r;
}

LANES_INLINE struct lanes lanes_from_halves(const uint8_t *p, bool high)
{
    struct lanes r;
    for (size_t i = 0; i < LANES; i++)
        r.x[i] = (high ? 0x1p19f : 0x1p23f) + (float)(high ? p[4 * i] >> 4 : p[4 * i] & 15);
    return r;
}

#endif

LANES_INLINE struct lanes lanes_halves_bias(bool high)
{
    return lanes_set(high ? 0x1p19f : 0x1p23f);
}

#if !defined(ASSAY_LANES_AVX512)

/* The first n < 16 floats, zeros behind them. */
LANES_INLINE struct lanes lanes_load_n(const float *p, size_t n)
{
    float all[LANES] = {0};
    memcpy(all, p, n * sizeof *p);
    return lanes_load(all);
}

LANES_INLINE void lanes_store_n(float *p, struct lanes a, size_t n)
{
    float all[LANES];
    lanes_store(all, a);
    memcpy(p, all, n * sizeof *p);
}

#endif

/* Lane i with lane i + 8, then + 4, + 2, + 1. */
LANES_INLINE float lanes_sum(struct lanes a)
{
    float x[LANES];
    lanes_store(x, a);
    for (size_t step = LANES / 2; step > 0; step /= 2)
        for (size_t i = 0; i < step; i++)
            x[i] += x[i + step];
    return x[0];
}

/* The largest lane; NaN may or may not come through. */
LANES_INLINE float lanes_largest(struct lanes a)
{
    float x[LANES];
    lanes_store(x, a);
    for (size_t step = LANES / 2; step > 0; step /= 2)
        for (size_t i = 0; i < step; i++)
            x[i] = x[i] > x[i + step] ? x[i] : x[i + step];
    return x[0];
}

/* e^r - 1 = r + r^2 P(r), |r| <= ln 2 / 2, P interpolating at Chebyshev nodes (7.5e-10 relative). x = n ln 2 + r; *ret
 * becomes n + LANES_ROUND_F32. x in [-104, 89], or NaN. */
LANES_INLINE struct lanes lanes_exp_parts(struct lanes x, struct lanes *ret)
{
    const struct lanes round = lanes_set(LANES_ROUND_F32);
    struct lanes shifted = lanes_fma(x, lanes_set(0x1.715476p+0f), round);
    struct lanes n = lanes_sub(shifted, round);
    struct lanes r = lanes_fma(n, lanes_set(-0x1.62e4p-1f), x); /* ln 2, 15 bits */
    r = lanes_fma(n, lanes_set(-0x1.7f7d1cp-20f), r);           /* the rest of it */
    struct lanes p = lanes_set(0x1.a125f6p-13f);
    p = lanes_fma(p, r, lanes_set(0x1.6d444ap-10f));
    p = lanes_fma(p, r, lanes_set(0x1.1110ep-7f));
    p = lanes_fma(p, r, lanes_set(0x1.5554e8p-5f));
    p = lanes_fma(p, r, lanes_set(0x1.555556p-3f));
    p = lanes_fma(p, r, lanes_set(0x1p-1f));
    *ret = shifted;
    return lanes_fma(p, lanes_mul(r, r), r);
}

/* e^x within ASSAY_EXP_REL of the true value where that is a normal float; 0 for -inf, inf above 88.73, NaN for NaN. */
LANES_INLINE struct lanes lanes_exp(struct lanes x)
{
    struct lanes shifted;
    /* Beyond these the result is 0 or infinity all the same. Written so that NaN comes through. */
    x = lanes_max(lanes_set(-104.0f), x);
    x = lanes_min(lanes_set(89.0f), x);
    struct lanes p = lanes_exp_parts(x, &shifted);
    return lanes_scale(lanes_add(lanes_set(1.0f), p), shifted);
}

/* e^x - 1 within 2 ulp for |x| <= 40; arguments beyond that count as +-40. NaN for NaN. */
LANES_INLINE struct lanes lanes_expm1(struct lanes x)
{
    struct lanes shifted, one = lanes_set(1.0f);
    x = lanes_max(lanes_set(-40.0f), x);
    x = lanes_min(lanes_set(40.0f), x);
    struct lanes p = lanes_exp_parts(x, &shifted), power = lanes_scale(one, shifted);
    return lanes_fma(power, p, lanes_sub(power, one));
}
