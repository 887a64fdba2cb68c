#include <stdlib.h>
#include <string.h>

#include "common/nn/model_impl.h"

#define ROWS 256

static const size_t counts[] = {1, 2, 7, 16, ROWS};

/* Numbers in [-1, 1), the same in every process. */
static void fill(float *x, size_t n)
{
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
    }
}

static enum assay_status check_product(const struct assay_model *model, struct assay_pool *pool,
                                       const struct assay_panels *w, const float *a, float *want, float *got,
                                       struct assay_err *err)
{
    assay_model_gemm(model, pool, ROWS, a, w->k, w, NULL, want);
    for (size_t i = 0; i < ASSAY_COUNT(counts); i++) {
        /* The last rows, so that a row has another place in its block than before. */
        size_t m = counts[i], first = ROWS - m;
        assay_model_gemm(model, pool, m, a + first * w->k, w->k, w, NULL, got);
        if (memcmp(got, want + first * w->n, m * w->n * sizeof *got) != 0)
            return assay_err_set(err, ASSAY_INTERNAL,
                                 "products of %zu x %zu weights give other bits for %zu rows than for %d (path %s)",
                                 w->n, w->k, m, ROWS, model->kernels->name);
    }
    return ASSAY_OK;
}

enum assay_status assay_model_check_rows(const struct assay_model *model, struct assay_pool *pool,
                                         struct assay_err *err)
{
    size_t n = 0, k = 0;
    const struct assay_layer *layer = &model->layers[0];
    for (size_t i = 0; i < ASSAY_LINEARS; i++) {
        n = ASSAY_MAX(n, layer->linears[i].panels.n);
        k = ASSAY_MAX(k, layer->linears[i].panels.k);
    }
    assay_auto(assay_free_ptr) float *a = malloc(ROWS * k * sizeof *a);
    assay_auto(assay_free_ptr) float *want = malloc(ROWS * n * sizeof *want);
    assay_auto(assay_free_ptr) float *got = malloc(ROWS * n * sizeof *got);
    if (!a || !want || !got)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory to check products");
    fill(a, ROWS * k);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_LINEARS && status == ASSAY_OK; i++)
        if (layer->linears[i].panels.n > 0)
            status = check_product(model, pool, &layer->linears[i].panels, a, want, got, err);
    return status;
}
