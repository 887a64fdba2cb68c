/* Encoders from checkpoints: the tensors by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/encoder_impl.h"

#define NAME_BYTES 160

struct loading {
    const struct assay_checkpoint *checkpoint;
    struct assay_pool *pool;
    struct assay_encoder *encoder;
    const char *base; /* of names: the family's, or "" where a model was saved alone */
    struct assay_err *err;
    bool checks_only; /* matrices and tables are looked at, and not read */
};

/* NAME.PART; checked alone, *ret stays NULL. */
static enum assay_status load_floats(struct loading *l, const char *name, const char *part, size_t rows, size_t columns,
                                     float **ret)
{
    enum assay_status status = ASSAY_OK;
    if (l->checks_only)
        status = assay_tensor_floats_check(l->checkpoint, name, part, rows, columns, l->err);
    else
        status = assay_tensor_floats(l->checkpoint, name, part, rows, columns, ret, l->err);
    if (status == ASSAY_OK)
        l->encoder->bytes += rows * (columns ? columns : 1) * sizeof **ret;
    return status;
}

static bool has(const struct loading *l, const char *name, const char *part)
{
    char full[NAME_BYTES + 32];
    snprintf(full, sizeof full, "%s.%s", name, part);
    return assay_checkpoint_find(l->checkpoint, full) != NULL;
}

/* Files of the first BERT models have `gamma` and `beta`. */
static enum assay_status load_norm(struct loading *l, const char *name, struct assay_norm_weights *ret)
{
    size_t n = l->encoder->config.hidden;
    bool old = has(l, name, "gamma") && !has(l, name, "weight");
    enum assay_status status = load_floats(l, name, old ? "gamma" : "weight", n, 0, &ret->weight);
    return status == ASSAY_OK ? load_floats(l, name, old ? "beta" : "bias", n, 0, &ret->bias) : status;
}

static enum assay_status load_linear(struct loading *l, const char *name, size_t n, size_t k,
                                     struct assay_linear_weights *ret)
{
    const struct assay_quantization none = {.kind = ASSAY_QUANTIZATION_NONE};
    enum assay_status status = ASSAY_OK;
    if (l->checks_only)
        status = assay_panels_check(l->checkpoint, name, n, k, false, &none, &ret->panels.bytes, l->err);
    else
        status = assay_panels_load(l->checkpoint, l->pool, name, n, k, false, &none, &ret->panels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->encoder->bytes += ret->panels.bytes;
    return load_floats(l, name, "bias", n, 0, &ret->bias);
}

static enum assay_status load_layer(struct loading *l, size_t index)
{
    const struct assay_encoder_config *c = &l->encoder->config;
    const struct assay_encoder_family *f = c->family;
    struct assay_encoder_layer *layer = &l->encoder->layers[index];
    char name[NAME_BYTES];
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_ENCODER_LINEARS && status == ASSAY_OK; i++) {
        snprintf(name, sizeof name, "%s%s%zu.%s", l->base, f->layers, index, f->linears[i]);
        status = load_linear(l, name, i == ASSAY_ENCODER_UP ? c->intermediate : c->hidden,
                             i == ASSAY_ENCODER_DOWN ? c->intermediate : c->hidden, &layer->linears[i]);
    }
    if (status != ASSAY_OK)
        return status;
    snprintf(name, sizeof name, "%s%s%zu.%s", l->base, f->layers, index, f->attention_norm);
    status = load_norm(l, name, &layer->attention_norm);
    snprintf(name, sizeof name, "%s%s%zu.%s", l->base, f->layers, index, f->output_norm);
    return status == ASSAY_OK ? load_norm(l, name, &layer->output_norm) : status;
}

static enum assay_status load_embeddings(struct loading *l)
{
    struct assay_encoder *e = l->encoder;
    const struct assay_encoder_config *c = &e->config;
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%sembeddings.word_embeddings", l->base);
    enum assay_status status = load_floats(l, name, "weight", c->vocab, c->hidden, &e->words);
    snprintf(name, sizeof name, "%sembeddings.position_embeddings", l->base);
    if (status == ASSAY_OK)
        status = load_floats(l, name, "weight", (size_t)(c->pad + 1) + c->positions, c->hidden, &e->positions);
    snprintf(name, sizeof name, "%sembeddings.token_type_embeddings", l->base);
    if (status == ASSAY_OK && c->types > 0)
        status = load_floats(l, name, "weight", c->types, c->hidden, &e->types);
    snprintf(name, sizeof name, "%sembeddings.LayerNorm", l->base);
    return status == ASSAY_OK ? load_norm(l, name, &e->embedding_norm) : status;
}

/* Half of the buckets are of keys before the row: one for each of the distances 0 to 7, then ranges that end with 11,
 * 15, 22, 31, 45, 63, 90; as transformers rounds 8 + 8 ln(distance / 8) / ln 16. The others are of keys behind it. */
static size_t bucket_of(size_t reach, size_t index)
{
    static const size_t begins[] = {8, 12, 16, 23, 32, 46, 64, 91};
    const size_t half = ASSAY_ENCODER_BUCKETS / 2, exact = half / 2;
    bool behind = index > reach - 1;
    size_t distance = behind ? index - (reach - 1) : reach - 1 - index, bucket = distance;
    if (distance >= exact)
        for (bucket = exact; bucket + 1 < half && distance >= begins[bucket + 1 - exact];)
            bucket++;
    return bucket + (behind ? half : 0);
}

/* What scores have added, by head and distance. */
static enum assay_status load_relative(struct loading *l)
{
    struct assay_encoder *e = l->encoder;
    const struct assay_encoder_config *c = &e->config;
    const size_t width = 2 * c->positions - 1;
    assay_auto(assay_free_ptr) float *table = NULL;
    char name[NAME_BYTES];
    if (!c->family->relative)
        return ASSAY_OK;
    snprintf(name, sizeof name, "%s%s", l->base, c->family->relative);
    enum assay_status status = load_floats(l, name, "weight", c->buckets, c->heads, &table);
    l->encoder->bytes += c->heads * width * sizeof *e->relative - c->buckets * c->heads * sizeof *table;
    if (status != ASSAY_OK || l->checks_only)
        return status;
    e->relative = calloc(c->heads, width * sizeof *e->relative);
    if (!e->relative)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", name);
    for (size_t h = 0; h < c->heads; h++)
        for (size_t i = 0; i < width; i++)
            e->relative[h * width + i] = table[bucket_of(c->positions, i) * c->heads + h];
    return ASSAY_OK;
}

/* What the first token goes through: of a model its pooler, where the files have it, of a classifier its head. */
static enum assay_status load_head(struct loading *l)
{
    struct assay_encoder *e = l->encoder;
    const struct assay_encoder_config *c = &e->config;
    const struct assay_encoder_family *f = c->family;
    bool classifies = c->labels > 0, pools = !classifies || !f->head.dense;
    char name[NAME_BYTES];
    enum assay_status status = ASSAY_OK;
    if (pools)
        snprintf(name, sizeof name, "%s%s", l->base, f->pooler ? f->pooler : "");
    else
        snprintf(name, sizeof name, "%s", f->head.dense);
    if (classifies || (f->pooler && has(l, name, "weight")))
        status = load_linear(l, name, c->hidden, c->hidden, &e->pooler);
    if (status == ASSAY_OK && classifies)
        status = load_linear(l, f->head.out, c->labels, c->hidden, &e->classifier);
    return status;
}

static void choose_activation(struct assay_encoder *e)
{
    const struct assay_vector_ops *ops = e->kernels->vector;
    switch (e->config.activation) {
    case ASSAY_ACTIVATION_SILU:
        e->activation = ops->silu;
        break;
    case ASSAY_ACTIVATION_GELU:
        e->activation = ops->gelu;
        break;
    case ASSAY_ACTIVATION_GELU_TANH:
        e->activation = ops->gelu_tanh;
        break;
    case ASSAY_ACTIVATION_RELU:
        e->activation = ops->relu;
        break;
    }
}

static enum assay_status load_all(struct loading *l)
{
    struct assay_encoder *e = l->encoder;
    const cJSON *config = assay_checkpoint_config(l->checkpoint);
    char what[ASSAY_PATH_MAX], name[NAME_BYTES];
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(l->checkpoint), "config.json", l->err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&e->kernels, l->err);
    if (status == ASSAY_OK)
        status = assay_encoder_config_read(config, what, &e->config, l->err);
    if (status == ASSAY_OK && cJSON_GetObjectItemCaseSensitive(config, "quantization_config"))
        status = assay_err_set(l->err, ASSAY_UNIMPLEMENTED, "%s: a quantized encoder is not implemented", what);
    if (status != ASSAY_OK)
        return status;
    choose_activation(e);
    snprintf(name, sizeof name, "%sembeddings.word_embeddings", e->config.family->base);
    l->base = has(l, name, "weight") ? e->config.family->base : "";
    e->layers = calloc(e->config.layers, sizeof *e->layers);
    if (!e->layers)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu layers", e->config.layers);
    status = load_embeddings(l);
    if (status == ASSAY_OK)
        status = load_relative(l);
    for (size_t i = 0; i < e->config.layers && status == ASSAY_OK; i++)
        status = load_layer(l, i);
    return status == ASSAY_OK ? load_head(l) : status;
}

static enum assay_status load(struct loading *l, struct assay_encoder **ret)
{
    l->encoder = calloc(1, sizeof *l->encoder);
    if (!l->encoder)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for an encoder");
    enum assay_status status = load_all(l);
    if (status == ASSAY_OK)
        *ret = l->encoder;
    else
        assay_encoder_free(l->encoder);
    return status;
}

enum assay_status assay_encoder_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                     struct assay_encoder **ret, struct assay_err *err)
{
    struct loading loading = {.checkpoint = checkpoint, .pool = pool, .err = err};
    return load(&loading, ret);
}

enum assay_status assay_encoder_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                        struct assay_err *err)
{
    struct loading loading = {.checkpoint = checkpoint, .err = err, .checks_only = true};
    struct assay_encoder *encoder = NULL;
    enum assay_status status = load(&loading, &encoder);
    if (status == ASSAY_OK)
        *ret_bytes = encoder->bytes;
    assay_encoder_free(status == ASSAY_OK ? encoder : NULL);
    return status;
}

static void release_linear(struct assay_linear_weights *linear)
{
    assay_panels_release(&linear->panels);
    free(linear->bias);
}

static void release_norm(struct assay_norm_weights *norm)
{
    free(norm->weight);
    free(norm->bias);
}

void assay_encoder_free(struct assay_encoder *encoder)
{
    if (!encoder)
        return;
    for (size_t i = 0; encoder->layers && i < encoder->config.layers; i++) {
        for (size_t j = 0; j < ASSAY_ENCODER_LINEARS; j++)
            release_linear(&encoder->layers[i].linears[j]);
        release_norm(&encoder->layers[i].attention_norm);
        release_norm(&encoder->layers[i].output_norm);
    }
    free(encoder->layers);
    release_linear(&encoder->pooler);
    release_linear(&encoder->classifier);
    release_norm(&encoder->embedding_norm);
    free(encoder->words);
    free(encoder->positions);
    free(encoder->types);
    free(encoder->relative);
    free(encoder);
}
