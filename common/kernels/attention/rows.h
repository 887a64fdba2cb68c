/* What both kinds of attention do with one row of scores, so that they give it the same bits. */
#pragma once

#include <string.h>

#include "common/kernels/kernels.h"

/* Queries in a block, at most: as many whole tiles as fit. */
#define QUERIES 48
/* Keys whose values are summed in one go, so that they stay in the cache for all tiles of the block. */
#define KEYS 256

static inline size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static inline size_t value_dim(const struct assay_attention_shape *shape)
{
    return shape->value_dim ? shape->value_dim : shape->head_dim;
}

/* The first key that a row sees. */
static inline size_t first_key(const struct assay_attention_shape *shape, size_t row)
{
    return shape->window && row >= shape->window ? row + 1 - shape->window : 0;
}

/* The number of keys up to and including the last one that a row sees. */
static inline size_t keys_until(const struct assay_attention_shape *shape, size_t row, size_t tokens)
{
    return shape->bidirectional ? tokens : row + 1;
}

/* Scores of the query at `row` to probabilities; x[0] belongs to key `skip`, and so does bias[0], if it is not NULL. */
static inline void weigh_row(const struct assay_kernels *kernels, const struct assay_attention_shape *shape, size_t row,
                             size_t tokens, size_t skip, size_t keys, const float *bias, float *x)
{
    size_t low = first_key(shape, row) - skip, valid = keys_until(shape, row, tokens) - skip - low;
    float scale = shape->scale;
    memset(x, 0, low * sizeof *x);
    if (shape->soft_cap > 0) {
        kernels->vector->soft_cap(valid, scale, shape->soft_cap, x + low);
        scale = 1;
    }
    if (bias) {
        kernels->vector->scale(valid, scale, x + low);
        kernels->vector->add(valid, bias + low, x + low);
        scale = 1;
    }
    kernels->vector->softmax(valid, keys - low, scale, x + low);
}
