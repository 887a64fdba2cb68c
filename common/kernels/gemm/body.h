/* The products' inner loops, written once over lanes.h. The including file defines TILE_ROWS and TILE_LANES: an
 * accumulator of TILE_ROWS x TILE_LANES lanes has to fit the registers. */
#include "common/kernels/kernels.h"
#include "common/kernels/lanes.h"

/* `rows` is a constant where this is inlined. */
LANES_INLINE void tile_fixed(size_t rows, size_t k, const float *a, const float *b, float *c, size_t ldc, bool go_on)
{
    for (size_t j = 0; j < ASSAY_PANEL; j += LANES * TILE_LANES) {
        struct lanes sum[TILE_ROWS][TILE_LANES];
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (size_t l = 0; l < TILE_LANES; l++)
                sum[r][l] = go_on ? lanes_load(c + r * ldc + j + l * LANES) : lanes_zero();
        for (size_t kk = 0; kk < k; kk++) {
            struct lanes w[TILE_LANES];
#pragma GCC unroll 2
            for (size_t l = 0; l < TILE_LANES; l++)
                w[l] = lanes_load(b + kk * ASSAY_PANEL + j + l * LANES);
#pragma GCC unroll 16
            for (size_t r = 0; r < rows; r++) {
                struct lanes x = lanes_set(a[kk * TILE_ROWS + r]);
#pragma GCC unroll 2
                for (size_t l = 0; l < TILE_LANES; l++)
                    sum[r][l] = lanes_fma(x, w[l], sum[r][l]);
            }
        }
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (size_t l = 0; l < TILE_LANES; l++)
                lanes_store(c + r * ldc + j + l * LANES, sum[r][l]);
    }
}

#define TILE_CASE(n)                                                                                                   \
    case n:                                                                                                            \
        tile_fixed(n, k, a, b, c, ldc, go_on);                                                                         \
        return;

static void tile(size_t rows, size_t k, const float *a, const float *b, float *c, size_t ldc, bool go_on)
{
    switch (rows) {
        TILE_CASE(1)
        TILE_CASE(2)
        TILE_CASE(3)
        TILE_CASE(4)
#if TILE_ROWS > 4
        TILE_CASE(5)
        TILE_CASE(6)
#endif
#if TILE_ROWS > 6
        TILE_CASE(7)
        TILE_CASE(8)
        TILE_CASE(9)
        TILE_CASE(10)
        TILE_CASE(11)
        TILE_CASE(12)
#endif
#if TILE_ROWS > 12
        TILE_CASE(13)
        TILE_CASE(14)
#endif
    }
}

static void unpack_bf16(size_t k, const uint16_t *src, float *dst)
{
    for (size_t i = 0; i < k * ASSAY_PANEL; i += LANES)
        lanes_store(dst + i, lanes_from_bf16(src + i));
}

static void unpack_f16(size_t k, const uint16_t *src, float *dst)
{
    for (size_t i = 0; i < k * ASSAY_PANEL; i += LANES)
        lanes_store(dst + i, lanes_from_f16(src + i));
}

static void unpack_i8(size_t k, const int8_t *src, const float *scales, float *dst)
{
    struct lanes low = lanes_load(scales), high = lanes_load(scales + LANES);
    for (size_t i = 0; i < k * ASSAY_PANEL; i += ASSAY_PANEL) {
        lanes_store(dst + i, lanes_mul(lanes_from_i8(src + i), low));
        lanes_store(dst + i + LANES, lanes_mul(lanes_from_i8(src + i + LANES), high));
    }
}

#define GEMM_OPS                                                                                                       \
    {                                                                                                                  \
        .tile_rows = TILE_ROWS, .tile = tile, .unpack_bf16 = unpack_bf16, .unpack_f16 = unpack_f16,                    \
        .unpack_i8 = unpack_i8                                                                                         \
    }
