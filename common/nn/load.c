#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/architecture.h"
#include "common/nn/model_impl.h"

#define NAME_MAX_BYTES 256

struct loading {
    const struct assay_checkpoint *checkpoint;
    struct assay_pool *pool;
    const struct assay_architecture *architecture;
    const struct assay_family *family;
    const char *base;
    struct assay_quantization quantization;
    struct assay_model *model;
    struct assay_err *err;
};

/* A vector of n floats; *ret is to be freed. */
static enum assay_status load_vector(struct loading *l, const char *name, size_t n, float **ret)
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
static enum assay_status load_bias(struct loading *l, const char *name, bool wanted, size_t n, float **ret)
{
    char full[NAME_MAX_BYTES + 32];
    snprintf(full, sizeof full, "%s.bias", name);
    if (wanted)
        return load_vector(l, full, n, ret);
    if (assay_checkpoint_find(l->checkpoint, full))
        return assay_err_set(l->err, ASSAY_INVALID_ARGUMENT, "%s: %s is there, but config.json announces no such bias",
                             assay_checkpoint_dir(l->checkpoint), full);
    return ASSAY_OK;
}

static enum assay_status load_norm(struct loading *l, const char *name, size_t n, struct assay_norm_weights *ret)
{
    char full[NAME_MAX_BYTES + 32];
    snprintf(full, sizeof full, "%s.weight", name);
    enum assay_status status = load_vector(l, full, n, &ret->weight);
    if (status != ASSAY_OK)
        return status;
    for (size_t i = 0; l->family->norm_plus_one && i < n; i++)
        ret->weight[i] += 1.0f;
    return load_bias(l, name, l->model->config.norm == ASSAY_NORM_LAYER, n, &ret->bias);
}

/* Rows and columns of each matrix, and whether it has a bias. */
static void linear_shape(const struct assay_model_config *c, enum assay_linear which, size_t *n, size_t *k,
                         bool *biased)
{
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    const size_t shapes[ASSAY_LINEARS][2] = {
        [ASSAY_LINEAR_Q] = {query, c->hidden},
        [ASSAY_LINEAR_K] = {key, c->hidden},
        [ASSAY_LINEAR_V] = {key, c->hidden},
        [ASSAY_LINEAR_QKV] = {query + 2 * key, c->hidden},
        [ASSAY_LINEAR_O] = {c->hidden, query},
        [ASSAY_LINEAR_GATE] = {c->intermediate, c->hidden},
        [ASSAY_LINEAR_UP] = {c->intermediate, c->hidden},
        [ASSAY_LINEAR_GATE_UP] = {2 * c->intermediate, c->hidden},
        [ASSAY_LINEAR_DOWN] = {c->hidden, c->intermediate},
    };
    *n = shapes[which][0];
    *k = shapes[which][1];
    *biased = which < ASSAY_LINEAR_O ? c->attention_bias : which == ASSAY_LINEAR_O ? c->output_bias : c->mlp_bias;
}

static enum assay_status load_linear(struct loading *l, size_t layer, enum assay_linear which)
{
    size_t n, k;
    bool biased;
    char name[NAME_MAX_BYTES];
    linear_shape(&l->model->config, which, &n, &k, &biased);
    snprintf(name, sizeof name, "%s%s%zu.%s", l->base, l->family->layers, layer, l->family->linears[which]);
    struct assay_linear_weights *linear = &l->model->layers[layer].linears[which];
    enum assay_status status = assay_panels_load(l->checkpoint, l->pool, name, n, k, l->architecture->transposed,
                                                 &l->quantization, &linear->panels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->model->bytes += linear->panels.bytes;
    return load_bias(l, name, biased, n, &linear->bias);
}

static enum assay_status load_layer(struct loading *l, size_t layer)
{
    const struct assay_model_config *c = &l->model->config;
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_NORMS && status == ASSAY_OK; i++) {
        char name[NAME_MAX_BYTES];
        bool by_head = i == ASSAY_NORM_Q || i == ASSAY_NORM_K;
        if (!l->family->norms[i])
            continue;
        snprintf(name, sizeof name, "%s%s%zu.%s", l->base, l->family->layers, layer, l->family->norms[i]);
        status = load_norm(l, name, by_head ? c->head_dim : c->hidden, &l->model->layers[layer].norms[i]);
    }
    for (size_t i = 0; i < ASSAY_LINEARS && status == ASSAY_OK; i++)
        if (l->family->linears[i])
            status = load_linear(l, layer, (enum assay_linear)i);
    return status;
}

/* A table of embeddings in its own dtype; *ret is to be freed. */
static enum assay_status load_table(struct loading *l, const char *which, size_t rows, enum assay_dtype *dtype,
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
    *ret = malloc(tensor->bytes);
    if (!*ret)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s, %zu bytes", name, tensor->bytes);
    memcpy(*ret, tensor->data, tensor->bytes);
    *dtype = tensor->dtype;
    model->bytes += tensor->bytes;
    return ASSAY_OK;
}

static enum assay_status load_all(struct loading *l)
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

enum assay_status assay_model_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                   struct assay_model **ret, struct assay_err *err)
{
    struct assay_model *model = calloc(1, sizeof *model);
    if (!model)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model");
    struct loading loading = {.checkpoint = checkpoint, .pool = pool, .model = model, .err = err};
    enum assay_status status = load_all(&loading);
    if (status != ASSAY_OK) {
        assay_model_free(model);
        return status;
    }
    *ret = model;
    return ASSAY_OK;
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
        for (size_t j = 0; j < ASSAY_LINEARS; j++) {
            assay_panels_release(&layer->linears[j].panels);
            free(layer->linears[j].bias);
        }
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
