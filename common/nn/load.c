#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/model_impl.h"

#define NAME_MAX_BYTES 256

struct loading {
    const struct assay_checkpoint *checkpoint;
    struct assay_pool *pool;
    const struct assay_family *family;
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

static enum assay_status load_linear(struct loading *l, size_t layer, enum assay_linear which)
{
    const struct assay_model_config *c = &l->model->config;
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    const size_t shapes[ASSAY_LINEARS][2] = {
        [ASSAY_LINEAR_Q] = {query, c->hidden},
        [ASSAY_LINEAR_K] = {key, c->hidden},
        [ASSAY_LINEAR_V] = {key, c->hidden},
        [ASSAY_LINEAR_O] = {c->hidden, query},
        [ASSAY_LINEAR_GATE] = {c->intermediate, c->hidden},
        [ASSAY_LINEAR_UP] = {c->intermediate, c->hidden},
        [ASSAY_LINEAR_DOWN] = {c->hidden, c->intermediate},
    };
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%zu.%s", l->family->layer_prefix, layer, l->family->linears[which]);
    struct assay_linear_weights *linear = &l->model->layers[layer].linears[which];
    enum assay_status status = assay_panels_load(l->checkpoint, l->pool, name, shapes[which][0], shapes[which][1],
                                                 &l->quantization, &linear->panels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->model->bytes += linear->panels.bytes;
    bool biased = which <= ASSAY_LINEAR_O ? c->attention_bias : c->mlp_bias;
    return load_bias(l, name, biased, shapes[which][0], &linear->bias);
}

static enum assay_status load_layer(struct loading *l, size_t layer)
{
    struct assay_layer *target = &l->model->layers[layer];
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s%zu.%s.weight", l->family->layer_prefix, layer, l->family->attention_norm);
    enum assay_status status = load_vector(l, name, l->model->config.hidden, &target->attention_norm);
    if (status != ASSAY_OK)
        return status;
    snprintf(name, sizeof name, "%s%zu.%s.weight", l->family->layer_prefix, layer, l->family->mlp_norm);
    status = load_vector(l, name, l->model->config.hidden, &target->mlp_norm);
    for (size_t i = 0; i < ASSAY_LINEARS && status == ASSAY_OK; i++)
        status = load_linear(l, layer, (enum assay_linear)i);
    return status;
}

static enum assay_status load_embedding(struct loading *l)
{
    struct assay_model *model = l->model;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s.weight", l->family->embedding);
    const struct assay_tensor *tensor;
    enum assay_status status =
        assay_tensor_get(l->checkpoint, name, model->config.vocab, model->config.hidden, &tensor, l->err);
    if (status != ASSAY_OK)
        return status;
    if (tensor->dtype != ASSAY_F32 && tensor->dtype != ASSAY_BF16 && tensor->dtype != ASSAY_F16)
        return assay_err_set(l->err, ASSAY_UNIMPLEMENTED, "%s: %s is %s; an embedding is F32, BF16 or F16",
                             assay_checkpoint_dir(l->checkpoint), name, assay_dtype_name(tensor->dtype));
    model->embedding = malloc(tensor->bytes);
    if (!model->embedding)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s, %zu bytes", name, tensor->bytes);
    memcpy(model->embedding, tensor->data, tensor->bytes);
    model->embedding_dtype = tensor->dtype;
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
    l->family = assay_family_find(model->config.architecture);
    model->layers = calloc(model->config.layers, sizeof *model->layers);
    if (!model->layers)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu layers", model->config.layers);
    status = load_embedding(l);
    for (size_t i = 0; i < model->config.layers && status == ASSAY_OK; i++)
        status = load_layer(l, i);
    if (status != ASSAY_OK)
        return status;
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "%s.weight", l->family->final_norm);
    return load_vector(l, name, model->config.hidden, &model->final_norm);
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

void assay_model_free(struct assay_model *model)
{
    if (!model)
        return;
    for (size_t i = 0; model->layers && i < model->config.layers; i++) {
        struct assay_layer *layer = &model->layers[i];
        free(layer->attention_norm);
        free(layer->mlp_norm);
        for (size_t j = 0; j < ASSAY_LINEARS; j++) {
            assay_panels_release(&layer->linears[j].panels);
            free(layer->linears[j].bias);
        }
    }
    free(model->layers);
    free(model->final_norm);
    free(model->embedding);
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
