/* What config.json may say beyond the sizes. Options that change the result and that a family does not have are
 * refused; docs/FAMILIES.md lists those that change nothing. */
#include <string.h>

#include "common/nn/config_reader.h"

/* A value that has no effect: absent, null, false, 0 things, an empty list or object, or the neutral number. */
struct option {
    const char *key;
    enum { NEUTRAL_NONE, NEUTRAL_0, NEUTRAL_1, NEUTRAL_TRUE, NEUTRAL_ANYTHING_WITHOUT_WINDOW } neutral;
};

static const struct option options[] = {
    {"sliding_window", NEUTRAL_NONE},
    {"use_sliding_window", NEUTRAL_NONE},
    {"max_window_layers", NEUTRAL_ANYTHING_WITHOUT_WINDOW},
    {"layer_types", NEUTRAL_ANYTHING_WITHOUT_WINDOW},
    {"sliding_window_pattern", NEUTRAL_NONE},
    {"rope_local_base_freq", NEUTRAL_NONE},
    {"attention_chunk_size", NEUTRAL_NONE},
    {"partial_rotary_factor", NEUTRAL_1},
    {"rotary_pct", NEUTRAL_1},
    {"rotary_dim", NEUTRAL_NONE},
    {"attention_multiplier", NEUTRAL_NONE},
    {"embedding_multiplier", NEUTRAL_1},
    {"residual_multiplier", NEUTRAL_1},
    {"logits_scaling", NEUTRAL_1},
    {"logit_scale", NEUTRAL_1},
    {"attn_logit_softcapping", NEUTRAL_NONE},
    {"final_logit_softcapping", NEUTRAL_NONE},
    {"query_pre_attn_scalar", NEUTRAL_NONE},
    {"use_bidirectional_attention", NEUTRAL_NONE},
    {"clip_qkv", NEUTRAL_NONE},
    {"use_qk_norm", NEUTRAL_NONE},
    {"qk_layernorm", NEUTRAL_NONE},
    {"num_local_experts", NEUTRAL_0},
    {"num_experts", NEUTRAL_0},
    {"n_routed_experts", NEUTRAL_0},
    {"n_shared_experts", NEUTRAL_0},
    {"q_lora_rank", NEUTRAL_NONE},
    {"kv_lora_rank", NEUTRAL_NONE},
    {"no_rope_layers", NEUTRAL_NONE},
    {"rope_interleaved", NEUTRAL_NONE},
    {"rope_interleave", NEUTRAL_NONE},
    {"use_parallel_residual", NEUTRAL_NONE},
    {"parallel_attn", NEUTRAL_NONE},
    {"alibi", NEUTRAL_NONE},
    {"is_causal", NEUTRAL_TRUE},
    {"add_cross_attention", NEUTRAL_NONE},
    {"is_encoder_decoder", NEUTRAL_NONE},
    {"scale_attn_weights", NEUTRAL_TRUE},
    {"scale_attn_by_inverse_layer_idx", NEUTRAL_NONE},
    {"per_layer_config", NEUTRAL_NONE},
    {"vision_config", NEUTRAL_NONE},
    {"audio_config", NEUTRAL_NONE},
};

static bool all_full(const cJSON *types)
{
    const cJSON *type;
    cJSON_ArrayForEach(type, types)
    {
        if (!cJSON_IsString(type) || strcmp(type->valuestring, "full_attention") != 0)
            return false;
    }
    return cJSON_IsArray(types);
}

static bool is_neutral(const struct option *option, const cJSON *item)
{
    bool numbered = cJSON_IsNumber(item);
    if (!item || cJSON_IsNull(item) || cJSON_IsFalse(item))
        return option->neutral != NEUTRAL_TRUE || !cJSON_IsFalse(item);
    if ((cJSON_IsObject(item) || cJSON_IsArray(item)) && !item->child)
        return true;
    switch (option->neutral) {
    case NEUTRAL_0:
        return numbered && item->valuedouble == 0;
    case NEUTRAL_1:
        return numbered && item->valuedouble == 1;
    case NEUTRAL_TRUE:
        return cJSON_IsTrue(item);
    case NEUTRAL_ANYTHING_WITHOUT_WINDOW:
        return numbered || all_full(item);
    case NEUTRAL_NONE:
        break;
    }
    return false;
}

static bool is_own(const char *const *own, const char *key)
{
    while (*own && strcmp(*own, key) != 0)
        own++;
    return *own != NULL;
}

enum assay_status assay_options_check(const cJSON *config, const char *what, const char *architecture,
                                      const char *const *own, struct assay_err *err)
{
    for (size_t i = 0; i < ASSAY_COUNT(options); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, options[i].key);
        if (!is_own(own, options[i].key) && !is_neutral(&options[i], item))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the option '%s' is not implemented for %s", what,
                                 options[i].key, architecture);
    }
    return ASSAY_OK;
}
