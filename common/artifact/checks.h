/* Passes over weights, in loops that compilers turn into vectors. Any thread. */
#pragma once

#include "common/base/dtype.h"

/* n elements of F32, F16 or BF16 to f32, as assay_dtype_to_f32. */
void assay_widen(enum assay_dtype dtype, const void *src, size_t n, float *dst);

bool assay_all_finite(const float *weights, size_t n);

/* Sums in float64; x is the source and y what the codes stand for. */
struct assay_block_sums {
    double xx, yy, xy, difference_squared, difference_max;
};

/* Their order depends on n alone. */
void assay_block_sums(const float *source, const float *decoded, size_t n, struct assay_block_sums *ret);
