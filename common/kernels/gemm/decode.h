/* One or two rows of A straight from packed weights: no panel is unpacked to memory, and several panels are under way
 * at once, so that neither the latency of a chain of multiply-adds nor that of memory is waited for. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/kernels/lanes.h"

/* Panels side by side for one row; two rows take half of them. Their sums have to fit the registers. */
#if defined(ASSAY_LANES_AVX512)
#define ABREAST 4
#else
#define ABREAST 2
#endif
/* Bytes ahead of the one that is read. */
#define AHEAD 2048

/* Values of columns [16 l, 16 l + 16) at one k of a panel: what `unpack` would write. */
LANES_INLINE struct lanes decode_weights(enum assay_weights type, const unsigned char *at, size_t l, const float *table,
                                         struct lanes scale, struct lanes zero)
{
    switch (type) {
    case ASSAY_WEIGHTS_F32:
        return lanes_load((const float *)(const void *)at + l * LANES);
    case ASSAY_WEIGHTS_BF16:
        return lanes_from_bf16((const uint16_t *)(const void *)at + l * LANES);
    case ASSAY_WEIGHTS_F16:
        return lanes_from_f16((const uint16_t *)(const void *)at + l * LANES);
    case ASSAY_WEIGHTS_I8:
        return lanes_mul(lanes_from_i8((const int8_t *)at + l * LANES), scale);
    case ASSAY_WEIGHTS_TABLE4:
        return lanes_mul(lanes_from_table(table, at, l == 1), scale);
    case ASSAY_WEIGHTS_INT4:
        return lanes_mul(lanes_sub(lanes_from_halves(at, l == 1), zero), scale);
    }
    return lanes_zero();
}

/* `type`, `rows` and `panels` are constants where this is inlined. */
LANES_INLINE void decode_fixed(enum assay_weights type, size_t rows, size_t panels, const struct assay_decode *d)
{
    struct lanes sum[2][ABREAST][2], scale[ABREAST][2], zero[ABREAST][2];
    const unsigned char *at = d->data;
#pragma GCC unroll 4
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++) {
            scale[p][l] = d->scales ? lanes_load(d->scales + p * ASSAY_PANEL + l * LANES) : lanes_zero();
            zero[p][l] = d->zeros ? lanes_load(d->zeros + p * ASSAY_PANEL + l * LANES) : lanes_zero();
#pragma GCC unroll 2
            for (size_t r = 0; r < rows; r++)
                sum[r][p][l] = lanes_load(d->c + r * d->ldc + p * ASSAY_PANEL + l * LANES);
        }
    for (size_t kk = 0; kk < d->k; kk++, at += d->step_bytes) {
#pragma GCC unroll 4
        for (size_t p = 0; p < panels; p++) {
            const unsigned char *from = at + p * d->panel_bytes;
            __builtin_prefetch(from + AHEAD);
#pragma GCC unroll 2
            for (size_t l = 0; l < 2; l++) {
                struct lanes w = decode_weights(type, from, l, d->table, scale[p][l], zero[p][l]);
#pragma GCC unroll 2
                for (size_t r = 0; r < rows; r++)
                    sum[r][p][l] = lanes_fma(lanes_set(d->a[r * d->lda + kk]), w, sum[r][p][l]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < panels; p++)
#pragma GCC unroll 2
        for (size_t l = 0; l < 2; l++)
#pragma GCC unroll 2
            for (size_t r = 0; r < rows; r++)
                lanes_store(d->c + r * d->ldc + p * ASSAY_PANEL + l * LANES, sum[r][p][l]);
}

#define DECODE_CASE(type)                                                                                              \
    case type:                                                                                                         \
        if (d->rows == 2 && d->panels == 1)                                                                            \
            decode_fixed(type, 2, 1, d);                                                                               \
        else if (d->rows == 2)                                                                                         \
            decode_fixed(type, 2, ABREAST / 2, d);                                                                     \
        else if (d->panels == 1)                                                                                       \
            decode_fixed(type, 1, 1, d);                                                                               \
        else                                                                                                           \
            decode_fixed(type, 1, ABREAST, d);                                                                         \
        return;

static void decode(const struct assay_decode *d)
{
    switch (d->type) {
        DECODE_CASE(ASSAY_WEIGHTS_F32)
        DECODE_CASE(ASSAY_WEIGHTS_BF16)
        DECODE_CASE(ASSAY_WEIGHTS_F16)
        DECODE_CASE(ASSAY_WEIGHTS_I8)
        DECODE_CASE(ASSAY_WEIGHTS_TABLE4)
        DECODE_CASE(ASSAY_WEIGHTS_INT4)
    }
}
