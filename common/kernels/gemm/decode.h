/* A few rows of A straight from packed weights: no panel is unpacked to memory, and several panels are under way
 * at once, so that neither the latency of a chain of multiply-adds nor that of memory is waited for. */
#pragma once

#include "common/kernels/gemm/panels.h"
#include "common/kernels/lanes.h"

/* Most rows, and panels side by side for one row, for two and so on: sums have to fit the registers, and more panels
 * are more streams than are fetched ahead. */
#if defined(ASSAY_LANES_AVX512)
#define DECODE_ROWS 4
#define ABREAST                                                                                                        \
    {                                                                                                                  \
        2, 2, 2, 2                                                                                                     \
    }
#else
#define DECODE_ROWS 2
#define ABREAST                                                                                                        \
    {                                                                                                                  \
        2, 1                                                                                                           \
    }
#endif
/* Bytes ahead of the one that is read. */
#define AHEAD 2048

/* Values of columns [16 l, 16 l + 16) at one k of a panel: what `unpack` would write. */
LANES_INLINE struct lanes decode_weights(enum assay_weights type, const unsigned char *at, size_t l, struct lanes scale)
{
    switch (type) {
    case ASSAY_WEIGHTS_F32:
        return lanes_load((const float *)(const void *)at + l * LANES);
    case ASSAY_WEIGHTS_BF16:
        return lanes_from_bf16((const uint16_t *)(const void *)at + l * LANES);
    case ASSAY_WEIGHTS_F16:
        return lanes_from_f16((const uint16_t *)(const void *)at + l * LANES);
    default:
        return lanes_mul(lanes_from_i8((const int8_t *)at + l * LANES), scale);
    }
}

LANES_INLINE void decode_begin(size_t rows, size_t panels, const struct assay_decode *d,
                               struct lanes sum[DECODE_ROWS][2][2])
{
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++)
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                sum[r][p][l] = lanes_load(d->c + r * d->ldc + p * ASSAY_PANEL + l * LANES);
}

LANES_INLINE void decode_end(size_t rows, size_t panels, const struct assay_decode *d,
                             struct lanes sum[DECODE_ROWS][2][2])
{
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++)
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                lanes_store(d->c + r * d->ldc + p * ASSAY_PANEL + l * LANES, sum[r][p][l]);
}

/* `type`, `rows` and `panels` are constants where this is inlined. */
LANES_INLINE void decode_fixed(enum assay_weights type, size_t rows, size_t panels, const struct assay_decode *d)
{
    struct lanes sum[DECODE_ROWS][2][2], scale[2][2];
    const unsigned char *at = d->data;
    decode_begin(rows, panels, d, sum);
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++)
            scale[p][l] =
                type == ASSAY_WEIGHTS_I8 ? lanes_load(d->scales + p * d->scales_panel + l * LANES) : lanes_zero();
    for (size_t kk = 0; kk < d->k; kk++, at += d->step_bytes) {
#pragma GCC unroll 2
        for (size_t p = 0; p < panels; p++) {
            const unsigned char *from = at + p * d->panel_bytes;
            __builtin_prefetch(from + AHEAD);
#pragma GCC unroll 2
            for (size_t l = 0; l < 2; l++) {
                struct lanes w = decode_weights(type, from, l, scale[p][l]);
#pragma GCC unroll 4
                for (size_t r = 0; r < rows; r++)
                    sum[r][p][l] = lanes_fma(lanes_set(d->a[r * d->lda + kk]), w, sum[r][p][l]);
            }
        }
    }
    decode_end(rows, panels, d, sum);
}

/* --- 4 bits --- */

/* Scales of a group, and what is taken from its codes. */
struct decode_group {
    struct lanes scale[2][2], zero[2][2];
};

LANES_INLINE void decode_group_read(bool table, size_t panels, const struct assay_decode *d, size_t group,
                                    struct decode_group *ret)
{
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++) {
            size_t at = p * d->scales_panel + group * ASSAY_PANEL + l * LANES;
            ret->scale[p][l] = lanes_load(d->scales + at);
            ret->zero[p][l] = table ? lanes_zero() : lanes_add(lanes_from_u8(d->zeros + at), lanes_halves_bias(l == 1));
        }
}

/* Values at one k of columns [16 l, 16 l + 16) of panel p: `at` is its byte in the panel's block. */
LANES_INLINE struct lanes decode_code(bool table, const struct assay_decode *d, const struct decode_group *g, size_t p,
                                      size_t l, const uint8_t *at)
{
    struct lanes w =
        table ? lanes_from_table(d->table, at, l == 1) : lanes_sub(lanes_from_halves(at, l == 1), g->zero[p][l]);
    return lanes_mul(w, g->scale[p][l]);
}

/* One k: `at` is its byte in the first panel's block. */
LANES_INLINE void decode_codes_at(bool table, size_t rows, size_t panels, const struct assay_decode *d,
                                  const struct decode_group *g, const uint8_t *at, const float *a,
                                  struct lanes sum[DECODE_ROWS][2][2])
{
#pragma GCC unroll 2
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++) {
            struct lanes w = decode_code(table, d, g, p, l, at + p * d->panel_bytes);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++)
                sum[r][p][l] = lanes_fma(lanes_set(a[r * d->lda]), w, sum[r][p][l]);
        }
}

/* `table`, `rows` and `panels` are constants where this is inlined. */
LANES_INLINE void decode_codes_fixed(bool table, size_t rows, size_t panels, const struct assay_decode *d)
{
    struct lanes sum[DECODE_ROWS][2][2];
    const uint8_t *at = d->data;
    const float *a = d->a;
    decode_begin(rows, panels, d, sum);
    for (size_t begin = 0, group = 0; begin < d->k; begin += d->group, group++) {
        struct decode_group g;
        size_t count = ASSAY_MIN(d->k - begin, d->group);
        decode_group_read(table, panels, d, group, &g);
        for (; count >= 4; count -= 4, at += d->step_bytes, a += 4) {
#pragma GCC unroll 2
            for (size_t p = 0; p < panels; p++)
                __builtin_prefetch(at + p * d->panel_bytes + AHEAD);
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                decode_codes_at(table, rows, panels, d, &g, at + i, a + i, sum);
        }
        for (size_t i = 0; i < count; i++)
            decode_codes_at(table, rows, panels, d, &g, at + i, a + i, sum);
    }
    decode_end(rows, panels, d, sum);
}

#define DECODE_ROWS_CASE(n, call, kind)                                                                                \
    case n:                                                                                                            \
        if (d->panels == 2)                                                                                            \
            call(kind, n, 2, d);                                                                                       \
        else                                                                                                           \
            call(kind, n, 1, d);                                                                                       \
        return;

#if DECODE_ROWS == 4
#define DECODE_MORE_ROWS(call, kind) DECODE_ROWS_CASE(3, call, kind) DECODE_ROWS_CASE(4, call, kind)
#else
#define DECODE_MORE_ROWS(call, kind)
#endif

#define DECODE_CASE(type, call, kind)                                                                                  \
    case type:                                                                                                         \
        switch (d->rows) {                                                                                             \
            DECODE_ROWS_CASE(1, call, kind)                                                                            \
            DECODE_ROWS_CASE(2, call, kind)                                                                            \
            DECODE_MORE_ROWS(call, kind)                                                                               \
        }                                                                                                              \
        return;

static void decode(const struct assay_decode *d)
{
    switch (d->type) {
        DECODE_CASE(ASSAY_WEIGHTS_F32, decode_fixed, ASSAY_WEIGHTS_F32)
        DECODE_CASE(ASSAY_WEIGHTS_BF16, decode_fixed, ASSAY_WEIGHTS_BF16)
        DECODE_CASE(ASSAY_WEIGHTS_F16, decode_fixed, ASSAY_WEIGHTS_F16)
        DECODE_CASE(ASSAY_WEIGHTS_I8, decode_fixed, ASSAY_WEIGHTS_I8)
        DECODE_CASE(ASSAY_WEIGHTS_TABLE4, decode_codes_fixed, true)
        DECODE_CASE(ASSAY_WEIGHTS_INT4, decode_codes_fixed, false)
    }
}
