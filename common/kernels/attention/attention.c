/* Attention by blocks of queries: the scores of one block against all keys that it sees, a softmax by row, and the sum
 * of the values, both products by the tiles of gemm. Keys and values are packed once a sequence and key-value head.
 * With a window a block skips whole panels of keys before it; what a row sees begins at its own first key, wherever the
 * block begins, so that the bits depend on neither. */
#include "common/kernels/attention/rows.h"

struct attention {
    const struct assay_kernels *kernels;
    const struct assay_attention_shape *shape;
    const struct assay_attention_span *spans;
    size_t count;
    const float *q, *k, *v;
    float *out;
    float *packed;       /* keys and values of all sequences */
    float *scratch;      /* of all threads */
    size_t scratch_each; /* floats */
    size_t queries;      /* in a block */
    size_t blocks;       /* of queries, in all sequences */
};

/* Floats of one key-value head's packed keys, and of its values. */
static size_t keys_floats(const struct assay_attention_shape *shape, size_t tokens)
{
    return round_up(tokens, ASSAY_PANEL) * shape->head_dim;
}

static size_t values_floats(const struct assay_attention_shape *shape, size_t tokens)
{
    return round_up(value_dim(shape), ASSAY_PANEL) * tokens;
}

/* Packed queries, scores, packed probabilities, sums. */
static size_t scratch_floats(const struct assay_attention_shape *shape, size_t tokens_max)
{
    size_t keys = round_up(tokens_max, ASSAY_PANEL);
    return QUERIES * (shape->head_dim + 2 * keys + round_up(value_dim(shape), ASSAY_PANEL));
}

static size_t tokens_largest(const struct assay_attention_span *spans, size_t count)
{
    size_t largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = ASSAY_MAX(largest, spans[i].tokens);
    return largest;
}

static size_t packed_floats(const struct assay_attention_shape *shape, const struct assay_attention_span *spans,
                            size_t count)
{
    size_t floats = 0;
    for (size_t i = 0; i < count; i++)
        floats += shape->kv_heads * (keys_floats(shape, spans[i].tokens) + values_floats(shape, spans[i].tokens));
    return floats;
}

size_t assay_attention_workspace(const struct assay_attention_shape *shape, const struct assay_attention_span *spans,
                                 size_t count, size_t threads)
{
    /* A bound from above, with room for the rounding, that tells whether the exact sizes can overflow. */
    size_t widest = ASSAY_MAX(shape->head_dim, value_dim(shape));
    size_t width = shape->kv_heads * 2 * (widest + ASSAY_PANEL), total = 0, bound;
    for (size_t i = 0; i < count; i++)
        if (__builtin_add_overflow(total, spans[i].tokens + ASSAY_PANEL, &total))
            return 0;
    if (__builtin_mul_overflow(total, width, &bound) ||
        __builtin_mul_overflow(total + widest + ASSAY_PANEL, 4 * QUERIES * threads, &total) ||
        __builtin_add_overflow(bound, total, &bound))
        return 0;
    return packed_floats(shape, spans, count) + threads * scratch_floats(shape, tokens_largest(spans, count));
}

/* Keys as panels of 32 (head_dim x 32 each), values as panels of 32 of the head's dimensions (tokens x 32 each). */
static void pack_head(const struct attention *t, const struct assay_attention_span *span, size_t head, float *keys,
                      float *values)
{
    size_t dim = t->shape->head_dim, stride = t->shape->kv_heads * dim, tokens = span->tokens;
    size_t wide = value_dim(t->shape), value_stride = t->shape->kv_heads * wide;
    const float *k = t->k + span->first * stride + head * dim, *v = t->v + span->first * value_stride + head * wide;
    for (size_t first = 0; first < tokens; first += ASSAY_PANEL)
        assay_tiles_pack(ASSAY_PANEL, ASSAY_MIN(tokens - first, (size_t)ASSAY_PANEL), dim, k + first * stride, stride,
                         keys + first * dim);
    for (size_t first = 0; first < wide; first += ASSAY_PANEL) {
        size_t columns = ASSAY_MIN(wide - first, (size_t)ASSAY_PANEL);
        for (size_t i = 0; i < tokens; i++) {
            float *to = values + first * tokens + i * ASSAY_PANEL;
            memcpy(to, v + i * value_stride + first, columns * sizeof *to);
            memset(to + columns, 0, (ASSAY_PANEL - columns) * sizeof *to);
        }
    }
}

/* Packed keys of a sequence's key-value head; its values follow. */
static float *packed_at(const struct attention *t, size_t sequence, size_t head)
{
    const struct assay_attention_span *span = &t->spans[sequence];
    size_t each = keys_floats(t->shape, span->tokens) + values_floats(t->shape, span->tokens);
    return t->packed + packed_floats(t->shape, t->spans, sequence) + head * each;
}

static void pack_piece(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct attention *t = arg;
    size_t sequence = index / t->shape->kv_heads, head = index % t->shape->kv_heads;
    float *keys = packed_at(t, sequence, head);
    pack_head(t, &t->spans[sequence], head, keys, keys + keys_floats(t->shape, t->spans[sequence].tokens));
}

/* out[rows, dim] = probabilities . values over `keys` keys; tiles of probabilities come from `tiles`. */
static void sum_values(const struct attention *t, size_t rows, size_t keys, size_t tokens, const float *tiles,
                       const float *values, float *sums)
{
    size_t tile_rows = t->kernels->gemm->tile_rows, width = round_up(value_dim(t->shape), ASSAY_PANEL);
    for (size_t begin = 0; begin < keys; begin += KEYS) {
        size_t depth = ASSAY_MIN(keys - begin, (size_t)KEYS);
        for (size_t column = 0; column < width; column += ASSAY_PANEL)
            for (size_t r = 0; r < rows; r += tile_rows)
                t->kernels->gemm->tile(ASSAY_MIN(rows - r, tile_rows), depth, tiles + r * keys + begin * tile_rows,
                                       values + column * tokens + begin * ASSAY_PANEL, sums + r * width + column, width,
                                       begin > 0);
    }
}

/* Of the head's row and its first key; NULL where there is none. */
static const float *bias_of(const struct assay_attention_shape *shape, size_t head, size_t row)
{
    return shape->bias ? shape->bias + head * (2 * shape->bias_reach - 1) + shape->bias_reach - 1 - row : NULL;
}

static void attend_block(const struct attention *t, size_t sequence, size_t head, size_t begin, float *scratch)
{
    const struct assay_attention_shape *shape = t->shape;
    const struct assay_attention_span *span = &t->spans[sequence];
    size_t dim = shape->head_dim, stride = shape->heads * dim, tile_rows = t->kernels->gemm->tile_rows;
    size_t rows = ASSAY_MIN(span->tokens - begin, t->queries);
    size_t skip = first_key(shape, begin) / ASSAY_PANEL * ASSAY_PANEL;
    size_t keys = keys_until(shape, begin + rows - 1, span->tokens) - skip;
    size_t wide = value_dim(shape), columns = round_up(keys, ASSAY_PANEL), width = round_up(wide, ASSAY_PANEL);
    float *queries = scratch, *scores = queries + QUERIES * dim, *tiles = scores + QUERIES * columns;
    float *sums = tiles + QUERIES * columns;
    const float *packed_keys = packed_at(t, sequence, head / (shape->heads / shape->kv_heads));
    const float *packed_values = packed_keys + keys_floats(shape, span->tokens) + skip * ASSAY_PANEL;
    assay_tiles_pack(tile_rows, rows, dim, t->q + (span->first + begin) * stride + head * dim, stride, queries);
    for (size_t column = 0; column < columns; column += ASSAY_PANEL)
        for (size_t r = 0; r < rows; r += tile_rows)
            t->kernels->gemm->tile(ASSAY_MIN(rows - r, tile_rows), dim, queries + r * dim,
                                   packed_keys + (skip + column) * dim, scores + r * columns + column, columns, false);
    for (size_t r = 0; r < rows; r++)
        weigh_row(t->kernels, shape, begin + r, span->tokens, skip, keys, bias_of(shape, head, begin + r),
                  scores + r * columns);
    assay_tiles_pack(tile_rows, rows, keys, scores, columns, tiles);
    sum_values(t, rows, keys, span->tokens, tiles, packed_values, sums);
    /* Adding 0 turns -0 into 0: keys that a row does not see, which add 0 times their value, then leave no trace. */
    float *out = t->out + (span->first + begin) * shape->heads * wide + head * wide;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < wide; i++)
            out[r * shape->heads * wide + i] = sums[r * width + i] + 0.0f;
}

static void attend_piece(void *arg, size_t index, size_t thread)
{
    const struct attention *t = arg;
    size_t head = index % t->shape->heads, block = index / t->shape->heads, sequence = 0;
    for (;; sequence++) {
        size_t here = (t->spans[sequence].tokens + t->queries - 1) / t->queries;
        if (block < here) {
            block = here - 1 - block; /* the longest first */
            break;
        }
        block -= here;
    }
    attend_block(t, sequence, head, block * t->queries, t->scratch + thread * t->scratch_each);
}

void assay_attention(const struct assay_kernels *kernels, struct assay_pool *pool,
                     const struct assay_attention_shape *shape, const struct assay_attention_span *spans, size_t count,
                     const float *q, const float *k, const float *v, float *out, float *workspace)
{
    struct attention t = {.kernels = kernels, .shape = shape, .spans = spans, .count = count, .q = q, .k = k, .v = v};
    t.out = out;
    t.queries = QUERIES / kernels->gemm->tile_rows * kernels->gemm->tile_rows;
    t.packed = workspace;
    t.scratch = workspace + packed_floats(shape, spans, count);
    t.scratch_each = scratch_floats(shape, tokens_largest(spans, count));
    for (size_t i = 0; i < count; i++)
        t.blocks += (spans[i].tokens + t.queries - 1) / t.queries;
    assay_pool_run(pool, count * shape->kv_heads, pack_piece, &t);
    assay_pool_run(pool, t.blocks * shape->heads, attend_piece, &t);
}
