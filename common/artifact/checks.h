/* Passes over weights, in loops that compilers turn into vectors. Any thread. */
#pragma once

#include <stdbool.h>

#include "common/base/macros.h"

bool assay_all_finite(const float *weights, size_t n);

/* Sums in float64; x is the source and y what the codes stand for. */
struct assay_block_sums {
    double xx, yy, xy, difference_squared, difference_max;
};

/* Their order depends on n alone. */
void assay_block_sums(const float *source, const float *decoded, size_t n, struct assay_block_sums *ret);
