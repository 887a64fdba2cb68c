/* Attention of new rows over keys and values that are kept. All heads that share a key-value head stand in one block,
 * so that what is kept is unpacked once for them; a row's bits depend on neither the block nor the company. */
#include "common/kernels/attention/rows.h"

struct growing {
    const struct assay_kernels *kernels;
    const struct assay_attention_shape *shape;
    const struct assay_attention_growth *growths;
    size_t count;
    const float *q;
    float *out;
    float *scratch;
    size_t scratch_each; /* floats */
    size_t queries;      /* in a block */
    size_t group;        /* heads that share a key-value head */
    size_t blocks;       /* of one key-value head, in all sequences */
};

/* A block's place: rows [begin, begin + rows) of a sequence's (token, head of the group) pairs. */
struct block {
    const struct assay_attention_growth *growth;
    size_t head; /* key-value head */
    size_t begin, rows;
    size_t skip, keys; /* keys [skip, skip + keys) are seen */
    float *queries, *line, *scores, *tiles, *sums, *panel;
};

static size_t row_pairs(const struct growing *t, const struct assay_attention_growth *growth)
{
    return growth->tokens * t->group;
}

static size_t position_of(const struct growing *t, const struct block *b, size_t row)
{
    return b->growth->past + (b->begin + row) / t->group;
}

static size_t panel_floats(const struct assay_attention_shape *shape)
{
    return ASSAY_PANEL * ASSAY_MAX(shape->head_dim, (size_t)KEYS);
}

static size_t keys_most(const struct assay_attention_growth *growths, size_t count)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        most = ASSAY_MAX(most, growths[i].past + growths[i].tokens);
    return most;
}

/* Packed queries, queries row by row, scores, packed probabilities, sums, one unpacked panel. */
static size_t scratch_floats(const struct assay_attention_shape *shape, size_t keys)
{
    size_t width = round_up(value_dim(shape), ASSAY_PANEL);
    return round_up(QUERIES * (2 * shape->head_dim + 2 * round_up(keys, ASSAY_PANEL) + width) + panel_floats(shape),
                    16);
}

size_t assay_attention_growth_workspace(const struct assay_attention_shape *shape,
                                        const struct assay_attention_growth *growths, size_t count, size_t threads)
{
    size_t keys = keys_most(growths, count), bound;
    size_t widest = ASSAY_MAX(shape->head_dim, value_dim(shape)) + KEYS;
    /* A bound from above that tells whether the exact size can overflow. */
    if (__builtin_add_overflow(keys, 4 * (widest + ASSAY_PANEL), &bound) ||
        __builtin_mul_overflow(bound, 4 * QUERIES * threads, &bound))
        return 0;
    return threads * scratch_floats(shape, keys);
}

/* One panel of keys as f32. */
static const float *keys_panel(const struct growing *t, const struct block *b, size_t token)
{
    const struct assay_kv *kv = b->growth->kv;
    const struct assay_gemm_ops *ops = t->kernels->gemm;
    size_t dim = t->shape->head_dim, at = (b->head * kv->capacity + token) * dim;
    switch (kv->dtype) {
    case ASSAY_F16:
        ops->unpack_f16(dim, (const uint16_t *)kv->keys + at, b->panel);
        return b->panel;
    case ASSAY_BF16:
        ops->unpack_bf16(dim, (const uint16_t *)kv->keys + at, b->panel);
        return b->panel;
    case ASSAY_I8:
        ops->unpack_i8(dim, (const int8_t *)kv->keys + at, kv->scales + b->head * kv->capacity + token, b->panel);
        return b->panel;
    default:
        return (const float *)kv->keys + at;
    }
}

/* `depth` tokens of one panel of values as f32. */
static const float *values_panel(const struct growing *t, const struct block *b, size_t column, size_t token,
                                 size_t depth)
{
    const struct assay_kv *kv = b->growth->kv;
    const struct assay_gemm_ops *ops = t->kernels->gemm;
    size_t width = round_up(value_dim(t->shape), ASSAY_PANEL);
    size_t at = b->head * kv->capacity * width + column * kv->capacity + token * ASSAY_PANEL;
    const float *scales = kv->scales ? kv->scales + (t->shape->kv_heads + b->head) * kv->capacity + token : NULL;
    switch (kv->dtype) {
    case ASSAY_F16:
        ops->unpack_f16(depth, (const uint16_t *)kv->values + at, b->panel);
        return b->panel;
    case ASSAY_BF16:
        ops->unpack_bf16(depth, (const uint16_t *)kv->values + at, b->panel);
        return b->panel;
    case ASSAY_I8:
        for (size_t i = 0; i < depth; i++) {
            float same[ASSAY_PANEL];
            for (size_t j = 0; j < ASSAY_PANEL; j++)
                same[j] = scales[i];
            ops->unpack_i8(1, (const int8_t *)kv->values + at + i * ASSAY_PANEL, same, b->panel + i * ASSAY_PANEL);
        }
        return b->panel;
    default:
        return (const float *)kv->values + at;
    }
}

static void gather_queries(const struct growing *t, const struct block *b)
{
    size_t dim = t->shape->head_dim, stride = t->shape->heads * dim;
    for (size_t r = 0; r < b->rows; r++) {
        size_t token = (b->begin + r) / t->group, head = b->head * t->group + (b->begin + r) % t->group;
        memcpy(b->line + r * dim, t->q + (b->growth->first + token) * stride + head * dim, dim * sizeof *b->line);
    }
    assay_tiles_pack(t->kernels->gemm->tile_rows, b->rows, dim, b->line, dim, b->queries);
}

static void score_keys(const struct growing *t, const struct block *b)
{
    size_t tile_rows = t->kernels->gemm->tile_rows, dim = t->shape->head_dim, columns = round_up(b->keys, ASSAY_PANEL);
    for (size_t column = 0; column < columns; column += ASSAY_PANEL) {
        const float *keys = keys_panel(t, b, b->skip + column);
        for (size_t r = 0; r < b->rows; r += tile_rows)
            t->kernels->gemm->tile(ASSAY_MIN(b->rows - r, tile_rows), dim, b->queries + r * dim, keys,
                                   b->scores + r * columns + column, columns, false);
    }
    for (size_t r = 0; r < b->rows; r++)
        weigh_row(t->kernels, t->shape, position_of(t, b, r), 0, b->skip, b->keys, NULL, b->scores + r * columns);
    assay_tiles_pack(tile_rows, b->rows, b->keys, b->scores, columns, b->tiles);
}

static void sum_values(const struct growing *t, const struct block *b)
{
    size_t tile_rows = t->kernels->gemm->tile_rows, width = round_up(value_dim(t->shape), ASSAY_PANEL);
    for (size_t begin = 0; begin < b->keys; begin += KEYS) {
        size_t depth = ASSAY_MIN(b->keys - begin, (size_t)KEYS);
        for (size_t column = 0; column < width; column += ASSAY_PANEL) {
            const float *values = values_panel(t, b, column, b->skip + begin, depth);
            for (size_t r = 0; r < b->rows; r += tile_rows)
                t->kernels->gemm->tile(ASSAY_MIN(b->rows - r, tile_rows), depth,
                                       b->tiles + r * b->keys + begin * tile_rows, values, b->sums + r * width + column,
                                       width, begin > 0);
        }
    }
}

static void attend_block(const struct growing *t, struct block *b, float *scratch)
{
    const struct assay_attention_shape *shape = t->shape;
    size_t wide = value_dim(shape), width = round_up(wide, ASSAY_PANEL), dim = shape->head_dim;
    b->rows = ASSAY_MIN(row_pairs(t, b->growth) - b->begin, t->queries);
    b->skip = first_key(shape, position_of(t, b, 0)) / ASSAY_PANEL * ASSAY_PANEL;
    b->keys = position_of(t, b, b->rows - 1) + 1 - b->skip;
    size_t columns = round_up(b->keys, ASSAY_PANEL);
    b->panel = scratch;
    b->queries = b->panel + panel_floats(shape);
    b->line = b->queries + QUERIES * dim;
    b->scores = b->line + QUERIES * dim;
    b->tiles = b->scores + QUERIES * columns;
    b->sums = b->tiles + QUERIES * columns;
    gather_queries(t, b);
    score_keys(t, b);
    sum_values(t, b);
    /* Adding 0 turns -0 into 0, as in attention.c. */
    for (size_t r = 0; r < b->rows; r++) {
        size_t token = (b->begin + r) / t->group, head = b->head * t->group + (b->begin + r) % t->group;
        float *out = t->out + ((b->growth->first + token) * shape->heads + head) * wide;
        for (size_t i = 0; i < wide; i++)
            out[i] = b->sums[r * width + i] + 0.0f;
    }
}

static void attend_piece(void *arg, size_t index, size_t thread)
{
    const struct growing *t = arg;
    struct block b = {.growth = t->growths, .head = index % t->shape->kv_heads};
    size_t block = index / t->shape->kv_heads;
    for (;; b.growth++) {
        size_t here = (row_pairs(t, b.growth) + t->queries - 1) / t->queries;
        if (block < here)
            break;
        block -= here;
    }
    b.begin = block * t->queries;
    attend_block(t, &b, t->scratch + thread * t->scratch_each);
}

void assay_attention_grow(const struct assay_kernels *kernels, struct assay_pool *pool,
                          const struct assay_attention_shape *shape, const struct assay_attention_growth *growths,
                          size_t count, const float *q, float *out, float *workspace)
{
    struct growing t = {.kernels = kernels, .shape = shape, .growths = growths, .count = count, .q = q, .out = out};
    t.queries = QUERIES / kernels->gemm->tile_rows * kernels->gemm->tile_rows;
    t.group = shape->heads / shape->kv_heads;
    t.scratch = workspace;
    t.scratch_each = scratch_floats(shape, keys_most(growths, count));
    for (size_t i = 0; i < count; i++)
        t.blocks += (row_pairs(&t, &growths[i]) + t.queries - 1) / t.queries;
    assay_pool_run(pool, t.blocks * shape->kv_heads, attend_piece, &t);
}
