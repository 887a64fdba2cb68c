/* Products of a few rows: panels are divided among the threads and read once, as they are stored. */
#include <string.h>

#include "common/kernels/gemm/decode_rows.h"
#include "common/kernels/gemm/panels.h"

#define ABREAST_MAX 2
/* Values of k that are unpacked at a time where groups are uneven. */
#define UNEVEN_DEPTH 256
/* Pieces of work a thread: enough that all end together, few as each has to be claimed. */
#define PIECES 8

struct decoding {
    const struct assay_gemm_ops *ops;
    const struct assay_product *products;
    size_t m, lda, panels; /* of a piece */
    const float *a;
    void (*decode)(const struct assay_decode *d);
};

/* Bytes from one k of a panel to the next; codes have none. */
static size_t panel_stride(const struct assay_panels *w)
{
    static const size_t bytes[] = {
        [ASSAY_WEIGHTS_F32] = 4, [ASSAY_WEIGHTS_BF16] = 2, [ASSAY_WEIGHTS_F16] = 2, [ASSAY_WEIGHTS_I8] = 1};
    return w->type < ASSAY_COUNT(bytes) ? bytes[w->type] * ASSAY_PANEL : 0;
}

static bool is_codes(const struct assay_panels *w)
{
    return w->type == ASSAY_WEIGHTS_TABLE4 || w->type == ASSAY_WEIGHTS_INT4;
}

/* Codes whose scales lie in panels, as they are. */
static void decode_codes(const struct decoding *g, const struct assay_panels *w, size_t panel, struct assay_decode *d)
{
    size_t at = panel * w->groups * ASSAY_PANEL;
    d->step_bytes = assay_codes_stride(w, panel);
    d->panel_bytes = ASSAY_BLOCK_BYTES;
    d->data = assay_codes_at(w, panel);
    d->scales = w->scales + at;
    d->zeros = w->zeros ? w->zeros + at : NULL;
    d->scales_panel = w->groups * ASSAY_PANEL;
    d->group = w->groups == 1 ? (w->k + ASSAY_BLOCK_DEPTH - 1) / ASSAY_BLOCK_DEPTH * ASSAY_BLOCK_DEPTH : w->group;
    d->table = w->table;
    g->decode(d);
}

/* Codes of one panel whose scales change anywhere, by way of f32. */
static void decode_uneven(const struct decoding *g, const struct assay_panels *w, size_t panel, struct assay_decode *d)
{
    _Alignas(64) float plain[UNEVEN_DEPTH * ASSAY_PANEL];
    d->type = ASSAY_WEIGHTS_F32;
    d->data = plain;
    d->step_bytes = ASSAY_PANEL * sizeof *plain;
    for (size_t kk = 0; kk < w->k; kk += UNEVEN_DEPTH) {
        d->k = ASSAY_MIN(w->k - kk, (size_t)UNEVEN_DEPTH);
        assay_codes_unpack(g->ops, w, panel, kk, d->k, plain);
        g->decode(d);
        d->a += d->k;
    }
}

/* Rows [first, first + rows) and `abreast` panels from `panel`, all of k. */
static void decode_panels(const struct decoding *g, const struct assay_product *p, size_t first, size_t rows,
                          size_t panel, size_t abreast)
{
    _Alignas(64) float sums[ASSAY_DECODE_ROWS_MAX * ABREAST_MAX * ASSAY_PANEL];
    const struct assay_panels *w = p->w;
    size_t bytes = panel_stride(w);
    struct assay_decode d = {.type = w->type,
                             .rows = rows,
                             .panels = abreast,
                             .k = w->k,
                             .a = g->a + first * g->lda,
                             .lda = g->lda,
                             .ldc = abreast * ASSAY_PANEL,
                             .step_bytes = bytes,
                             .panel_bytes = bytes * w->k,
                             .scales_panel = ASSAY_PANEL,
                             .c = sums};
    memset(sums, 0, rows * d.ldc * sizeof *sums);
    if (is_codes(w) && w->groups > 0) {
        decode_codes(g, w, panel, &d);
    } else if (is_codes(w)) {
        decode_uneven(g, w, panel, &d);
    } else {
        d.data = (const unsigned char *)w->data + panel * d.panel_bytes;
        d.scales = w->scales ? w->scales + panel * ASSAY_PANEL : NULL;
        g->decode(&d);
    }
    size_t column = panel * ASSAY_PANEL, columns = ASSAY_MIN(w->n - column, abreast * ASSAY_PANEL);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < columns; j++)
            p->c[(first + r) * p->ldc + column + j] = sums[r * d.ldc + j] + (p->bias ? p->bias[column + j] : -0.0f);
}

static size_t pieces_of(const struct decoding *g, const struct assay_product *p)
{
    return (assay_panels_count(p->w) + g->panels - 1) / g->panels;
}

static void decode_piece(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct decoding *g = arg;
    const struct assay_product *p = g->products;
    for (; index >= pieces_of(g, p); p++)
        index -= pieces_of(g, p);
    size_t end = ASSAY_MIN((index + 1) * g->panels, assay_panels_count(p->w)), most = g->ops->decode_rows;
    bool uneven = is_codes(p->w) && p->w->groups == 0;
    size_t wanted = uneven ? 1 : g->ops->decode_panels[ASSAY_MIN(g->m, most) - 1];
    for (size_t panel = index * g->panels, abreast; panel < end; panel += abreast) {
        abreast = panel + wanted <= end ? wanted : 1;
        for (size_t first = 0; first < g->m; first += most)
            decode_panels(g, p, first, ASSAY_MIN(g->m - first, most), panel, abreast);
    }
}

void assay_gemm_rows(const struct assay_gemm_ops *ops, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_product *products, size_t count, bool bf16)
{
    struct decoding g = {.ops = ops, .products = products, .m = m, .lda = lda, .a = a};
    g.decode = bf16 ? ops->decode_bf16 : ops->decode;
    size_t threads = assay_pool_threads(pool), all = 0, pieces = 0, wanted = threads > 1 ? threads * PIECES : 1;
    for (size_t i = 0; i < count; i++)
        all += assay_panels_count(products[i].w);
    g.panels = (all + wanted - 1) / wanted;
    g.panels = (g.panels + ABREAST_MAX - 1) / ABREAST_MAX * ABREAST_MAX;
    for (size_t i = 0; i < count; i++)
        pieces += pieces_of(&g, &products[i]);
    assay_pool_run(pool, pieces, decode_piece, &g);
}
