/* int4 by groups within a row, asymmetric, as compressed-tensors does it ("pack-quantized", strategy group or channel).
 *
 * Source: compressed-tensors quantization/utils: lo = min(0, x), hi = max(0, x) of the group; scale = (hi - lo) / 15;
 * zero = round(clamp(-8 - lo / scale, -8, 7)), and 0 for 0 / 0; then a scale of 0 becomes FLT_EPSILON;
 * q = round(clamp(x / scale + zero, -8, 7)); x' = (q - zero) * scale. All in f32, rounding half to even.
 *
 * Layouts: codes are q + 8, eight to a word, the first in the low bits, rows padded with 0 to whole words; zero points
 * are zero + 8, eight rows to a word in the same way.
 *
 * Reference functions: they define what the kernels must give. Any thread. */
#pragma once

#include "common/base/status.h"

/* A matrix [rows, cols] in groups of `group` elements of a row: a multiple of 8, or at least cols. The last group of a
 * row may be shorter. */
struct assay_int4_shape {
    size_t rows, cols, group;
};

size_t assay_int4_groups(const struct assay_int4_shape *shape); /* a row */
size_t assay_int4_words(const struct assay_int4_shape *shape);  /* codes of a row */
size_t assay_int4_zero_words(
    const struct assay_int4_shape *shape); /* zero points of the matrix: ceil(rows / 8) * groups */

/* codes[rows, words], scales[rows, groups], zeros[ceil(rows / 8), groups]. NaN or infinity: INVALID_ARGUMENT, names row
 * and column. */
enum assay_status assay_int4_encode(const float *weights, const struct assay_int4_shape *shape, uint32_t *codes,
                                    float *scales, uint32_t *zeros, struct assay_err *err) ASSAY_MUST_USE;
/* zeros is NULL for a symmetric matrix: every zero point is 0. */
void assay_int4_decode(const uint32_t *codes, const float *scales, const uint32_t *zeros,
                       const struct assay_int4_shape *shape, float *weights);

/* The group size of a model: the largest of 128, 64 and 32 that divides every row length; ASSAY_GROUP_CHANNEL when none
 * does. */
uint32_t assay_int4_group_size(const size_t *cols, size_t count);
