/* nf4: blocks of the flat row-major tensor (they cross rows), as bitsandbytes does it.
 *
 * Source: bitsandbytes functional.py and backends/default/ops.py: absmax = max|x| of the block; code = number of
 * middles between neighbours of the table below x * (1 / absmax), reciprocal first; the last block divides instead when
 * it is shorter; x' = table[code] * absmax. All in f32. Two codes a byte, the first in the high nibble; an odd count is
 * padded with the code of 0.
 *
 * Double quantization: offset = mean of absmax; absmax - offset is quantized by blocks of 256 to the nearest of 256
 * values (a tie goes to the lower one); absmax' = value * absmax2 + offset.
 *
 * Reference functions: they define what the kernels must give. Any thread. */
#pragma once

#include "common/base/status.h"

#define ASSAY_NF4_BLOCK 64
#define ASSAY_NF4_NESTED_BLOCK 256

extern const float assay_nf4_table[16];

size_t assay_nf4_blocks(size_t count, size_t block);
size_t assay_nf4_bytes(size_t count);

/* packed[bytes], absmax[blocks] of weights[count]; block is even. NaN or infinity: INVALID_ARGUMENT, names the element.
 */
enum assay_status assay_nf4_encode(const float *weights, size_t count, size_t block, uint8_t *packed, float *absmax,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_nf4_decode(const uint8_t *packed, const float *absmax, size_t count, size_t block, float *weights);

/* The 256 values that scales are quantized to, ascending: bitsandbytes' signed "dynamic map". */
void assay_nested_map(float map[256]);

/* codes[count], absmax2[ceil(count / 256)] and the offset of finite absmax[count] >= 0. */
void assay_nested_encode(const float *absmax, size_t count, const float map[256], uint8_t *codes, float *absmax2,
                         float *ret_offset);
void assay_nested_decode(const uint8_t *codes, const float *absmax2, size_t count, size_t block, const float map[256],
                         float offset, float *absmax);
