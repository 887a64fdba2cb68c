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

/* Matrices of a layer; of its experts, which are alike, the first. */
static size_t list_panels(const struct assay_layer *layer, const struct assay_panels **list)
{
    size_t count = 0;
    for (size_t i = 0; i < ASSAY_LINEARS; i++)
        if (layer->linears[i].panels.n > 0)
            list[count++] = &layer->linears[i].panels;
    if (layer->experts) {
        const struct assay_mlp_weights *mlps[] = {&layer->experts->shared, &layer->experts->each[0]};
        for (size_t i = 0; i < ASSAY_COUNT(mlps); i++) {
            list[count++] = &mlps[i]->gate.panels;
            list[count++] = &mlps[i]->up.panels;
            list[count++] = &mlps[i]->down.panels;
        }
    }
    return count;
}

static enum assay_status check_layer(const struct assay_model *model, struct assay_pool *pool,
                                     const struct assay_layer *layer, struct assay_err *err)
{
    const struct assay_panels *list[ASSAY_LINEARS + 6];
    size_t n = 0, k = 0, count = list_panels(layer, list);
    for (size_t i = 0; i < count; i++) {
        n = ASSAY_MAX(n, list[i]->n);
        k = ASSAY_MAX(k, list[i]->k);
    }
    assay_auto(assay_free_ptr) float *a = malloc(ROWS * k * sizeof *a);
    assay_auto(assay_free_ptr) float *want = malloc(ROWS * n * sizeof *want);
    assay_auto(assay_free_ptr) float *got = malloc(ROWS * n * sizeof *got);
    if (!a || !want || !got)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory to check products");
    fill(a, ROWS * k);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = check_product(model, pool, list[i], a, want, got, err);
    return status;
}

enum assay_status assay_model_check_rows(const struct assay_model *model, struct assay_pool *pool,
                                         struct assay_err *err)
{
    /* All layers are alike but for those with experts, which come last. */
    enum assay_status status = check_layer(model, pool, &model->layers[0], err);
    if (status == ASSAY_OK && model->config.experts.count > 0)
        status = check_layer(model, pool, &model->layers[model->config.layers - 1], err);
    return status;
}
