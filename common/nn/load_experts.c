#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/model_impl.h"

#define NAME_MAX_BYTES 256

/* "mlp.gate_proj" -> "gate_proj" */
static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static enum assay_status load_mlp(struct assay_loading *l, const char *prefix, size_t width,
                                  struct assay_mlp_weights *ret)
{
    const char *const *linears = l->family->linears;
    size_t hidden = l->model->config.hidden;
    const struct {
        const char *name;
        size_t n, k;
        struct assay_linear_weights *to;
    } parts[] = {{linears[ASSAY_LINEAR_GATE], width, hidden, &ret->gate},
                 {linears[ASSAY_LINEAR_UP], width, hidden, &ret->up},
                 {linears[ASSAY_LINEAR_DOWN], hidden, width, &ret->down}};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(parts) && status == ASSAY_OK; i++) {
        char name[NAME_MAX_BYTES];
        snprintf(name, sizeof name, "%s%s", prefix, last_part(parts[i].name));
        status = assay_load_linear(l, name, parts[i].n, parts[i].k, false, parts[i].to);
    }
    return status;
}

/* The router is multiplied in f32 whatever its dtype. */
static enum assay_status load_router(struct assay_loading *l, const char *layer, struct assay_experts *experts)
{
    const struct assay_model_config *c = &l->model->config;
    char name[NAME_MAX_BYTES];
    assay_auto(assay_free_ptr) float *weight = NULL;
    snprintf(name, sizeof name, "%s%s", layer, l->family->experts.router);
    enum assay_status status =
        assay_tensor_floats(l->checkpoint, name, "weight", c->experts.count, c->hidden, &weight, l->err);
    if (status == ASSAY_OK && !l->checks_only)
        status =
            assay_panels_pack(l->pool, ASSAY_F32, weight, NULL, c->experts.count, c->hidden, &experts->router, l->err);
    if (status != ASSAY_OK)
        return status;
    l->model->bytes += assay_panels_plain_bytes(ASSAY_F32, c->experts.count, c->hidden);
    snprintf(name, sizeof name, "%s%s", layer, l->family->experts.correction);
    return assay_load_vector(l, name, c->experts.count, &experts->correction);
}

enum assay_status assay_load_experts(struct assay_loading *l, size_t layer, struct assay_experts **ret)
{
    const struct assay_model_config *c = &l->model->config;
    char start[NAME_MAX_BYTES / 2], name[NAME_MAX_BYTES];
    struct assay_experts *experts = calloc(1, sizeof *experts);
    *ret = experts;
    if (experts)
        experts->each = calloc(c->experts.count, sizeof *experts->each);
    if (!experts || !experts->each)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu experts", c->experts.count);
    experts->count = c->experts.count;
    snprintf(start, sizeof start, "%s%s%zu.", l->base, l->family->layers, layer);
    enum assay_status status = load_router(l, start, experts);
    snprintf(name, sizeof name, "%s%s", start, l->family->experts.shared);
    if (status == ASSAY_OK)
        status = load_mlp(l, name, c->experts.shared * c->experts.intermediate, &experts->shared);
    for (size_t i = 0; i < experts->count && status == ASSAY_OK; i++) {
        snprintf(name, sizeof name, "%s%s%zu.", start, l->family->experts.each, i);
        status = load_mlp(l, name, c->experts.intermediate, &experts->each[i]);
    }
    return status;
}

static void release_mlp(struct assay_mlp_weights *mlp)
{
    assay_linear_release(&mlp->gate);
    assay_linear_release(&mlp->up);
    assay_linear_release(&mlp->down);
}

void assay_experts_free(struct assay_experts *experts)
{
    if (!experts)
        return;
    for (size_t i = 0; i < experts->count; i++)
        release_mlp(&experts->each[i]);
    release_mlp(&experts->shared);
    assay_panels_release(&experts->router);
    free(experts->correction);
    free(experts->each);
    free(experts);
}
