/* int8 per channel (row), symmetric, as compressed-tensors does it ("int-quantized", strategy channel).
 * Source: compressed-tensors quantization/utils: scale = max|row| / 127.5, and FLT_EPSILON where that is 0 (rows of
 * tiny weights keep their tiny scale); q = round_half_even(clamp(x / scale, -128, 127)); x' = q * scale. All in f32.
 * Reference functions: they define what the kernels must give. Any thread. */
#pragma once

#include "common/base/status.h"

/* codes[rows, cols], scales[rows] from weights[rows, cols]. NaN or infinity in the row: INVALID_ARGUMENT, names row and
 * column. */
enum assay_status assay_int8_encode(const float *weights, size_t rows, size_t cols, int8_t *codes, float *scales,
                                    struct assay_err *err) ASSAY_MUST_USE;
void assay_int8_decode(const int8_t *codes, const float *scales, size_t rows, size_t cols, float *weights);
