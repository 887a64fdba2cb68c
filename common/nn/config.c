/* config.json of a decoder. What would change the result and is not implemented is refused by name. */
#include <math.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/architecture.h"
#include "common/nn/config_reader.h"

bool assay_model_is(const cJSON *config)
{
    const char *name =
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(config, "architectures"), 0));
    return name && assay_family_find(name);
}

static enum assay_status find_family(const cJSON *config, const char *what, struct assay_model_config *c,
                                     struct assay_err *err)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "architectures");
    const cJSON *name = cJSON_IsArray(names) ? cJSON_GetArrayItem(names, 0) : NULL;
    if (!cJSON_IsString(name) || cJSON_GetArraySize(names) != 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'architectures' is to name one architecture", what);
    c->family = assay_family_find(name->valuestring);
    if (!c->family)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the architecture %.100s is not implemented; these are: %s",
                             what, name->valuestring, assay_family_names());
    c->architecture = c->family->architecture;
    return ASSAY_OK;
}

static void read_sizes(struct assay_reader *r, struct assay_model_config *c)
{
    const struct assay_family *f = c->family;
    c->hidden = assay_reader_size(r, f->keys.hidden, true, 0, ASSAY_MODEL_DIM_MAX);
    c->layers = assay_reader_size(r, f->keys.layers, true, 0, ASSAY_MODEL_LAYERS_MAX);
    c->heads = assay_reader_size(r, f->keys.heads, true, 0, ASSAY_MODEL_DIM_MAX);
    c->kv_heads =
        assay_reader_size(r, "num_key_value_heads", false, f->kv_heads ? f->kv_heads : c->heads, ASSAY_MODEL_DIM_MAX);
    c->intermediate = assay_reader_size(r, f->keys.intermediate, f->intermediate_times == 0,
                                        c->hidden * f->intermediate_times, ASSAY_MODEL_DIM_MAX);
    c->vocab = assay_reader_size(r, "vocab_size", true, 0, ASSAY_MODEL_VOCAB_MAX);
    c->positions_max = assay_reader_size(r, f->keys.positions, false, f->positions_default, ASSAY_MODEL_VOCAB_MAX);
    size_t head_dim = f->head_dim;
    if (head_dim == 0 && r->status == ASSAY_OK)
        head_dim = c->hidden / c->heads;
    c->head_dim = assay_reader_size(r, "head_dim", false, head_dim, ASSAY_MODEL_DIM_MAX);
    c->norm_eps = (float)assay_reader_double(r, f->keys.norm_eps, false, f->norm_eps);
}

static bool read_bias(struct assay_reader *r, enum assay_bias_rule rule, const char *key)
{
    switch (rule) {
    case ASSAY_BIAS_NEVER:
        return false;
    case ASSAY_BIAS_ALWAYS:
        return true;
    case ASSAY_BIAS_OPTION:
        return assay_reader_bool(r, key, false);
    case ASSAY_BIAS_OPTION_TRUE:
        return assay_reader_bool(r, key, true);
    }
    return false;
}

static void read_biases(struct assay_reader *r, struct assay_model_config *c)
{
    const struct assay_family *f = c->family;
    c->attention_bias = read_bias(r, f->qkv_bias, "attention_bias");
    c->output_bias = read_bias(r, f->output_bias, "attention_bias");
    c->mlp_bias = read_bias(r, f->mlp_bias, "mlp_bias");
}

/* A bias that is asked for where the family has none would be left out without a word. */
static enum assay_status check_biases(const cJSON *config, const char *what, const struct assay_family *f,
                                      struct assay_err *err)
{
    bool attention = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(config, "attention_bias"));
    bool mlp = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(config, "mlp_bias"));
    if ((attention && f->output_bias == ASSAY_BIAS_NEVER) || (mlp && f->mlp_bias == ASSAY_BIAS_NEVER))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s is not implemented for %s", what,
                             attention ? "attention_bias" : "mlp_bias", f->architecture);
    return ASSAY_OK;
}

enum assay_status assay_activation_parse(const char *name, const char *what, enum assay_activation *ret,
                                         struct assay_err *err)
{
    static const struct {
        const char *name;
        enum assay_activation activation;
    } names[] = {
        {"silu", ASSAY_ACTIVATION_SILU},
        {"swish", ASSAY_ACTIVATION_SILU},
        {"gelu", ASSAY_ACTIVATION_GELU},
        {"gelu_python", ASSAY_ACTIVATION_GELU},
        {"gelu_new", ASSAY_ACTIVATION_GELU_TANH},
        {"gelu_fast", ASSAY_ACTIVATION_GELU_TANH},
        {"gelu_accurate", ASSAY_ACTIVATION_GELU_TANH},
        {"gelu_pytorch_tanh", ASSAY_ACTIVATION_GELU_TANH},
        {"gelu_python_tanh", ASSAY_ACTIVATION_GELU_TANH},
        {"relu", ASSAY_ACTIVATION_RELU},
    };
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        if (strcmp(name, names[i].name) == 0) {
            *ret = names[i].activation;
            return ASSAY_OK;
        }
    }
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: the activation '%.60s' is not implemented; silu, gelu, gelu_new, gelu_fast, "
                         "gelu_pytorch_tanh and relu are",
                         what, name);
}

/* --- windows --- */

/* *ret: whether layer i has a window. */
static enum assay_status read_layer_types(const cJSON *types, const char *what, size_t layers, bool *ret,
                                          struct assay_err *err)
{
    const cJSON *type;
    size_t i = 0;
    if (!cJSON_IsArray(types) || (size_t)cJSON_GetArraySize(types) != layers)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: layer_types is to have %zu entries, one a layer", what,
                             layers);
    cJSON_ArrayForEach(type, types)
    {
        bool full = cJSON_IsString(type) && strcmp(type->valuestring, "full_attention") == 0;
        ret[i] = cJSON_IsString(type) && strcmp(type->valuestring, "sliding_attention") == 0;
        if (!full && !ret[i])
            return assay_err_set(
                err, ASSAY_UNIMPLEMENTED,
                "%s: layer_types[%zu] is '%.60s'; full_attention and sliding_attention are implemented", what, i,
                cJSON_IsString(type) ? type->valuestring : "(no text)");
        i++;
    }
    return ASSAY_OK;
}

static size_t read_window(struct assay_reader *r, const struct assay_family *f)
{
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(r->object, "sliding_window")))
        return 0;
    return assay_reader_size(r, "sliding_window", false, f->window, ASSAY_MODEL_VOCAB_MAX);
}

static enum assay_status read_windows(struct assay_reader *r, struct assay_model_config *c)
{
    const struct assay_family *f = c->family;
    bool wanted = f->window_rule == ASSAY_WINDOW_UPPER ? assay_reader_bool(r, "use_sliding_window", false)
                                                       : f->window_rule != ASSAY_WINDOW_NEVER;
    size_t window = wanted ? read_window(r, f) : 0, first = 0, pattern = f->window_pattern;
    if (f->window_rule == ASSAY_WINDOW_UPPER) /* 0 layers without a window is a number that may stand there, too */
        first = cJSON_IsNumber(assay_reader_member(r, "max_window_layers")) &&
                        assay_reader_member(r, "max_window_layers")->valuedouble == 0
                    ? 0
                    : assay_reader_size(r, "max_window_layers", false, 28, ASSAY_MODEL_LAYERS_MAX);
    if (f->window_rule == ASSAY_WINDOW_TYPES)
        pattern = assay_reader_size(r, "sliding_window_pattern", false, pattern, ASSAY_MODEL_LAYERS_MAX);
    if (r->status != ASSAY_OK)
        return r->status;
    for (size_t i = 0; i < c->layers; i++)
        c->windowed[i] = f->window_rule == ASSAY_WINDOW_TYPES ? (i + 1) % pattern != 0 : window > 0 && i >= first;
    const cJSON *types = assay_reader_member(r, "layer_types");
    bool any = false, listed[ASSAY_MODEL_LAYERS_MAX] = {false};
    if (types && f->window_rule != ASSAY_WINDOW_NEVER) {
        r->status = read_layer_types(types, r->what, c->layers, listed, r->err);
        if (r->status != ASSAY_OK)
            return r->status;
        if (f->window_rule == ASSAY_WINDOW_ALL && memcmp(listed, c->windowed, sizeof listed) != 0)
            return assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                 "%s: layer_types that differ by layer are not implemented for %s", r->what,
                                 f->architecture);
        memcpy(c->windowed, listed, sizeof listed);
    }
    for (size_t i = 0; i < c->layers; i++)
        any |= c->windowed[i];
    if (any && window == 0)
        return assay_err_set(r->err, ASSAY_INVALID_ARGUMENT,
                             "%s: layers have sliding_attention without a sliding_window", r->what);
    c->window = any ? window : 0;
    return ASSAY_OK;
}

/* --- what only some families have --- */

/* A number above 0; where the family has no such option, `otherwise`. */
static double read_factor(struct assay_reader *r, const char *key, double otherwise)
{
    double factor = assay_reader_double(r, key, false, otherwise);
    if (r->status == ASSAY_OK && factor != otherwise && !(factor > 0 && factor <= 1e9))
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %g, wanted a number above 0", r->what, key,
                                  factor);
    return factor;
}

/* null means none. */
static float read_cap(struct assay_reader *r, const char *key, double otherwise)
{
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(r->object, key)))
        return 0;
    return (float)read_factor(r, key, otherwise);
}

static double read_attention_scale(struct assay_reader *r, const struct assay_model_config *c)
{
    const struct assay_family *f = c->family;
    if (f->attention_multiplier > 0)
        return read_factor(r, "attention_multiplier", f->attention_multiplier);
    if (f->query_scalar > 0)
        return 1 / sqrt(read_factor(r, "query_pre_attn_scalar", f->query_scalar));
    return assay_reader_bool(r, "scale_attn_weights", true) ? 1 / sqrt((double)c->head_dim) : 1;
}

static void read_scales(struct assay_reader *r, struct assay_model_config *c)
{
    const struct assay_family *f = c->family;
    c->norm = f->norm;
    c->parallel_residual = f->parallel;
    if (assay_family_has_option(f, "use_parallel_residual"))
        c->parallel_residual = assay_reader_bool(r, "use_parallel_residual", f->parallel);
    double root = f->embedding_by_root ? sqrt((double)c->hidden) : 1;
    c->embedding_scale = (float)read_factor(r, "embedding_multiplier", root);
    c->residual_scale = (float)read_factor(r, "residual_multiplier", 1);
    c->attention_scale = read_attention_scale(r, c);
    c->attention_scale_by_layer = assay_reader_bool(r, "scale_attn_by_inverse_layer_idx", false);
    c->attention_cap = read_cap(r, "attn_logit_softcapping", f->attention_cap);
}

static enum assay_status read_head(const cJSON *config, const char *what, struct assay_model_config *c,
                                   struct assay_err *err)
{
    struct assay_head_figures figures;
    enum assay_status status =
        assay_head_figures_read(config, assay_architecture_find(c->architecture), what, &figures, err);
    if (status != ASSAY_OK)
        return status;
    if (figures.vocab_used > c->vocab)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: used_vocab is %zu, the vocabulary has %zu ids", what,
                             figures.vocab_used, c->vocab);
    c->tied_head = figures.tied;
    c->vocab_used = figures.vocab_used ? figures.vocab_used : c->vocab;
    return ASSAY_OK;
}

/* Our own member: what the artifact's variant rounds the operands of products to. */
static enum assay_status read_own(const cJSON *config, const char *what, struct assay_model_config *c,
                                  struct assay_err *err)
{
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(config, "assay");
    if (!own || cJSON_IsNull(own))
        return ASSAY_OK;
    if (!cJSON_IsObject(own))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'assay' is not an object", what);
    struct assay_reader r = {own, what, err, ASSAY_OK};
    const char *compute = assay_reader_string(&r, "compute", "f32");
    if (r.status != ASSAY_OK)
        return r.status;
    c->compute_bf16 = strcmp(compute, "bf16") == 0;
    if (!c->compute_bf16 && strcmp(compute, "f32") != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: compute '%.40s' is not implemented; f32 and bf16 are", what,
                             compute);
    return ASSAY_OK;
}

static enum assay_status check_sizes(const struct assay_model_config *c, const char *what, struct assay_err *err)
{
    if (c->heads % c->kv_heads != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu heads cannot share %zu key-value heads evenly", what,
                             c->heads, c->kv_heads);
    if (c->family->qkv_by_head && c->heads != c->kv_heads)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: %zu key-value heads for %zu heads are not implemented for %s", what, c->kv_heads,
                             c->heads, c->architecture);
    if (c->head_dim == 0 || c->head_dim % 2 != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: head_dim is %zu, wanted an even number", what,
                             c->head_dim);
    if (c->heads * c->head_dim > ASSAY_MODEL_DIM_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu heads of %zu are more than %u", what, c->heads,
                             c->head_dim, ASSAY_MODEL_DIM_MAX);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is %g, wanted between 0 and 1", what,
                             c->family->keys.norm_eps, (double)c->norm_eps);
    return ASSAY_OK;
}

enum assay_status assay_model_config_read(const cJSON *config, const char *what, struct assay_model_config *ret,
                                          struct assay_err *err)
{
    struct assay_model_config c = {0};
    if (!cJSON_IsObject(config))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: not a JSON object", what);
    enum assay_status status = find_family(config, what, &c, err);
    if (status == ASSAY_OK)
        status = assay_options_check(config, what, c.architecture, c.family->options, err);
    if (status == ASSAY_OK)
        status = check_biases(config, what, c.family, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_reader r = {config, what, err, ASSAY_OK};
    const char *activation = assay_reader_string(&r, c.family->keys.activation, c.family->activation);
    read_sizes(&r, &c);
    read_biases(&r, &c);
    if (r.status == ASSAY_OK)
        status = assay_activation_parse(activation, what, &c.activation, err);
    if (r.status == ASSAY_OK && status == ASSAY_OK)
        status = check_sizes(&c, what, err);
    if (r.status == ASSAY_OK && status == ASSAY_OK) {
        read_scales(&r, &c);
        status = read_windows(&r, &c);
    }
    if (r.status != ASSAY_OK || status != ASSAY_OK)
        return r.status != ASSAY_OK ? r.status : status;
    c.value_dim = c.head_dim;
    if (c.family->experts.router)
        status = assay_config_read_latent(config, what, &c, err);
    if (status == ASSAY_OK)
        status = read_head(config, what, &c, err);
    if (status == ASSAY_OK)
        status = read_own(config, what, &c, err);
    if (status == ASSAY_OK && c.family->rotary > 0)
        status = assay_config_read_rope(config, what, &c, err);
    if (status == ASSAY_OK && c.latent.kv_rank > 0)
        c.attention_scale = c.rope.score_factor / sqrt((double)c.head_dim);
    if (status == ASSAY_OK)
        *ret = c;
    return status;
}
