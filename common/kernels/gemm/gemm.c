/* Products by blocks: a block of rows of A is packed into tiles for DEPTH values of k, and every panel of W, unpacked
 * to f32 where it is stored smaller, serves all those tiles. C carries the chain of sums from one block of k to the
 * next. */
#include <string.h>

#include "common/kernels/gemm/decode_rows.h"
#include "common/kernels/gemm/panels.h"

/* Values of k and rows of A at a time: a panel (64 KB) and the block of A (up to 384 KB) stay in a core's L2. Unpacking
 * a panel costs about 2 / ROWS of multiplying with it. */
#define DEPTH 512
#define ROWS 192
/* Where an operand has 2 bytes, sums are carried half as often. */
#define DEPTH_PAIRS 1024
#define ROWS_PAIRS 266
#define DEPTH_MAX ASSAY_MAX(DEPTH, DEPTH_PAIRS)
#define TILES_BYTES                                                                                                    \
    ASSAY_MAX((ROWS + ASSAY_TILE_ROWS_MAX) * DEPTH * sizeof(float),                                                    \
              (ROWS_PAIRS + ASSAY_TILE_ROWS_MAX) * DEPTH_PAIRS * sizeof(uint16_t))
/* Panels of one piece of work when there are plenty: packing A costs about 0.2 / PANELS of the products. */
#define PANELS_MAX 64

struct product {
    const struct assay_gemm_ops *ops;
    const struct assay_panels *w;
    size_t m, lda, ldc;
    const float *a, *bias;
    float *c;
    size_t rows;   /* of a piece */
    size_t panels; /* of a piece */
    size_t groups; /* pieces side by side */
    size_t origin; /* panel whose columns are c's first ones */
    size_t depth;  /* values of k at a time */
    bool bf16;     /* both operands are rounded to it */
};

/* Four rows by four columns at a time; a compiler makes vector shuffles of it. */
static void pack_four(const float *a, size_t lda, size_t k, float *dst, size_t tile_rows)
{
    typedef float four __attribute__((vector_size(16)));
    size_t kk = 0;
    for (; kk + 4 <= k; kk += 4) {
        four x[4];
        for (size_t r = 0; r < 4; r++)
            memcpy(&x[r], a + r * lda + kk, sizeof x[r]);
        four low01 = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
        four low23 = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
        four high01 = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
        four high23 = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
        four column[4] = {
            __builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
            __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
        for (size_t i = 0; i < 4; i++)
            memcpy(dst + (kk + i) * tile_rows, &column[i], sizeof column[i]);
    }
    for (; kk < k; kk++)
        for (size_t r = 0; r < 4; r++)
            dst[kk * tile_rows + r] = a[r * lda + kk];
}

void assay_tiles_pack(size_t tile_rows, size_t rows, size_t k, const float *a, size_t lda, float *dst)
{
    for (size_t first = 0; first < rows; first += tile_rows, dst += tile_rows * k) {
        size_t here = ASSAY_MIN(rows - first, tile_rows), r = 0;
        for (; r + 4 <= here; r += 4)
            pack_four(a + (first + r) * lda, lda, k, dst + r, tile_rows);
        for (; r < here; r++)
            for (size_t kk = 0; kk < k; kk++)
                dst[kk * tile_rows + r] = a[(first + r) * lda + kk];
        for (; r < tile_rows; r++)
            for (size_t kk = 0; kk < k; kk++)
                dst[kk * tile_rows + r] = 0.0f;
    }
}

/* `depth` values of k, from `begin`, of one panel as f32: in place when it is stored so, else in scratch. */
static const float *panel_f32(const struct product *p, size_t panel, size_t begin, size_t depth, float *scratch)
{
    size_t at = (panel * p->w->k + begin) * ASSAY_PANEL;
    switch (p->w->type) {
    case ASSAY_WEIGHTS_F32:
        return (const float *)p->w->data + at;
    case ASSAY_WEIGHTS_BF16:
        p->ops->unpack_bf16(depth, (const uint16_t *)p->w->data + at, scratch);
        return scratch;
    case ASSAY_WEIGHTS_F16:
        p->ops->unpack_f16(depth, (const uint16_t *)p->w->data + at, scratch);
        return scratch;
    case ASSAY_WEIGHTS_I8:
        p->ops->unpack_i8(depth, (const int8_t *)p->w->data + at, p->w->scales + panel * ASSAY_PANEL, scratch);
        return scratch;
    case ASSAY_WEIGHTS_TABLE4:
    case ASSAY_WEIGHTS_INT4:
        assay_codes_unpack(p->ops, p->w, panel, begin, depth, scratch);
        return scratch;
    }
    ASSAY_BUG("panels of a type that is never packed");
}

static void tile(const struct product *p, size_t rows, size_t depth, const void *a, const void *b, float *c, size_t ldc,
                 bool go_on)
{
    if (p->bf16)
        p->ops->tile_bf16(rows, depth, a, b, c, ldc, go_on);
    else
        p->ops->tile(rows, depth, a, b, c, ldc, go_on);
}

/* A tile whose panel is not full goes through a buffer, so that nothing is written beyond the row. */
static void tile_narrow(const struct product *p, size_t rows, size_t columns, size_t depth, const void *a,
                        const void *b, float *c, bool go_on)
{
    _Alignas(64) float full[ASSAY_TILE_ROWS_MAX * ASSAY_PANEL] = {0};
    for (size_t r = 0; go_on && r < rows; r++)
        memcpy(full + r * ASSAY_PANEL, c + r * p->ldc, columns * sizeof *c);
    tile(p, rows, depth, a, b, full, ASSAY_PANEL, go_on);
    for (size_t r = 0; r < rows; r++)
        memcpy(c + r * p->ldc, full + r * ASSAY_PANEL, columns * sizeof *c);
}

static void prefetch_rows(const float *c, size_t rows, size_t ldc)
{
    for (size_t r = 0; r < rows; r++) {
        __builtin_prefetch(c + r * ldc, 1);
        __builtin_prefetch(c + r * ldc + ASSAY_PANEL / 2, 1);
    }
}

/* Bytes of one row of A in a tile. */
static size_t row_bytes_of(const struct product *p, size_t depth)
{
    return p->bf16 ? (depth + depth % 2) * p->ops->bf16_bytes : depth * sizeof(float);
}

/* The block of A as tiles that the tile function reads. */
static void pack_block(const struct product *p, size_t first, size_t rows, size_t begin, size_t depth,
                       unsigned char *tiles)
{
    size_t tile_rows = p->ops->tile_rows;
    const float *a = p->a + first * p->lda + begin;
    if (!p->bf16) {
        assay_tiles_pack(tile_rows, rows, depth, a, p->lda, (float *)(void *)tiles);
        return;
    }
    _Alignas(64) float plain[ASSAY_TILE_ROWS_MAX * DEPTH_MAX];
    for (size_t r = 0; r < rows; r += tile_rows) {
        assay_tiles_pack(tile_rows, ASSAY_MIN(rows - r, tile_rows), depth, a + r * p->lda, p->lda, plain);
        p->ops->to_bf16(depth, tile_rows, plain, tiles + r * row_bytes_of(p, depth));
    }
}

/* All tiles of a block with one panel. */
static void multiply_panel(const struct product *p, size_t first, size_t rows, size_t panel, size_t depth,
                           const unsigned char *tiles, const void *b, bool go_on)
{
    size_t tile_rows = p->ops->tile_rows, column = (panel - p->origin) * ASSAY_PANEL;
    size_t columns = ASSAY_MIN(p->w->n - panel * ASSAY_PANEL, (size_t)ASSAY_PANEL), row_bytes = row_bytes_of(p, depth);
    for (size_t r = 0; r < rows; r += tile_rows) {
        float *c = p->c + (first + r) * p->ldc + column;
        const unsigned char *a = tiles + r * row_bytes;
        size_t here = ASSAY_MIN(rows - r, tile_rows);
        if (columns < ASSAY_PANEL) {
            tile_narrow(p, here, columns, depth, a, b, c, go_on);
            continue;
        }
        if (r + here < rows)
            prefetch_rows(c + here * p->ldc, ASSAY_MIN(rows - r - here, tile_rows), p->ldc);
        tile(p, here, depth, a, b, c, p->ldc, go_on);
    }
}

static void add_bias(const struct product *p, size_t first, size_t rows, size_t column_begin, size_t column_end)
{
    for (size_t r = first; r < first + rows; r++)
        for (size_t j = column_begin; j < column_end; j++)
            p->c[r * p->ldc + j - p->origin * ASSAY_PANEL] += p->bias[j];
}

/* Rows [first, first + rows) times panels [panel_begin, panel_end). */
static void multiply_block(const struct product *p, size_t first, size_t rows, size_t panel_begin, size_t panel_end)
{
    _Alignas(64) unsigned char tiles[TILES_BYTES];
    _Alignas(64) float scratch[DEPTH_MAX * ASSAY_PANEL], rounded[DEPTH_MAX * ASSAY_PANEL];
    for (size_t begin = 0; begin < p->w->k; begin += p->depth) {
        size_t depth = ASSAY_MIN(p->w->k - begin, p->depth);
        pack_block(p, first, rows, begin, depth, tiles);
        for (size_t panel = panel_begin; panel < panel_end; panel++) {
            const float *b = panel_f32(p, panel, begin, depth, scratch);
            if (p->bf16) {
                p->ops->to_bf16(depth, ASSAY_PANEL, b, rounded);
                b = rounded;
            }
            multiply_panel(p, first, rows, panel, depth, tiles, b, begin > 0);
        }
    }
    if (p->bias)
        add_bias(p, first, rows, panel_begin * ASSAY_PANEL, ASSAY_MIN(panel_end * ASSAY_PANEL, p->w->n));
}

static void multiply_piece(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct product *p = arg;
    size_t first = index / p->groups * p->rows, panels = (p->w->n + ASSAY_PANEL - 1) / ASSAY_PANEL;
    size_t begin = index % p->groups * p->panels;
    multiply_block(p, first, ASSAY_MIN(p->m - first, p->rows), begin, ASSAY_MIN(begin + p->panels, panels));
}

/* Sets the depth and the rows of a block; returns the number of blocks. */
static size_t plan_blocks(struct product *p)
{
    bool pairs = p->bf16 && p->ops->bf16_bytes == sizeof(uint16_t);
    p->depth = pairs ? DEPTH_PAIRS : DEPTH;
    p->rows = (size_t)(pairs ? ROWS_PAIRS : ROWS) / p->ops->tile_rows * p->ops->tile_rows;
    size_t blocks = (p->m + p->rows - 1) / p->rows;
    /* Even blocks, so that the last one is not a sliver. */
    p->rows = ((p->m + blocks - 1) / blocks + p->ops->tile_rows - 1) / p->ops->tile_rows * p->ops->tile_rows;
    return (p->m + p->rows - 1) / p->rows;
}

static void multiply(struct assay_pool *pool, struct product p)
{
    if (p.m == 0 || p.w->n == 0)
        return;
    size_t threads = assay_pool_threads(pool), panels = (p.w->n + ASSAY_PANEL - 1) / ASSAY_PANEL;
    size_t blocks = plan_blocks(&p);
    size_t wanted = threads > 1 ? (4 * threads + blocks - 1) / blocks : 1;
    p.panels = ASSAY_MIN(ASSAY_MAX((panels + wanted - 1) / wanted, (size_t)1), (size_t)PANELS_MAX);
    p.groups = (panels + p.panels - 1) / p.panels;
    assay_pool_run(pool, blocks * p.groups, multiply_piece, &p);
}

void assay_gemm_several(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a,
                        size_t lda, const struct assay_product *products, size_t count, bool bf16)
{
    const struct assay_gemm_ops *ops = kernels->gemm;
    size_t together = 0;
    while (together < count && assay_gemm_is_rows(ops, products[together].w, m, bf16))
        together++;
    if (together > 0)
        assay_gemm_rows(ops, pool, m, a, lda, products, together, bf16);
    for (const struct assay_product *p = products + together; p < products + count; p++)
        multiply(pool, (struct product){.ops = ops,
                                        .w = p->w,
                                        .m = m,
                                        .lda = lda,
                                        .ldc = p->ldc,
                                        .a = a,
                                        .bias = p->bias,
                                        .c = p->c,
                                        .bf16 = bf16});
}

void assay_gemm(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                const struct assay_panels *w, const float *bias, float *c, size_t ldc)
{
    assay_gemm_several(kernels, pool, m, a, lda, &(struct assay_product){w, bias, c, ldc}, 1, false);
}

void assay_gemm_bf16(const struct assay_kernels *kernels, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_panels *w, const float *bias, float *c, size_t ldc)
{
    assay_gemm_several(kernels, pool, m, a, lda, &(struct assay_product){w, bias, c, ldc}, 1, true);
}

void assay_gemm_columns(const struct assay_kernels *kernels, size_t m, const float *a, size_t lda,
                        const struct assay_panels *w, const float *bias, size_t column, size_t columns, float *c,
                        size_t ldc)
{
    struct product p = {.ops = kernels->gemm, .w = w, .m = m, .lda = lda, .ldc = ldc, .a = a, .bias = bias, .c = c};
    if (m == 0 || columns == 0)
        return;
    plan_blocks(&p);
    p.origin = column / ASSAY_PANEL;
    for (size_t first = 0; first < m; first += p.rows)
        multiply_block(&p, first, ASSAY_MIN(m - first, p.rows), p.origin,
                       (column + columns + ASSAY_PANEL - 1) / ASSAY_PANEL);
}
