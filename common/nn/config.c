/* config.json of a decoder. What would change the result and is not implemented is refused by name. */
#include <math.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/family.h"
#include "common/nn/model.h"

/* Reads members of one object; the first failure stays. */
struct reader {
    const cJSON *object;
    const char *what;
    struct assay_err *err;
    enum assay_status status;
};

static size_t read_size(struct reader *r, const char *key, bool required, size_t otherwise, size_t max)
{
    int64_t value = (int64_t)otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_int(r->object, r->what, key, required, 1, (int64_t)max, &value, r->err);
    return (size_t)value;
}

static double read_double(struct reader *r, const char *key, bool required, double otherwise)
{
    double value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_double(r->object, r->what, key, required, &value, r->err);
    return value;
}

static bool read_bool(struct reader *r, const char *key)
{
    bool value = false;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_bool(r->object, r->what, key, false, &value, r->err);
    return value;
}

static const char *read_string(struct reader *r, const char *key, const char *otherwise)
{
    const char *value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_json_get_string(r->object, r->what, key, false, &value, r->err);
    return value;
}

static bool absent(const cJSON *item)
{
    return !item || cJSON_IsNull(item);
}

/* Options that must have no effect: absent, null, false, or the neutral number. */
static enum assay_status refuse_unknown(const cJSON *config, const char *what, struct assay_err *err)
{
    static const struct {
        const char *key;
        double neutral; /* NAN: no number is neutral */
    } options[] = {
        {"sliding_window", NAN},
        {"use_sliding_window", NAN},
        {"attention_chunk_size", NAN},
        {"partial_rotary_factor", 1},
        {"attention_multiplier", NAN},
        {"embedding_multiplier", 1},
        {"residual_multiplier", 1},
        {"logits_scaling", 1},
        {"logit_scale", 1},
        {"attn_logit_softcapping", NAN},
        {"final_logit_softcapping", NAN},
        {"query_pre_attn_scalar", NAN},
        {"clip_qkv", NAN},
        {"use_qk_norm", NAN},
        {"qk_layernorm", NAN},
        {"num_local_experts", NAN},
        {"num_experts", NAN},
        {"no_rope_layers", NAN},
        {"rope_interleaved", NAN},
        {"use_parallel_residual", NAN},
        {"parallel_attn", NAN},
        {"add_cross_attention", NAN},
    };
    for (size_t i = 0; i < ASSAY_COUNT(options); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, options[i].key);
        if (absent(item) || cJSON_IsFalse(item))
            continue;
        if (!cJSON_IsNumber(item) || !(item->valuedouble == options[i].neutral))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the option '%s' is not implemented", what,
                                 options[i].key);
    }
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(config, "layer_types"), *type;
    cJSON_ArrayForEach(type, types)
    {
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "full_attention") != 0)
            return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                                 "%s: layer_types other than full_attention are not implemented", what);
    }
    return ASSAY_OK;
}

static enum assay_status read_architecture(const cJSON *config, const char *what, const char **ret,
                                           struct assay_err *err)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "architectures");
    const cJSON *name = cJSON_IsArray(names) ? cJSON_GetArrayItem(names, 0) : NULL;
    if (!cJSON_IsString(name) || cJSON_GetArraySize(names) != 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'architectures' is to name one architecture", what);
    const struct assay_family *family = assay_family_find(name->valuestring);
    if (!family)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the architecture %.100s is not implemented; these are: %s",
                             what, name->valuestring, assay_family_names());
    *ret = family->architecture;
    return ASSAY_OK;
}

static enum assay_status parse_rope_kind(const char *name, const char *what, enum assay_rope_kind *ret,
                                         struct assay_err *err)
{
    static const char *const names[] = {[ASSAY_ROPE_DEFAULT] = "default",
                                        [ASSAY_ROPE_LINEAR] = "linear",
                                        [ASSAY_ROPE_DYNAMIC] = "dynamic",
                                        [ASSAY_ROPE_LLAMA3] = "llama3"};
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum assay_rope_kind)i;
            return ASSAY_OK;
        }
    }
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: the rope type '%.60s' is not implemented; these are: default, linear, dynamic, llama3",
                         what, name);
}

static enum assay_status check_rope(const struct assay_model_config *c, const char *what, struct assay_err *err)
{
    if (!(c->rope.theta > 1 && c->rope.theta <= 1e12))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: rope_theta is %g, wanted a number above 1", what,
                             c->rope.theta);
    if (!(c->rope.factor >= 1 && c->rope.factor <= 1e6))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the rope factor is %g, wanted at least 1", what,
                             c->rope.factor);
    if (c->rope.kind == ASSAY_ROPE_LLAMA3 && !(c->rope.low_freq_factor > 0 && isfinite(c->rope.high_freq_factor) &&
                                               c->rope.high_freq_factor > c->rope.low_freq_factor))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: low_freq_factor %g and high_freq_factor %g, wanted 0 < low < high", what,
                             c->rope.low_freq_factor, c->rope.high_freq_factor);
    if (c->rope.kind == ASSAY_ROPE_DYNAMIC && c->head_dim <= 2)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: dynamic rope needs a head_dim above 2", what);
    return ASSAY_OK;
}

/* transformers 5 has all in rope_parameters; 4 has rope_theta beside rope_scaling, whose type was once "type". */
static enum assay_status read_rope(const cJSON *config, const char *what, struct assay_model_config *c,
                                   struct assay_err *err)
{
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(config, "rope_parameters");
    if (absent(rope))
        rope = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling");
    struct reader top = {config, what, err, ASSAY_OK};
    c->rope.theta = read_double(&top, "rope_theta", false, 10000);
    c->rope.factor = 1;
    c->rope.original_positions = c->positions_max;
    if (top.status != ASSAY_OK || absent(rope))
        return top.status == ASSAY_OK ? check_rope(c, what, err) : top.status;
    if (!cJSON_IsObject(rope))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: rope_parameters or rope_scaling is not an object", what);
    struct reader r = {rope, what, err, ASSAY_OK};
    c->rope.theta = read_double(&r, "rope_theta", false, c->rope.theta);
    const char *kind = read_string(&r, "rope_type", read_string(&r, "type", "default"));
    if (r.status != ASSAY_OK)
        return r.status;
    enum assay_status status = parse_rope_kind(kind, what, &c->rope.kind, err);
    if (status != ASSAY_OK)
        return status;
    if (read_double(&r, "partial_rotary_factor", false, 1) != 1 || read_double(&r, "attention_factor", false, 1) != 1)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: partial_rotary_factor and attention_factor of rope other than 1 are not implemented",
                             what);
    if (c->rope.kind != ASSAY_ROPE_DEFAULT)
        c->rope.factor = read_double(&r, "factor", true, 1);
    if (c->rope.kind == ASSAY_ROPE_LLAMA3) {
        c->rope.low_freq_factor = read_double(&r, "low_freq_factor", true, 0);
        c->rope.high_freq_factor = read_double(&r, "high_freq_factor", true, 0);
        c->rope.original_positions = read_size(&r, "original_max_position_embeddings", true, 0, ASSAY_MODEL_VOCAB_MAX);
    }
    if (r.status != ASSAY_OK)
        return r.status;
    status = check_rope(c, what, err);
    if (status == ASSAY_OK && c->rope.kind == ASSAY_ROPE_DYNAMIC)
        c->positions_max = (size_t)fmin((double)c->positions_max * c->rope.factor, ASSAY_MODEL_VOCAB_MAX);
    return status;
}

/* Our own member: what the artifact's variant rounds the operands of products to. */
static enum assay_status read_compute(const cJSON *config, const char *what, bool *ret_bf16, struct assay_err *err)
{
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(config, "assay");
    if (absent(own))
        return ASSAY_OK;
    if (!cJSON_IsObject(own))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'assay' is not an object", what);
    struct reader r = {own, what, err, ASSAY_OK};
    const char *compute = read_string(&r, "compute", "f32");
    if (r.status != ASSAY_OK)
        return r.status;
    *ret_bf16 = strcmp(compute, "bf16") == 0;
    if (!*ret_bf16 && strcmp(compute, "f32") != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: compute '%.40s' is not implemented; f32 and bf16 are", what,
                             compute);
    return ASSAY_OK;
}

static enum assay_status check_sizes(const struct assay_model_config *c, const char *what, struct assay_err *err)
{
    if (c->heads % c->kv_heads != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu heads cannot share %zu key-value heads evenly", what,
                             c->heads, c->kv_heads);
    if (c->head_dim == 0 || c->head_dim % 2 != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: head_dim is %zu, wanted an even number", what,
                             c->head_dim);
    if (c->heads * c->head_dim > ASSAY_MODEL_DIM_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu heads of %zu are more than %u", what, c->heads,
                             c->head_dim, ASSAY_MODEL_DIM_MAX);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: rms_norm_eps is %g, wanted between 0 and 1", what,
                             (double)c->norm_eps);
    return ASSAY_OK;
}

enum assay_status assay_model_config_read(const cJSON *config, const char *what, struct assay_model_config *ret,
                                          struct assay_err *err)
{
    struct assay_model_config c = {0};
    if (!cJSON_IsObject(config))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: not a JSON object", what);
    enum assay_status status = read_architecture(config, what, &c.architecture, err);
    if (status == ASSAY_OK)
        status = refuse_unknown(config, what, err);
    if (status != ASSAY_OK)
        return status;
    struct reader r = {config, what, err, ASSAY_OK};
    const char *activation = read_string(&r, "hidden_act", "silu");
    c.hidden = read_size(&r, "hidden_size", true, 0, ASSAY_MODEL_DIM_MAX);
    c.layers = read_size(&r, "num_hidden_layers", true, 0, ASSAY_MODEL_LAYERS_MAX);
    c.heads = read_size(&r, "num_attention_heads", true, 0, ASSAY_MODEL_DIM_MAX);
    c.kv_heads = read_size(&r, "num_key_value_heads", false, c.heads, ASSAY_MODEL_DIM_MAX);
    c.intermediate = read_size(&r, "intermediate_size", true, 0, ASSAY_MODEL_DIM_MAX);
    c.vocab = read_size(&r, "vocab_size", true, 0, ASSAY_MODEL_VOCAB_MAX);
    c.positions_max = read_size(&r, "max_position_embeddings", false, 2048, ASSAY_MODEL_VOCAB_MAX);
    c.head_dim = read_size(&r, "head_dim", false, c.heads ? c.hidden / c.heads : 0, ASSAY_MODEL_DIM_MAX);
    c.norm_eps = (float)read_double(&r, "rms_norm_eps", false, 1e-6);
    c.tied_head = read_bool(&r, "tie_word_embeddings");
    c.attention_bias = read_bool(&r, "attention_bias");
    c.mlp_bias = read_bool(&r, "mlp_bias");
    if (r.status != ASSAY_OK)
        return r.status;
    if (strcmp(activation, "silu") != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the activation '%.60s' is not implemented; silu is", what,
                             activation);
    status = check_sizes(&c, what, err);
    if (status == ASSAY_OK)
        status = read_compute(config, what, &c.compute_bf16, err);
    if (status == ASSAY_OK)
        status = read_rope(config, what, &c, err);
    if (status == ASSAY_OK)
        *ret = c;
    return status;
}
