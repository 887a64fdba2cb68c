/* Encoders from checkpoints: what config.json may say, and the tensors by name. */
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
    const char *base; /* "" or "bert." */
    struct assay_err *err;
};

static const char *const linear_names[ASSAY_ENCODER_LINEARS] = {
    [ASSAY_ENCODER_Q] = "attention.self.query", [ASSAY_ENCODER_K] = "attention.self.key",
    [ASSAY_ENCODER_V] = "attention.self.value", [ASSAY_ENCODER_O] = "attention.output.dense",
    [ASSAY_ENCODER_UP] = "intermediate.dense",  [ASSAY_ENCODER_DOWN] = "output.dense",
};

static enum assay_status check_text(const cJSON *config, const char *what, const char *key, const char *wanted,
                                    struct assay_err *err)
{
    const char *text = wanted;
    enum assay_status status = assay_json_get_string(config, what, key, false, &text, err);
    if (status == ASSAY_OK && strcmp(text, wanted) != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s \"%s\" is not implemented, only \"%s\"", what, key, text,
                             wanted);
    return status;
}

static enum assay_status check_false(const cJSON *config, const char *what, const char *key, struct assay_err *err)
{
    bool value = false;
    enum assay_status status = assay_json_get_bool(config, what, key, false, &value, err);
    if (status == ASSAY_OK && value)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s is not implemented for encoders", what, key);
    return status;
}

static enum assay_status read_activation(const cJSON *config, const char *what, struct assay_encoder *encoder,
                                         struct assay_err *err)
{
    const struct assay_vector_ops *ops = encoder->kernels->vector;
    const char *name = "gelu";
    enum assay_status status = assay_json_get_string(config, what, "hidden_act", false, &name, err);
    if (status != ASSAY_OK)
        return status;
    if (strcmp(name, "gelu") == 0)
        encoder->activation = ops->gelu;
    else if (strcmp(name, "gelu_new") == 0 || strcmp(name, "gelu_pytorch_tanh") == 0)
        encoder->activation = ops->gelu_tanh;
    else if (strcmp(name, "relu") == 0)
        encoder->activation = ops->relu;
    else if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0)
        encoder->activation = ops->silu;
    else
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: hidden_act \"%s\" is not implemented, only gelu, gelu_new, relu and silu", what,
                             name);
    return ASSAY_OK;
}

static enum assay_status read_sizes(const cJSON *config, const char *what, struct assay_encoder_config *c,
                                    struct assay_err *err)
{
    const struct {
        const char *key;
        size_t *to;
        int64_t max;
    } sizes[] = {
        {"hidden_size", &c->hidden, ASSAY_MODEL_DIM_MAX},
        {"num_hidden_layers", &c->layers, ASSAY_MODEL_LAYERS_MAX},
        {"num_attention_heads", &c->heads, ASSAY_MODEL_DIM_MAX},
        {"intermediate_size", &c->intermediate, ASSAY_MODEL_DIM_MAX},
        {"vocab_size", &c->vocab, ASSAY_MODEL_VOCAB_MAX},
        {"max_position_embeddings", &c->positions, ASSAY_MODEL_DIM_MAX},
        {"type_vocab_size", &c->types, ASSAY_MODEL_DIM_MAX},
    };
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++) {
        int64_t value = 0;
        enum assay_status status = assay_json_get_int(config, what, sizes[i].key, true, 1, sizes[i].max, &value, err);
        if (status != ASSAY_OK)
            return status;
        *sizes[i].to = (size_t)value;
    }
    double eps = 1e-12;
    enum assay_status status = assay_json_get_double(config, what, "layer_norm_eps", false, &eps, err);
    if (status != ASSAY_OK)
        return status;
    if (!(eps >= 0 && eps < 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: layer_norm_eps is %g, wanted 0 to 1", what, eps);
    c->norm_eps = (float)eps;
    if (c->hidden % c->heads != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: hidden_size %zu is no multiple of num_attention_heads %zu", what, c->hidden,
                             c->heads);
    return ASSAY_OK;
}

/* Labels are named by id2label, else counted by num_labels, else two. */
static enum assay_status read_labels(const cJSON *config, const char *what, size_t *ret, struct assay_err *err)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "id2label");
    int64_t labels = cJSON_IsObject(names) ? cJSON_GetArraySize(names) : 2;
    enum assay_status status =
        assay_json_get_int(config, what, "num_labels", false, 1, ASSAY_MODEL_DIM_MAX, &labels, err);
    if (status == ASSAY_OK && labels < 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: id2label is empty", what);
    *ret = (size_t)labels;
    return status;
}

static enum assay_status read_config(struct loading *l, const char *what)
{
    const cJSON *config = assay_checkpoint_config(l->checkpoint);
    const char *architecture =
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(config, "architectures"), 0));
    bool classifies = architecture && strcmp(architecture, "BertForSequenceClassification") == 0;
    if (!architecture || (!classifies && strcmp(architecture, "BertModel") != 0))
        return assay_err_set(l->err, ASSAY_UNIMPLEMENTED,
                             "%s: the encoder architecture \"%s\" is not implemented, only BertModel and "
                             "BertForSequenceClassification",
                             what, architecture ? architecture : "(none)");
    enum assay_status status = read_sizes(config, what, &l->encoder->config, l->err);
    if (status == ASSAY_OK)
        status = check_text(config, what, "position_embedding_type", "absolute", l->err);
    if (status == ASSAY_OK)
        status = check_false(config, what, "is_decoder", l->err);
    if (status == ASSAY_OK)
        status = check_false(config, what, "add_cross_attention", l->err);
    if (status == ASSAY_OK)
        status = read_activation(config, what, l->encoder, l->err);
    if (status == ASSAY_OK && cJSON_GetObjectItemCaseSensitive(config, "quantization_config"))
        status = assay_err_set(l->err, ASSAY_UNIMPLEMENTED, "%s: a quantized encoder is not implemented", what);
    if (status == ASSAY_OK && classifies)
        status = read_labels(config, what, &l->encoder->config.labels, l->err);
    return status;
}

static enum assay_status load_floats(struct loading *l, const char *name, const char *part, size_t rows, size_t columns,
                                     float **ret)
{
    enum assay_status status = assay_tensor_floats(l->checkpoint, name, part, rows, columns, ret, l->err);
    if (status == ASSAY_OK)
        l->encoder->bytes += rows * (columns ? columns : 1) * sizeof **ret;
    return status;
}

static enum assay_status load_norm(struct loading *l, const char *name, struct assay_norm_weights *ret)
{
    enum assay_status status = load_floats(l, name, "weight", l->encoder->config.hidden, 0, &ret->weight);
    return status == ASSAY_OK ? load_floats(l, name, "bias", l->encoder->config.hidden, 0, &ret->bias) : status;
}

static enum assay_status load_linear(struct loading *l, const char *name, size_t n, size_t k,
                                     struct assay_linear_weights *ret)
{
    const struct assay_quantization none = {.kind = ASSAY_QUANTIZATION_NONE};
    enum assay_status status =
        assay_panels_load(l->checkpoint, l->pool, name, n, k, false, &none, &ret->panels, l->err);
    if (status != ASSAY_OK)
        return status;
    l->encoder->bytes += ret->panels.bytes;
    return load_floats(l, name, "bias", n, 0, &ret->bias);
}

static enum assay_status load_layer(struct loading *l, size_t index)
{
    const struct assay_encoder_config *c = &l->encoder->config;
    struct assay_encoder_layer *layer = &l->encoder->layers[index];
    char name[NAME_BYTES];
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_ENCODER_LINEARS && status == ASSAY_OK; i++) {
        snprintf(name, sizeof name, "%sencoder.layer.%zu.%s", l->base, index, linear_names[i]);
        status = load_linear(l, name, i == ASSAY_ENCODER_UP ? c->intermediate : c->hidden,
                             i == ASSAY_ENCODER_DOWN ? c->intermediate : c->hidden, &layer->linears[i]);
    }
    if (status != ASSAY_OK)
        return status;
    snprintf(name, sizeof name, "%sencoder.layer.%zu.attention.output.LayerNorm", l->base, index);
    status = load_norm(l, name, &layer->attention_norm);
    snprintf(name, sizeof name, "%sencoder.layer.%zu.output.LayerNorm", l->base, index);
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
        status = load_floats(l, name, "weight", c->positions, c->hidden, &e->positions);
    snprintf(name, sizeof name, "%sembeddings.token_type_embeddings", l->base);
    if (status == ASSAY_OK)
        status = load_floats(l, name, "weight", c->types, c->hidden, &e->type);
    snprintf(name, sizeof name, "%sembeddings.LayerNorm", l->base);
    return status == ASSAY_OK ? load_norm(l, name, &e->embedding_norm) : status;
}

static enum assay_status load_all(struct loading *l)
{
    struct assay_encoder *e = l->encoder;
    char what[ASSAY_PATH_MAX], name[NAME_BYTES];
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(l->checkpoint), "config.json", l->err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&e->kernels, l->err);
    if (status == ASSAY_OK)
        status = read_config(l, what);
    if (status != ASSAY_OK)
        return status;
    l->base = assay_checkpoint_find(l->checkpoint, "bert.embeddings.word_embeddings.weight") ? "bert." : "";
    e->layers = calloc(e->config.layers, sizeof *e->layers);
    if (!e->layers)
        return assay_err_set(l->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu layers", e->config.layers);
    status = load_embeddings(l);
    for (size_t i = 0; i < e->config.layers && status == ASSAY_OK; i++)
        status = load_layer(l, i);
    snprintf(name, sizeof name, "%spooler.dense.weight", l->base);
    bool pools = e->config.labels > 0 || assay_checkpoint_find(l->checkpoint, name);
    snprintf(name, sizeof name, "%spooler.dense", l->base);
    if (status == ASSAY_OK && pools)
        status = load_linear(l, name, e->config.hidden, e->config.hidden, &e->pooler);
    if (status == ASSAY_OK && e->config.labels > 0)
        status = load_linear(l, "classifier", e->config.labels, e->config.hidden, &e->classifier);
    return status;
}

enum assay_status assay_encoder_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                     struct assay_encoder **ret, struct assay_err *err)
{
    struct assay_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for an encoder");
    struct loading loading = {.checkpoint = checkpoint, .pool = pool, .encoder = encoder, .err = err};
    enum assay_status status = load_all(&loading);
    if (status != ASSAY_OK) {
        assay_encoder_free(encoder);
        return status;
    }
    *ret = encoder;
    return ASSAY_OK;
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
    free(encoder->type);
    free(encoder);
}
