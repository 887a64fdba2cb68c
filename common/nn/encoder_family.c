/* The encoders, one row each, and what of config.json they share. */
#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/config_reader.h"
#include "common/nn/encoder_impl.h"

#define BERT_LAYERS                                                                                                    \
    .layers = "encoder.layer.",                                                                                        \
    .linears = {[ASSAY_ENCODER_Q] = "attention.self.query", [ASSAY_ENCODER_K] = "attention.self.key",                  \
                [ASSAY_ENCODER_V] = "attention.self.value", [ASSAY_ENCODER_O] = "attention.output.dense",              \
                [ASSAY_ENCODER_UP] = "intermediate.dense",  [ASSAY_ENCODER_DOWN] = "output.dense"},                    \
    .attention_norm = "attention.output.LayerNorm", .output_norm = "output.LayerNorm", .pooler = "pooler.dense"
#define BERT_KEYS                                                                                                      \
    .keys = {.hidden = "hidden_size",                                                                                  \
             .layers = "num_hidden_layers",                                                                            \
             .heads = "num_attention_heads",                                                                           \
             .intermediate = "intermediate_size",                                                                      \
             .activation = "hidden_act",                                                                               \
             .types = "type_vocab_size",                                                                               \
             .norm_eps = "layer_norm_eps"}
#define ROBERTA                                                                                                        \
    BERT_LAYERS, BERT_KEYS, .base = "roberta.", .positions = ASSAY_ENCODER_FROM_PAD,                                   \
                            .head = {.dense = "classifier.dense", .out = "classifier.out_proj"}

static const struct assay_encoder_family families[] = {
    {.stem = "Bert", .base = "bert.", BERT_LAYERS, BERT_KEYS, .head = {.out = "classifier"}},
    {.stem = "Roberta", ROBERTA},
    {.stem = "XLMRoberta", ROBERTA},
    {.stem = "Camembert", ROBERTA},
    {
        .stem = "MPNet",
        .base = "mpnet.",
        .layers = "encoder.layer.",
        .linears = {[ASSAY_ENCODER_Q] = "attention.attn.q",
                    [ASSAY_ENCODER_K] = "attention.attn.k",
                    [ASSAY_ENCODER_V] = "attention.attn.v",
                    [ASSAY_ENCODER_O] = "attention.attn.o",
                    [ASSAY_ENCODER_UP] = "intermediate.dense",
                    [ASSAY_ENCODER_DOWN] = "output.dense"},
        .attention_norm = "attention.LayerNorm",
        .output_norm = "output.LayerNorm",
        .pooler = "pooler.dense",
        .relative = "encoder.relative_attention_bias",
        .head = {.dense = "classifier.dense", .out = "classifier.out_proj"},
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .intermediate = "intermediate_size",
                 .activation = "hidden_act",
                 .norm_eps = "layer_norm_eps",
                 .buckets = "relative_attention_num_buckets"},
        .positions = ASSAY_ENCODER_FROM_PAD_1,
    },
    {
        .stem = "DistilBert",
        .base = "distilbert.",
        .layers = "transformer.layer.",
        .linears = {[ASSAY_ENCODER_Q] = "attention.q_lin",
                    [ASSAY_ENCODER_K] = "attention.k_lin",
                    [ASSAY_ENCODER_V] = "attention.v_lin",
                    [ASSAY_ENCODER_O] = "attention.out_lin",
                    [ASSAY_ENCODER_UP] = "ffn.lin1",
                    [ASSAY_ENCODER_DOWN] = "ffn.lin2"},
        .attention_norm = "sa_layer_norm",
        .output_norm = "output_layer_norm",
        .head = {.dense = "pre_classifier", .out = "classifier", .relu = true},
        .keys = {.hidden = "dim",
                 .layers = "n_layers",
                 .heads = "n_heads",
                 .intermediate = "hidden_dim",
                 .activation = "activation"},
    },
};
static const char names[] =
    "Bert, Roberta, XLMRoberta, Camembert, MPNet and DistilBert, each with Model, ForMaskedLM or "
    "ForSequenceClassification behind its name";

/* What stands behind the stem; NULL: another. */
static const char *behind_stem(const struct assay_encoder_family *family, const char *architecture)
{
    size_t len = strlen(family->stem);
    return strncmp(architecture, family->stem, len) == 0 ? architecture + len : NULL;
}

const struct assay_encoder_family *assay_encoder_family_find(const char *architecture, bool *ret_classifies)
{
    for (size_t i = 0; i < ASSAY_COUNT(families); i++) {
        const char *kind = behind_stem(&families[i], architecture);
        bool classifies = kind && strcmp(kind, "ForSequenceClassification") == 0;
        if (!kind || (!classifies && strcmp(kind, "Model") != 0 && strcmp(kind, "ForMaskedLM") != 0))
            continue;
        *ret_classifies = classifies;
        return &families[i];
    }
    return NULL;
}

const char *assay_encoder_family_names(void)
{
    return names;
}

static const char *architecture_of(const cJSON *config)
{
    return cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(config, "architectures"), 0));
}

bool assay_encoder_is(const cJSON *config)
{
    const char *architecture = architecture_of(config);
    for (size_t i = 0; architecture && i < ASSAY_COUNT(families); i++) {
        const char *kind = behind_stem(&families[i], architecture);
        if (kind && (strcmp(kind, "Model") == 0 || strncmp(kind, "For", 3) == 0))
            return true;
    }
    return false;
}

/* Options that would change the result. */
static enum assay_status check_options(const cJSON *config, const char *what, const struct assay_encoder_config *c,
                                       struct assay_err *err)
{
    static const char position_type[] = "position_embedding_type", absolute[] = "absolute";
    static const char *const refused[] = {"is_decoder", "pruned_heads"};
    static const char *const own[] = {"is_causal", NULL}; /* what encoders are not, whatever it says */
    const char *type = absolute;
    enum assay_status status = assay_json_get_string(config, what, position_type, false, &type, err);
    if (status != ASSAY_OK)
        return status;
    if (strcmp(type, absolute) != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s \"%s\" is not implemented, only \"%s\"", what,
                             position_type, type, absolute);
    for (size_t i = 0; i < ASSAY_COUNT(refused); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, refused[i]);
        if (item && !cJSON_IsNull(item) && !cJSON_IsFalse(item) && !(cJSON_IsObject(item) && !item->child))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the option '%s' is not implemented for %s", what,
                                 refused[i], c->architecture);
    }
    return assay_options_check(config, what, c->architecture, own, err);
}

static void read_sizes(struct assay_reader *r, struct assay_encoder_config *c)
{
    const struct assay_encoder_family *f = c->family;
    c->hidden = assay_reader_size(r, f->keys.hidden, true, 0, ASSAY_MODEL_DIM_MAX);
    c->layers = assay_reader_size(r, f->keys.layers, true, 0, ASSAY_MODEL_LAYERS_MAX);
    c->heads = assay_reader_size(r, f->keys.heads, true, 0, ASSAY_MODEL_DIM_MAX);
    c->intermediate = assay_reader_size(r, f->keys.intermediate, true, 0, ASSAY_MODEL_DIM_MAX);
    c->vocab = assay_reader_size(r, "vocab_size", true, 0, ASSAY_MODEL_VOCAB_MAX);
    c->positions = assay_reader_size(r, "max_position_embeddings", true, 0, ASSAY_MODEL_DIM_MAX);
    c->types = f->keys.types ? assay_reader_size(r, f->keys.types, true, 0, ASSAY_MODEL_DIM_MAX) : 0;
    c->buckets =
        f->keys.buckets ? assay_reader_size(r, f->keys.buckets, false, ASSAY_ENCODER_BUCKETS, ASSAY_MODEL_DIM_MAX) : 0;
    double eps = f->keys.norm_eps ? assay_reader_double(r, f->keys.norm_eps, false, 1e-12) : 1e-12;
    c->norm_eps = (float)eps;
    if (r->status != ASSAY_OK)
        return;
    if (!(eps >= 0 && eps < 1))
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %g, wanted 0 to 1", r->what,
                                  f->keys.norm_eps, eps);
    else if (f->keys.buckets && c->buckets < ASSAY_ENCODER_BUCKETS)
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %zu, wanted at least %d", r->what,
                                  f->keys.buckets, c->buckets, ASSAY_ENCODER_BUCKETS);
    else if (c->hidden % c->heads != 0)
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s %zu is no multiple of %s %zu", r->what,
                                  f->keys.hidden, c->hidden, f->keys.heads, c->heads);
}

/* Positions up to that of padding are not those of a text. */
static void read_padding(struct assay_reader *r, struct assay_encoder_config *c)
{
    static const char key[] = "pad_token_id";
    int64_t pad = 1;
    c->pad = -1;
    if (c->family->positions == ASSAY_ENCODER_FROM_0 || r->status != ASSAY_OK)
        return;
    bool option = c->family->positions == ASSAY_ENCODER_FROM_PAD;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(r->object, key);
    if (option && item && cJSON_IsNull(item))
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is null, but positions begin behind it",
                                  r->what, key);
    else if (option)
        r->status = assay_json_get_int(r->object, r->what, key, false, 0, INT32_MAX, &pad, r->err);
    if (r->status != ASSAY_OK)
        return;
    if ((size_t)pad + 1 >= c->positions) {
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT,
                                  "%s: %s %lld leaves no position of the %zu of max_position_embeddings", r->what, key,
                                  (long long)pad, c->positions);
        return;
    }
    c->pad = (int32_t)pad;
    c->positions -= (size_t)pad + 1;
}

/* Labels are named by id2label, else counted by num_labels, else two. */
static void read_labels(struct assay_reader *r, size_t *ret)
{
    const cJSON *labels = cJSON_GetObjectItemCaseSensitive(r->object, "id2label");
    size_t named = cJSON_IsObject(labels) ? (size_t)cJSON_GetArraySize(labels) : 2;
    *ret = assay_reader_size(r, "num_labels", false, named, ASSAY_MODEL_DIM_MAX);
    if (r->status == ASSAY_OK && (*ret < 1 || *ret > ASSAY_MODEL_DIM_MAX))
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: id2label has %zu labels, wanted 1 to %u",
                                  r->what, *ret, ASSAY_MODEL_DIM_MAX);
}

enum assay_status assay_encoder_config_read(const cJSON *config, const char *what, struct assay_encoder_config *ret,
                                            struct assay_err *err)
{
    const char *architecture = architecture_of(config);
    struct assay_encoder_config c = {0};
    struct assay_reader r = {config, what, err, ASSAY_OK};
    bool classifies = false;
    c.family = architecture ? assay_encoder_family_find(architecture, &classifies) : NULL;
    if (!c.family)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: the encoder architecture \"%.100s\" is not implemented; these are: %s", what,
                             architecture ? architecture : "(none)", assay_encoder_family_names());
    snprintf(c.architecture, sizeof c.architecture, "%s", architecture);
    r.status = check_options(config, what, &c, err);
    read_sizes(&r, &c);
    read_padding(&r, &c);
    if (classifies)
        read_labels(&r, &c.labels);
    const char *activation = assay_reader_string(&r, c.family->keys.activation, "gelu");
    if (r.status == ASSAY_OK)
        r.status = assay_activation_parse(activation, what, &c.activation, err);
    if (r.status == ASSAY_OK)
        *ret = c;
    return r.status;
}
