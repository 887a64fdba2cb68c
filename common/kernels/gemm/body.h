/* The products' inner loops, written once over lanes.h. The including file defines TILE_ROWS and TILE_LANES: an
 * accumulator of TILE_ROWS x TILE_LANES lanes has to fit the registers. */
#if defined(ASSAY_GEMM_DPBF16)
#include "common/kernels/gemm/decode_bf16.h"
#else
#include "common/kernels/gemm/decode.h"
#endif
#include "common/kernels/kernels.h"
#include "common/kernels/lanes.h"

/* `rows` and `flush` (subnormal results become zeros, where the processor cannot be told) are constants where this is
 * inlined. */
LANES_INLINE void tile_fixed(size_t rows, bool flush, size_t k, const float *a, const float *b, float *c, size_t ldc,
                             bool go_on)
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
                    sum[r][l] = flush ? lanes_fma_flushed(x, w[l], sum[r][l]) : lanes_fma(x, w[l], sum[r][l]);
            }
        }
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (size_t l = 0; l < TILE_LANES; l++)
                lanes_store(c + r * ldc + j + l * LANES, sum[r][l]);
    }
}

#if TILE_ROWS > 12
#define TILE_CASES(CASE)                                                                                               \
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#elif TILE_ROWS > 4
#define TILE_CASES(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#else
#define TILE_CASES(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#endif

#define TILE_F32(n)                                                                                                    \
    case n:                                                                                                            \
        tile_fixed(n, false, k, a, b, c, ldc, go_on);                                                                  \
        return;

/* Not inlined: no step may move out of a stretch of code that flushes subnormals. */
static __attribute__((noinline)) void tile(size_t rows, size_t k, const float *a, const float *b, float *c, size_t ldc,
                                           bool go_on)
{
    switch (rows) {
        TILE_CASES(TILE_F32)
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

static void unpack_table4(size_t k, const uint8_t *src, size_t stride, const float table[16], const float *scales,
                          float *dst)
{
    struct lanes low = lanes_load(scales), high = lanes_load(scales + LANES);
    for (size_t kk = 0; kk < k; kk++, dst += ASSAY_PANEL) {
        const uint8_t *at = src + kk / 4 * stride + kk % 4;
        lanes_store(dst, lanes_mul(lanes_from_table(table, at, false), low));
        lanes_store(dst + LANES, lanes_mul(lanes_from_table(table, at, true), high));
    }
}

static void unpack_int4(size_t k, const uint8_t *src, size_t stride, const float *zeros, const float *scales,
                        float *dst)
{
    struct lanes low = lanes_load(scales), high = lanes_load(scales + LANES);
    struct lanes zero_low = lanes_add(lanes_load(zeros), lanes_halves_bias(false));
    struct lanes zero_high = lanes_add(lanes_load(zeros + LANES), lanes_halves_bias(true));
    for (size_t kk = 0; kk < k; kk++, dst += ASSAY_PANEL) {
        const uint8_t *at = src + kk / 4 * stride + kk % 4;
        lanes_store(dst, lanes_mul(lanes_sub(lanes_from_halves(at, false), zero_low), low));
        lanes_store(dst + LANES, lanes_mul(lanes_sub(lanes_from_halves(at, true), zero_high), high));
    }
}

#if defined(ASSAY_GEMM_DPBF16)
/* vdpbf16ps adds the product of the high halves first, each product in one fused step. So the even k goes there. */
static void to_bf16(size_t k, size_t width, const float *src, void *dst)
{
    uint32_t *pairs = dst;
    for (size_t kk = 0; kk < k; kk += 2, src += 2 * width, pairs += width)
        for (size_t j = 0; j < width; j += LANES) {
            __mmask16 mask = width - j < LANES ? (__mmask16)((1u << (width - j)) - 1) : 0xffff;
            __mmask16 second = kk + 1 < k ? mask : 0;
            __m256i high = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, src + j));
            __m256i low = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(second, src + width + j));
            __m512i pair =
                _mm512_or_si512(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16), _mm512_cvtepu16_epi32(low));
            _mm512_mask_storeu_epi32(pairs + j, mask, pair);
        }
}

LANES_INLINE void tile_bf16_fixed(size_t rows, size_t pairs, const uint32_t *a, const uint32_t *b, float *c, size_t ldc,
                                  bool go_on)
{
    __m512 sum[TILE_ROWS][TILE_LANES];
#pragma GCC unroll 16
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t l = 0; l < TILE_LANES; l++)
            sum[r][l] = go_on ? _mm512_loadu_ps(c + r * ldc + l * LANES) : _mm512_setzero_ps();
    for (size_t p = 0; p < pairs; p++) {
        __m512bh w[TILE_LANES];
#pragma GCC unroll 2
        for (size_t l = 0; l < TILE_LANES; l++)
            w[l] = (__m512bh)_mm512_loadu_si512(b + p * ASSAY_PANEL + l * LANES);
#pragma GCC unroll 16
        for (size_t r = 0; r < rows; r++) {
            __m512bh x = (__m512bh)_mm512_set1_epi32((int)a[p * TILE_ROWS + r]);
#pragma GCC unroll 2
            for (size_t l = 0; l < TILE_LANES; l++)
                sum[r][l] = _mm512_dpbf16_ps(sum[r][l], x, w[l]);
        }
    }
#pragma GCC unroll 16
    for (size_t r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (size_t l = 0; l < TILE_LANES; l++)
            _mm512_storeu_ps(c + r * ldc + l * LANES, sum[r][l]);
}

#define TILE_BF16(n)                                                                                                   \
    case n:                                                                                                            \
        tile_bf16_fixed(n, (k + 1) / 2, a, b, c, ldc, go_on);                                                          \
        return;

static void tile_bf16(size_t rows, size_t k, const void *a, const void *b, float *c, size_t ldc, bool go_on)
{
    switch (rows) {
        TILE_CASES(TILE_BF16)
    }
}

#define BF16_BYTES 2
#define DECODE_BF16 decode_bf16
#else
static inline uint32_t bf16_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    rounded = (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded;
    return (bits & 0x7f800000) ? rounded & 0xffff0000 : bits & 0x80000000;
}

static void to_bf16(size_t k, size_t width, const float *src, void *dst)
{
    uint32_t *rounded = dst;
    for (size_t i = 0; i < k * width; i++)
        rounded[i] = bf16_bits(src[i]);
    if (k % 2 != 0)
        memset(rounded + k * width, 0, width * sizeof *rounded);
}

#if defined(ASSAY_LANES_AVX512) || defined(ASSAY_LANES_AVX2)
#define MXCSR_FLUSH 0x8040u /* results and operands that are subnormal are zeros */

static void tile_bf16(size_t rows, size_t k, const void *a, const void *b, float *c, size_t ldc, bool go_on)
{
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | MXCSR_FLUSH);
    tile(rows, k + k % 2, a, b, c, ldc, go_on);
    _mm_setcsr(before);
}
#else
#define TILE_FLUSHED(n)                                                                                                \
    case n:                                                                                                            \
        tile_fixed(n, true, k + k % 2, a, b, c, ldc, go_on);                                                           \
        return;

static void tile_bf16(size_t rows, size_t k, const void *a, const void *b, float *c, size_t ldc, bool go_on)
{
    switch (rows) {
        TILE_CASES(TILE_FLUSHED)
    }
}
#endif

#define BF16_BYTES 4
#define DECODE_BF16 NULL
#endif

#define GEMM_OPS                                                                                                       \
    {                                                                                                                  \
        .tile_rows = TILE_ROWS, .tile = tile, .unpack_bf16 = unpack_bf16, .unpack_f16 = unpack_f16,                    \
        .unpack_i8 = unpack_i8, .unpack_table4 = unpack_table4, .unpack_int4 = unpack_int4, .bf16_bytes = BF16_BYTES,  \
        .to_bf16 = to_bf16, .tile_bf16 = tile_bf16, .decode_rows = DECODE_ROWS, .decode_panels = ABREAST,              \
        .decode = decode, .decode_bf16 = DECODE_BF16                                                                   \
    }
