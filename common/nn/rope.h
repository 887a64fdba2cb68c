/* Rotary positions as transformers computes them. Any thread. */
#pragma once

#include "common/nn/model.h"

/* inverse[dim / 2] for a sequence of `tokens` (dynamic scaling and longrope depend on it), in f32 like the source. */
void assay_rope_inverse(const struct assay_rope *rope, size_t dim, size_t tokens, float *inverse);

/* cosine[half] and sine[half] of the f32 angles position * inverse[i]: within one f32 ulp of the true values. position
 * < 2^24. */
void assay_rope_row(size_t position, size_t half, const float *inverse, float *cosine, float *sine);
