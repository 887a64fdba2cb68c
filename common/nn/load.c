#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/architecture.h"
#include "common/nn/model_impl.h"

#define NAME_MAX_BYTES 256

enum assay_status assay_load_vector(struct assay_loading *l, const char *name, size_t n, float **ret)
{
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(l->checkpoint, name, n, 0, &tensor, l->err);
    if (status != ASSAY_OK)
        return status;
    float *vector = malloc(n * sizeof *vector);
    if (!vector)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", name);
    if (!assay_dtype_to_f32(tensor->dtype, tensor->data, n, vector)) {
        free(vector);
        return assay_err_set(l->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %s, wanted F32, BF16 or F16",
                             assay_checkpoint_dir(l->checkpoint), name, assay_dtype_name(tensor->dtype));
    }
    l->model->bytes += n * sizeof *vector;
    *ret = vector;
    return ASSAY_OK;
}

/* A bias that the config does not announce would be left out without a word: refused. */
static enum assay_status load_bias(struct assay_loading *l, const char *name, bool wanted, size_t n, float **ret)
{
    char full[NAME_MAX_BYTES + 32];
    snprintf(full, sizeof full, "%s.bias", name);
    if (wanted)
        return assay_load_vector(l, full, n, ret);
    if (assay_checkpoint_find(l->checkpoint, full))
        return assay_err_set(l->err, ASSAY_INVALID_ARGUMENT, "%s: %s is there, but config.json announces no such bias",
                             assay_checkpoint_dir(l->checkpoint), full);
    return ASSAY_OK;
}

static enum assay_status load_norm(struct assay_loading *l, const char *name, size_t n, struct assay_norm_weights *ret)
{
    char full[NAME_MAX_BYTES + 32];
    snprintf(full, sizeof full, "%s.weight", name);
    enum assay_status status = assay_load_vector(l, full, n, &ret->weight);
    if (status != ASSAY_OK)
        return status;
    ret->eps = l->model->config.norm_eps;
    for (size_t i = 0; l->family->norm_plus_one && i < n; i++)
        ret->weight[i] += 1.0f;
    return load_bias(l, name, l->model->config.norm == ASSAY_NORM_LAYER, n, &ret->bias);
}

/* What has been packed need not stay in memory as it lies in the file, too. */
static void forget(const struct assay_loading *l, const char *name)
{
    static const char *const parts[] = {"weight", "weight_packed"};
    for (size_t i = 0; i < ASSAY_COUNT(parts); i++) {
        char full[NAME_MAX_BYTES + 32];
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        const struct assay_tensor *tensor = assay_checkpoint_find(l->checkpoint, full);
        if (tensor)
            assay_checkpoint_forget(l->checkpoint, tensor);
    }
}

enum assay_status assay_load_linear(struct assay_loading *l, const char *name, size_t n, size_t k, bool biased,
                                    struct assay_linear_weights *ret)
{
    enum assay_status status = ASSAY_OK;
    if (l->checks_only)
        status = assay_panels_check(l->checkpoint, name, n, k, l->architecture->transposed, &l->quantization,
                                    &ret->panels.bytes, l->err);
    else
        status = assay_panels_load(l->checkpoint, l->pool, name, n, k, l->architecture->transposed, &l->quantization,
                                   &ret->panels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->model->bytes += ret->panels.bytes;
    forget(l, name);
    return load_bias(l, name, biased, n, &ret->bias);
}

/* Rows and columns of each matrix, and whether it has a bias. */
static void linear_shape(const struct assay_model_config *c, enum assay_linear which, size_t *n, size_t *k,
                         bool *biased)
{
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim, fixed = c->head_dim - c->rotary_dim;
    const bool direct = c->latent.kv_rank == 0;
    const struct {
        size_t n, k;
        bool biased;
    } shapes[ASSAY_LINEARS] = {
        [ASSAY_LINEAR_Q] = {query, c->hidden, c->attention_bias && direct},
        [ASSAY_LINEAR_K] = {key, c->hidden, c->attention_bias},
        [ASSAY_LINEAR_V] = {key, c->hidden, c->attention_bias},
        [ASSAY_LINEAR_QKV] = {query + 2 * key, c->hidden, c->attention_bias},
        [ASSAY_LINEAR_Q_DOWN] = {c->latent.q_rank, c->hidden, c->attention_bias},
        [ASSAY_LINEAR_Q_UP] = {query, c->latent.q_rank, false},
        [ASSAY_LINEAR_KV_DOWN] = {c->latent.kv_rank + c->rotary_dim, c->hidden, c->attention_bias},
        [ASSAY_LINEAR_KV_UP] = {c->heads * (fixed + c->value_dim), c->latent.kv_rank, false},
        [ASSAY_LINEAR_O] = {c->hidden, c->heads * c->value_dim, c->output_bias},
        [ASSAY_LINEAR_GATE] = {c->intermediate, c->hidden, c->mlp_bias},
        [ASSAY_LINEAR_UP] = {c->intermediate, c->hidden, c->mlp_bias},
        [ASSAY_LINEAR_GATE_UP] = {2 * c->intermediate, c->hidden, c->mlp_bias},
        [ASSAY_LINEAR_DOWN] = {c->hidden, c->intermediate, c->mlp_bias},
    };
    *n = shapes[which].n;
    *k = shapes[which].k;
    *biased = shapes[which].biased;
}

static bool has_experts(const struct assay_model_config *c, size_t layer)
{
    return c->experts.count > 0 && layer >= c->experts.first;
}

static bool has_linear(const struct assay_model_config *c, size_t layer, enum assay_linear which)
{
    bool latent_queries = c->latent.q_rank > 0;
    if (!c->family->linears[which])
        return false;
    if (which == ASSAY_LINEAR_Q)
        return !latent_queries;
    if (which == ASSAY_LINEAR_Q_DOWN || which == ASSAY_LINEAR_Q_UP)
        return latent_queries;
    return which < ASSAY_LINEAR_GATE || !has_experts(c, layer);
}

/* Elements that a norm has; 0: the model has no such norm. */
static size_t norm_size(const struct assay_model_config *c, enum assay_norm which)
{
    if (!c->family->norms[which])
        return 0;
    switch (which) {
    case ASSAY_NORM_Q:
    case ASSAY_NORM_K:
        return c->head_dim;
    case ASSAY_NORM_Q_LATENT:
        return c->latent.q_rank;
    case ASSAY_NORM_KV_LATENT:
        return c->latent.kv_rank;
    default:
        return c->hidden;
    }
}

static enum assay_status load_layer(struct assay_loading *l, size_t layer)
{
    const struct assay_model_config *c = &l->model->config;
    struct assay_layer *target = &l->model->layers[layer];
    enum assay_status status = ASSAY_OK;
    char name[NAME_MAX_BYTES];
    for (size_t i = 0; i < ASSAY_NORMS && status == ASSAY_OK; i++) {
        size_t n = norm_size(c, (enum assay_norm)i);
        if (n == 0)
            continue;
        snprintf(name, sizeof name, "%s%s%zu.%s", l->base, l->family->layers, layer, l->family->norms[i]);
        status = load_norm(l, name, n, &target->norms[i]);
        /* Norms of latents are made without the model's eps. */
        if (i == ASSAY_NORM_Q_LATENT || i == ASSAY_NORM_KV_LATENT)
            target->norms[i].eps = 1e-6f;
    }
    for (size_t i = 0; i < ASSAY_LINEARS && status == ASSAY_OK; i++) {
        size_t n, k;
        bool biased;
        if (!has_linear(c, layer, (enum assay_linear)i))
            continue;
        linear_shape(c, (enum assay_linear)i, &n, &k, &biased);
        snprintf(name, sizeof name, "%s%s%zu.%s", l->base, l->family->layers, layer, l->family->linears[i]);
        status = assay_load_linear(l, name, n, k, biased, &target->linears[i]);
    }
    if (status == ASSAY_OK && has_experts(c, layer))
        status = assay_load_experts(l, layer, &target->experts);
    return status;
}

/* A table of embeddings in its own dtype; *ret is to be freed. */
static enum assay_status load_table(struct assay_loading *l, const char *which, size_t rows, enum assay_dtype *dtype,
                                    void **ret)
{
    struct assay_model *model = l->model;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%s.weight", l->base, which);
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(l->checkpoint, name, rows, model->config.hidden, &tensor, l->err);
    if (status != ASSAY_OK)
        return status;
    if (tensor->dtype != ASSAY_F32 && tensor->dtype != ASSAY_BF16 && tensor->dtype != ASSAY_F16)
        return assay_err_set(l->err, ASSAY_UNIMPLEMENTED, "%s: %s is %s; an embedding is F32, BF16 or F16",
                             assay_checkpoint_dir(l->checkpoint), name, assay_dtype_name(tensor->dtype));
    model->bytes += tensor->bytes;
    if (l->checks_only)
        return ASSAY_OK;
    *ret = malloc(tensor->bytes);
    if (!*ret)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s, %zu bytes", name, tensor->bytes);
    memcpy(*ret, tensor->data, tensor->bytes);
    assay_checkpoint_forget(l->checkpoint, tensor);
    *dtype = tensor->dtype;
    return ASSAY_OK;
}

static enum assay_status load_all(struct assay_loading *l)
{
    struct assay_model *model = l->model;
    char what[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(l->checkpoint), "config.json", l->err);
    const cJSON *config = assay_checkpoint_config(l->checkpoint);
    if (status == ASSAY_OK)
        status = assay_model_config_read(config, what, &model->config, l->err);
    if (status == ASSAY_OK)
        status = assay_quantization_read(config, what, &l->quantization, l->err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&model->kernels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->family = model->config.family;
    l->architecture = assay_architecture_find(model->config.architecture);
    l->base = assay_architecture_base(l->architecture, l->checkpoint);
    model->layers = calloc(model->config.layers, sizeof *model->layers);
    if (!model->layers)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu layers", model->config.layers);
    status = load_table(l, l->architecture->embedding, model->config.vocab, &model->embedding_dtype, &model->embedding);
    if (status == ASSAY_OK && l->family->positions)
        status = load_table(l, l->family->positions, model->config.positions_max, &model->positions_dtype,
                            &model->positions);
    for (size_t i = 0; i < model->config.layers && status == ASSAY_OK; i++)
        status = load_layer(l, i);
    if (status != ASSAY_OK)
        return status;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%s", l->base, l->family->final_norm);
    return load_norm(l, name, model->config.hidden, &model->final_norm);
}

/* `pool` NULL: only looks at it. */
static enum assay_status load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                              struct assay_model **ret, struct assay_err *err)
{
    struct assay_model *model = calloc(1, sizeof *model);
    if (!model)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model");
    struct assay_loading loading = {.checkpoint = checkpoint, .pool = pool, .model = model, .err = err};
    loading.checks_only = !pool;
    enum assay_status status = load_all(&loading);
    if (status != ASSAY_OK) {
        assay_model_free(model);
        return status;
    }
    *ret = model;
    return ASSAY_OK;
}

enum assay_status assay_model_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                   struct assay_model **ret, struct assay_err *err)
{
    return load(checkpoint, pool, ret, err);
}

enum assay_status assay_model_check(const struct assay_checkpoint *checkpoint, struct assay_err *err)
{
    size_t bytes;
    return assay_model_measure(checkpoint, &bytes, err);
}

enum assay_status assay_model_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                      struct assay_err *err)
{
    struct assay_model *model = NULL;
    enum assay_status status = load(checkpoint, NULL, &model, err);
    if (status == ASSAY_OK)
        *ret_bytes = model->bytes;
    assay_model_free(model);
    return status;
}

void assay_linear_release(struct assay_linear_weights *linear)
{
    assay_panels_release(&linear->panels);
    free(linear->bias);
}

static void release_norm(struct assay_norm_weights *norm)
{
    free(norm->weight);
    free(norm->bias);
}

void assay_model_free(struct assay_model *model)
{
    if (!model)
        return;
    for (size_t i = 0; model->layers && i < model->config.layers; i++) {
        struct assay_layer *layer = &model->layers[i];
        for (size_t j = 0; j < ASSAY_NORMS; j++)
            release_norm(&layer->norms[j]);
        for (size_t j = 0; j < ASSAY_LINEARS; j++)
            assay_linear_release(&layer->linears[j]);
        assay_experts_free(layer->experts);
    }
    free(model->layers);
    release_norm(&model->final_norm);
    free(model->embedding);
    free(model->positions);
    free(model);
}

const struct assay_model_config *assay_model_config(const struct assay_model *model)
{
    return &model->config;
}

size_t assay_model_bytes(const struct assay_model *model)
{
    return model->bytes;
}

const char *assay_numerics_id(void)
{
    return "assay-f32-1";
}
