/* As decode.h, with operands that are rounded to bf16: two values of k a step, the first in the high halves, since
 * vdpbf16ps adds its product first. */
#pragma once

#include "common/kernels/gemm/decode.h"

/* Both rounded to nearest even, `first` in the high half of each word. */
LANES_INLINE __m512i decode_pair(struct lanes first, struct lanes second)
{
    const __m512i turn = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                          21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(turn, (__m512i)_mm512_cvtne2ps_pbh(first.v, second.v));
}

/* Values kk and kk + 1 of row r of A in every word; 0 behind the last. */
LANES_INLINE __m512i decode_activation(const struct assay_decode *d, size_t r, size_t kk, bool alone)
{
    const float *a = d->a + r * d->lda + kk;
    return decode_pair(lanes_set(a[0]), alone ? lanes_zero() : lanes_set(a[1]));
}

LANES_INLINE struct lanes decode_step(struct lanes sum, __m512i a, __m512i w)
{
    return (struct lanes){_mm512_dpbf16_ps(sum.v, (__m512bh)a, (__m512bh)w)};
}

/* Weights that are bf16 already are only interleaved, within 16 bytes each: the sums' columns lie in the order that
 * this makes, columns 8 q + i, i < 4, in the first lanes and 8 q + 4 + i in the second ones. */
LANES_INLINE void decode_order(bool back, size_t rows, size_t panels, struct lanes sum[DECODE_ROWS][2][2])
{
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t p = 0; p < panels; p++) {
            __m512 x = sum[r][p][0].v, y = sum[r][p][1].v;
            if (back) {
                __m512 low = _mm512_shuffle_f32x4(x, y, 0x44), high = _mm512_shuffle_f32x4(x, y, 0xee);
                sum[r][p][0].v = _mm512_shuffle_f32x4(low, low, 0xd8);
                sum[r][p][1].v = _mm512_shuffle_f32x4(high, high, 0xd8);
            } else {
                sum[r][p][0].v = _mm512_shuffle_f32x4(x, y, 0x88);
                sum[r][p][1].v = _mm512_shuffle_f32x4(x, y, 0xdd);
            }
        }
}

/* `rows` and `panels` are constants where these are inlined. */
LANES_INLINE void decode_bf16_pair(bool alone, size_t rows, size_t panels, const struct assay_decode *d, size_t kk,
                                   struct lanes sum[DECODE_ROWS][2][2])
{
    const unsigned char *at = (const unsigned char *)d->data + kk * d->step_bytes;
    __m512i a[DECODE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++)
        a[r] = decode_activation(d, r, kk, alone);
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++) {
        const unsigned char *from = at + p * d->panel_bytes;
        __m512i first = _mm512_loadu_si512(from);
        __m512i second = alone ? _mm512_setzero_si512() : _mm512_loadu_si512(from + d->step_bytes);
        __m512i low = _mm512_unpacklo_epi16(second, first), high = _mm512_unpackhi_epi16(second, first);
        __builtin_prefetch(from + AHEAD);
        __builtin_prefetch(from + AHEAD + ASSAY_BLOCK_BYTES);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            sum[r][p][0] = decode_step(sum[r][p][0], a[r], low);
            sum[r][p][1] = decode_step(sum[r][p][1], a[r], high);
        }
    }
}

LANES_INLINE void decode_bf16_stored(enum assay_weights type, size_t rows, size_t panels, const struct assay_decode *d)
{
    (void)type;
    struct lanes sum[DECODE_ROWS][2][2];
    decode_begin(rows, panels, d, sum);
    decode_order(false, rows, panels, sum);
    size_t kk = 0;
    for (; kk + 2 <= d->k; kk += 2)
        decode_bf16_pair(false, rows, panels, d, kk, sum);
    if (kk < d->k)
        decode_bf16_pair(true, rows, panels, d, kk, sum);
    decode_order(true, rows, panels, sum);
    decode_end(rows, panels, d, sum);
}

LANES_INLINE void decode_bf16_fixed(enum assay_weights type, size_t rows, size_t panels, const struct assay_decode *d)
{
    struct lanes sum[DECODE_ROWS][2][2];
    const unsigned char *at = d->data;
    decode_begin(rows, panels, d, sum);
    for (size_t kk = 0; kk < d->k; kk += 2, at += 2 * d->step_bytes) {
        bool alone = kk + 1 == d->k;
        __m512i a[DECODE_ROWS];
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++)
            a[r] = decode_activation(d, r, kk, alone);
#pragma GCC unroll 2
        for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
            for (size_t l = 0; l < 2; l++) {
                const unsigned char *from = at + p * d->panel_bytes;
                struct lanes scale =
                    type == ASSAY_WEIGHTS_I8 ? lanes_load(d->scales + p * d->scales_panel + l * LANES) : lanes_zero();
                struct lanes first = decode_weights(type, from, l, scale);
                struct lanes second = alone ? lanes_zero() : decode_weights(type, from + d->step_bytes, l, scale);
                __m512i w = decode_pair(first, second);
                __builtin_prefetch(from + AHEAD);
#pragma GCC unroll 4
                for (size_t r = 0; r < rows; r++)
                    sum[r][p][l] = decode_step(sum[r][p][l], a[r], w);
            }
    }
    decode_end(rows, panels, d, sum);
}

/* Values kk and kk + 1 of k; `at` is the byte of the first one in the first panel's block. */
LANES_INLINE void decode_bf16_codes_at(bool table, bool alone, size_t rows, size_t panels, const struct assay_decode *d,
                                       const struct decode_group *g, const uint8_t *at, size_t kk,
                                       struct lanes sum[DECODE_ROWS][2][2])
{
    __m512i a[DECODE_ROWS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++)
        a[r] = decode_activation(d, r, kk, alone);
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++) {
            const uint8_t *from = at + p * d->panel_bytes;
            struct lanes first = decode_code(table, d, g, p, l, from);
            struct lanes second = alone ? lanes_zero() : decode_code(table, d, g, p, l, from + 1);
            __m512i w = decode_pair(first, second);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                sum[r][p][l] = decode_step(sum[r][p][l], a[r], w);
        }
}

LANES_INLINE void decode_bf16_codes(bool table, size_t rows, size_t panels, const struct assay_decode *d)
{
    struct lanes sum[DECODE_ROWS][2][2];
    const uint8_t *at = d->data;
    decode_begin(rows, panels, d, sum);
    for (size_t begin = 0, group = 0; begin < d->k; begin += d->group, group++) {
        struct decode_group g;
        size_t kk = begin, end = ASSAY_MIN(begin + d->group, d->k);
        decode_group_read(table, panels, d, group, &g);
        for (; kk + 4 <= end; kk += 4, at += d->step_bytes) {
#pragma GCC unroll 2
            for (size_t p = 0; p < panels; p++)
                __builtin_prefetch(at + p * d->panel_bytes + AHEAD);
            decode_bf16_codes_at(table, false, rows, panels, d, &g, at, kk, sum);
            decode_bf16_codes_at(table, false, rows, panels, d, &g, at + 2, kk + 2, sum);
        }
        if (kk + 2 <= end)
            decode_bf16_codes_at(table, false, rows, panels, d, &g, at, kk, sum);
        if ((end - kk) % 2 != 0)
            decode_bf16_codes_at(table, true, rows, panels, d, &g, at + (end - kk - 1), end - 1, sum);
    }
    decode_end(rows, panels, d, sum);
}

static void decode_bf16(const struct assay_decode *d)
{
    switch (d->type) {
        DECODE_CASE(ASSAY_WEIGHTS_F32, decode_bf16_fixed, ASSAY_WEIGHTS_F32)
        DECODE_CASE(ASSAY_WEIGHTS_BF16, decode_bf16_stored, ASSAY_WEIGHTS_BF16)
        DECODE_CASE(ASSAY_WEIGHTS_F16, decode_bf16_fixed, ASSAY_WEIGHTS_F16)
        DECODE_CASE(ASSAY_WEIGHTS_I8, decode_bf16_fixed, ASSAY_WEIGHTS_I8)
        DECODE_CASE(ASSAY_WEIGHTS_TABLE4, decode_bf16_codes, true)
        DECODE_CASE(ASSAY_WEIGHTS_INT4, decode_bf16_codes, false)
    }
}
