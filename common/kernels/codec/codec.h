/* Encoding, decoding and comparing weights: common/quant's loops and passes over whole blocks of rows, compiled for
 * each instruction set. Every path gives the bits of common/quant. Nothing outside the stated elements is read or
 * written; inputs and outputs do not overlap. Any thread. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/quant/int4.h"

/* Sums in float64; x is the source and y what the codes stand for. In four lanes, which are added from the first. */
#define ASSAY_ERROR_LANES 4
struct assay_error_sums {
    double xx[ASSAY_ERROR_LANES], yy[ASSAY_ERROR_LANES], xy[ASSAY_ERROR_LANES];
    double difference_squared[ASSAY_ERROR_LANES], difference_max[ASSAY_ERROR_LANES];
};

struct assay_codec_ops {
    /* As the functions of common/quant. */
    enum assay_status (*int8_encode)(const float *weights, size_t rows, size_t cols, int8_t *codes, float *scales,
                                     struct assay_err *err);
    void (*int8_decode)(const int8_t *codes, const float *scales, size_t rows, size_t cols, float *weights);
    enum assay_status (*int4_encode)(const float *weights, const struct assay_int4_shape *shape, uint32_t *codes,
                                     float *scales, uint32_t *zeros, struct assay_err *err);
    void (*int4_decode)(const uint32_t *codes, const float *scales, const uint32_t *zeros,
                        const struct assay_int4_shape *shape, float *weights);
    enum assay_status (*nf4_encode)(const float *weights, size_t count, size_t block, uint8_t *packed, float *absmax,
                                    struct assay_err *err);
    void (*nf4_decode)(const uint8_t *packed, const float *absmax, size_t count, size_t block, float *weights);
    /* n elements of F32, F16 or BF16 to f32, as assay_dtype_to_f32. No alignment is assumed of src. */
    void (*widen)(enum assay_dtype dtype, const void *src, size_t n, float *dst);
    /* Adds element i to lane i % 4. Pieces of a multiple of 4 elements, the last of any number, give what all of them
     * in one call do. */
    void (*add_errors)(const float *source, const float *decoded, size_t n, struct assay_error_sums *sums);
};

/* The table of a path. */
const struct assay_codec_ops *assay_codec_ops(const struct assay_kernels *kernels);
