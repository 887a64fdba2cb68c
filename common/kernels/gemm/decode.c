/* Products of one or two rows: panels are divided among the threads and read once, as they are stored. */
#include "common/kernels/gemm/decode_rows.h"

#include <string.h>

#define ABREAST_MAX 4
/* Pieces of work a thread: few, as each wakes nobody but has to be claimed. */
#define PIECES 4

struct decoding {
    const struct assay_gemm_ops *ops;
    const struct assay_panels *w;
    size_t m, lda, ldc, panels; /* of a piece */
    const float *a, *bias;
    float *c;
};

static size_t panel_stride(const struct assay_panels *w)
{
    static const size_t bits[] = {[ASSAY_WEIGHTS_F32] = 32, [ASSAY_WEIGHTS_BF16] = 16,  [ASSAY_WEIGHTS_F16] = 16,
                                  [ASSAY_WEIGHTS_I8] = 8,   [ASSAY_WEIGHTS_TABLE4] = 4, [ASSAY_WEIGHTS_INT4] = 4};
    return bits[w->type] * ASSAY_PANEL / 8;
}

/* `abreast` panels from `panel`, all of k. */
static void decode_panels(const struct decoding *g, size_t panel, size_t abreast)
{
    _Alignas(64) float sums[2 * ABREAST_MAX * ASSAY_PANEL] = {0}, scales[ABREAST_MAX * ASSAY_PANEL],
                                              zeros[ABREAST_MAX * ASSAY_PANEL];
    const struct assay_panels *w = g->w;
    bool grouped = w->type == ASSAY_WEIGHTS_TABLE4 || w->type == ASSAY_WEIGHTS_INT4;
    size_t bytes = panel_stride(w), step = grouped ? w->step : w->k;
    struct assay_decode d = {.type = w->type,
                             .rows = g->m,
                             .panels = abreast,
                             .lda = g->lda,
                             .ldc = abreast * ASSAY_PANEL,
                             .step_bytes = bytes,
                             .panel_bytes = bytes * w->k,
                             .table = w->table,
                             .c = sums};
    if (w->type == ASSAY_WEIGHTS_I8)
        d.scales = w->scales + panel * ASSAY_PANEL;
    else if (grouped)
        d.scales = scales;
    d.zeros = w->type == ASSAY_WEIGHTS_INT4 ? zeros : NULL;
    for (size_t kk = 0; kk < w->k; kk += d.k) {
        d.k = ASSAY_MIN(step, w->k - kk);
        for (size_t p = 0; grouped && p < abreast; p++)
            assay_panels_group(w, panel + p, kk, scales + p * ASSAY_PANEL, zeros + p * ASSAY_PANEL);
        d.a = g->a + kk;
        d.data = (const unsigned char *)w->data + panel * d.panel_bytes + kk * bytes;
        g->ops->decode(&d);
    }
    size_t column = panel * ASSAY_PANEL, columns = ASSAY_MIN(w->n - column, abreast * ASSAY_PANEL);
    for (size_t r = 0; r < g->m; r++)
        for (size_t j = 0; j < columns; j++)
            g->c[r * g->ldc + column + j] = sums[r * d.ldc + j] + (g->bias ? g->bias[column + j] : -0.0f);
}

static void decode_piece(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct decoding *g = arg;
    size_t all = (g->w->n + ASSAY_PANEL - 1) / ASSAY_PANEL, end = ASSAY_MIN((index + 1) * g->panels, all);
    size_t abreast = g->ops->decode_panels / g->m, panel = index * g->panels;
    for (; panel + abreast <= end; panel += abreast)
        decode_panels(g, panel, abreast);
    for (; panel < end; panel++)
        decode_panels(g, panel, 1);
}

void assay_gemm_rows(const struct assay_gemm_ops *ops, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_panels *w, const float *bias, float *c, size_t ldc)
{
    struct decoding g = {.ops = ops, .w = w, .m = m, .lda = lda, .ldc = ldc, .a = a, .bias = bias, .c = c};
    size_t threads = assay_pool_threads(pool), all = (w->n + ASSAY_PANEL - 1) / ASSAY_PANEL;
    size_t pieces = threads > 1 ? threads * PIECES : 1;
    g.panels = (all + pieces - 1) / pieces;
    g.panels = (g.panels + ABREAST_MAX - 1) / ABREAST_MAX * ABREAST_MAX;
    assay_pool_run(pool, (all + g.panels - 1) / g.panels, decode_piece, &g);
}
