#include "common/nn/family.h"

#include <string.h>

/* What most families share. */
#define KEYS                                                                                                           \
    {                                                                                                                  \
        .hidden = "hidden_size", .layers = "num_hidden_layers", .heads = "num_attention_heads",                        \
        .intermediate = "intermediate_size", .positions = "max_position_embeddings", .norm_eps = "rms_norm_eps",       \
        .activation = "hidden_act", .theta = "rope_theta", .rotary = "partial_rotary_factor"                           \
    }
#define NORMS [ASSAY_NORM_ATTENTION] = "input_layernorm", [ASSAY_NORM_MLP] = "post_attention_layernorm"
#define ATTENTION                                                                                                      \
    [ASSAY_LINEAR_Q] = "self_attn.q_proj", [ASSAY_LINEAR_K] = "self_attn.k_proj",                                      \
    [ASSAY_LINEAR_V] = "self_attn.v_proj", [ASSAY_LINEAR_O] = "self_attn.o_proj"
#define MLP                                                                                                            \
    [ASSAY_LINEAR_GATE] = "mlp.gate_proj", [ASSAY_LINEAR_UP] = "mlp.up_proj", [ASSAY_LINEAR_DOWN] = "mlp.down_proj"
#define LAYERS .layers = "layers.", .final_norm = "norm"
#define HEAD_NORMS [ASSAY_NORM_Q] = "self_attn.q_norm", [ASSAY_NORM_K] = "self_attn.k_norm"
#define GEMMA_KEYS                                                                                                     \
    {                                                                                                                  \
        .hidden = "hidden_size", .layers = "num_hidden_layers", .heads = "num_attention_heads",                        \
        .intermediate = "intermediate_size", .positions = "max_position_embeddings", .norm_eps = "rms_norm_eps",       \
        .activation = "hidden_activation", .theta = "rope_theta", .rotary = "partial_rotary_factor"                    \
    }
#define GEMMA_NORMS                                                                                                    \
    [ASSAY_NORM_ATTENTION] = "input_layernorm", [ASSAY_NORM_ATTENTION_OUT] = "post_attention_layernorm",               \
    [ASSAY_NORM_MLP] = "pre_feedforward_layernorm", [ASSAY_NORM_MLP_OUT] = "post_feedforward_layernorm"
#define GEMMA                                                                                                          \
    .head_dim = 256, .kv_heads = 4, .window = 4096, .norm_eps = 1e-6, .rotary = 1, .query_scalar = 256,                \
    .activation = "gelu_pytorch_tanh", .window_rule = ASSAY_WINDOW_TYPES, .qkv_bias = ASSAY_BIAS_OPTION,               \
    .output_bias = ASSAY_BIAS_OPTION, .norm_plus_one = true, .embedding_by_root = true
#define USUAL .theta = 10000, .norm_eps = 1e-6, .rotary = 1, .activation = "silu"

static const struct assay_family families[] = {
    {
        .architecture = "LlamaForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS},
        .linears = {ATTENTION, MLP},
        .positions_default = 2048,
        .qkv_bias = ASSAY_BIAS_OPTION,
        .output_bias = ASSAY_BIAS_OPTION,
        .mlp_bias = ASSAY_BIAS_OPTION,
    },
    {
        .architecture = "MistralForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"sliding_window", "layer_types"},
        .kv_heads = 8,
        .positions_default = 131072,
        .window = 4096,
        .window_rule = ASSAY_WINDOW_ALL,
    },
    {
        .architecture = "Qwen2ForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"},
        .positions_default = 32768,
        .window = 4096,
        .window_rule = ASSAY_WINDOW_UPPER,
        .qkv_bias = ASSAY_BIAS_ALWAYS,
    },
    {
        .architecture = "Qwen3ForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS, HEAD_NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"},
        .head_dim = 128,
        .positions_default = 32768,
        .window = 4096,
        .window_rule = ASSAY_WINDOW_UPPER,
        .qkv_bias = ASSAY_BIAS_OPTION,
        .output_bias = ASSAY_BIAS_OPTION,
    },
    {
        .architecture = "Phi3ForCausalLM",
        LAYERS,
        .keys = KEYS,
        .norms = {NORMS},
        .linears = {[ASSAY_LINEAR_QKV] = "self_attn.qkv_proj",
                    [ASSAY_LINEAR_O] = "self_attn.o_proj",
                    [ASSAY_LINEAR_GATE_UP] = "mlp.gate_up_proj",
                    [ASSAY_LINEAR_DOWN] = "mlp.down_proj"},
        .options = {"sliding_window", "layer_types", "partial_rotary_factor"},
        .positions_default = 4096,
        .original_positions = 4096,
        .theta = 10000,
        .norm_eps = 1e-5,
        .rotary = 1,
        .activation = "silu",
        .window_rule = ASSAY_WINDOW_ALL,
        .partial_rotary = true,
        .yarn_is_longrope = true,
    },
    {
        .architecture = "GPTNeoXForCausalLM",
        .layers = "layers.",
        .final_norm = "final_layer_norm",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .intermediate = "intermediate_size",
                 .positions = "max_position_embeddings",
                 .norm_eps = "layer_norm_eps",
                 .activation = "hidden_act",
                 .theta = "rotary_emb_base",
                 .rotary = "rotary_pct"},
        .norms = {NORMS},
        .linears = {[ASSAY_LINEAR_QKV] = "attention.query_key_value",
                    [ASSAY_LINEAR_O] = "attention.dense",
                    [ASSAY_LINEAR_UP] = "mlp.dense_h_to_4h",
                    [ASSAY_LINEAR_DOWN] = "mlp.dense_4h_to_h"},
        .options = {"use_parallel_residual", "rotary_pct"},
        .positions_default = 2048,
        .theta = 10000,
        .norm_eps = 1e-5,
        .rotary = 0.25,
        .activation = "gelu",
        .norm = ASSAY_NORM_LAYER,
        .qkv_bias = ASSAY_BIAS_OPTION_TRUE,
        .output_bias = ASSAY_BIAS_OPTION_TRUE,
        .mlp_bias = ASSAY_BIAS_ALWAYS,
        .qkv_by_head = true,
        .partial_rotary = true,
        .parallel = true,
    },
    {
        .architecture = "GPT2LMHeadModel",
        .layers = "h.",
        .final_norm = "ln_f",
        .positions = "wpe",
        .keys = {.hidden = "n_embd",
                 .layers = "n_layer",
                 .heads = "n_head",
                 .intermediate = "n_inner",
                 .positions = "n_positions",
                 .norm_eps = "layer_norm_epsilon",
                 .activation = "activation_function"},
        .norms = {[ASSAY_NORM_ATTENTION] = "ln_1", [ASSAY_NORM_MLP] = "ln_2"},
        .linears = {[ASSAY_LINEAR_QKV] = "attn.c_attn",
                    [ASSAY_LINEAR_O] = "attn.c_proj",
                    [ASSAY_LINEAR_UP] = "mlp.c_fc",
                    [ASSAY_LINEAR_DOWN] = "mlp.c_proj"},
        .options = {"scale_attn_weights", "scale_attn_by_inverse_layer_idx"},
        .positions_default = 1024,
        .intermediate_times = 4,
        .norm_eps = 1e-5,
        .activation = "gelu_new",
        .norm = ASSAY_NORM_LAYER,
        .qkv_bias = ASSAY_BIAS_ALWAYS,
        .output_bias = ASSAY_BIAS_ALWAYS,
        .mlp_bias = ASSAY_BIAS_ALWAYS,
    },
    {
        .architecture = "PhiForCausalLM",
        .layers = "layers.",
        .final_norm = "final_layernorm",
        .keys = {.hidden = "hidden_size",
                 .layers = "num_hidden_layers",
                 .heads = "num_attention_heads",
                 .intermediate = "intermediate_size",
                 .positions = "max_position_embeddings",
                 .norm_eps = "layer_norm_eps",
                 .activation = "hidden_act",
                 .theta = "rope_theta",
                 .rotary = "partial_rotary_factor"},
        .norms = {[ASSAY_NORM_ATTENTION] = "input_layernorm"},
        .linears = {[ASSAY_LINEAR_Q] = "self_attn.q_proj",
                    [ASSAY_LINEAR_K] = "self_attn.k_proj",
                    [ASSAY_LINEAR_V] = "self_attn.v_proj",
                    [ASSAY_LINEAR_O] = "self_attn.dense",
                    [ASSAY_LINEAR_UP] = "mlp.fc1",
                    [ASSAY_LINEAR_DOWN] = "mlp.fc2"},
        .options = {"partial_rotary_factor"},
        .positions_default = 2048,
        .theta = 10000,
        .norm_eps = 1e-5,
        .rotary = 0.5,
        .activation = "gelu_new",
        .norm = ASSAY_NORM_LAYER,
        .qkv_bias = ASSAY_BIAS_ALWAYS,
        .output_bias = ASSAY_BIAS_ALWAYS,
        .mlp_bias = ASSAY_BIAS_ALWAYS,
        .partial_rotary = true,
        .parallel = true,
    },
    {
        .architecture = "GraniteForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"},
        .positions_default = 2048,
        .attention_multiplier = 1,
        .qkv_bias = ASSAY_BIAS_OPTION,
        .output_bias = ASSAY_BIAS_OPTION,
        .mlp_bias = ASSAY_BIAS_OPTION,
    },
    {
        .architecture = "Gemma2ForCausalLM",
        LAYERS,
        .keys = GEMMA_KEYS,
        .norms = {GEMMA_NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
                    "final_logit_softcapping"},
        GEMMA,
        .positions_default = 8192,
        .window_pattern = 2,
        .theta = 10000,
        .attention_cap = 50,
    },
    {
        .architecture = "Gemma3ForCausalLM",
        .without_head = "Gemma3TextModel",
        LAYERS,
        .keys = GEMMA_KEYS,
        .norms = {GEMMA_NORMS, HEAD_NORMS},
        .linears = {ATTENTION, MLP},
        .options = {"sliding_window", "layer_types", "query_pre_attn_scalar", "final_logit_softcapping",
                    "sliding_window_pattern", "rope_local_base_freq"},
        GEMMA,
        .positions_default = 131072,
        .window_pattern = 6,
        .theta = 1e6,
        .local_rope = true,
    },
    {
        .architecture = "DeepseekV3ForCausalLM",
        LAYERS,
        USUAL,
        .keys = KEYS,
        .norms = {NORMS, [ASSAY_NORM_Q_LATENT] = "self_attn.q_a_layernorm",
                  [ASSAY_NORM_KV_LATENT] = "self_attn.kv_a_layernorm"},
        .linears = {[ASSAY_LINEAR_Q] = "self_attn.q_proj",
                    [ASSAY_LINEAR_Q_DOWN] = "self_attn.q_a_proj",
                    [ASSAY_LINEAR_Q_UP] = "self_attn.q_b_proj",
                    [ASSAY_LINEAR_KV_DOWN] = "self_attn.kv_a_proj_with_mqa",
                    [ASSAY_LINEAR_KV_UP] = "self_attn.kv_b_proj",
                    [ASSAY_LINEAR_O] = "self_attn.o_proj",
                    MLP},
        .experts = {.router = "mlp.gate",
                    .correction = "mlp.gate.e_score_correction_bias",
                    .each = "mlp.experts.",
                    .shared = "mlp.shared_experts."},
        .options = {"q_lora_rank", "kv_lora_rank", "n_routed_experts", "n_shared_experts", "rope_interleave"},
        .positions_default = 4096,
        .qkv_bias = ASSAY_BIAS_OPTION,
        .output_bias = ASSAY_BIAS_OPTION,
    },
};

bool assay_family_has_option(const struct assay_family *family, const char *key)
{
    for (size_t i = 0; i < ASSAY_COUNT(family->options) && family->options[i]; i++)
        if (strcmp(family->options[i], key) == 0)
            return true;
    return false;
}

/* "MistralModel" of "MistralForCausalLM", "GPT2Model" of "GPT2LMHeadModel". */
static bool names_model(const struct assay_family *family, const char *name)
{
    static const char *const heads[] = {"ForCausalLM", "LMHeadModel"};
    if (family->without_head)
        return strcmp(family->without_head, name) == 0;
    for (size_t i = 0; i < ASSAY_COUNT(heads); i++) {
        const char *head = strstr(family->architecture, heads[i]);
        size_t stem = head ? (size_t)(head - family->architecture) : 0;
        if (head && strncmp(family->architecture, name, stem) == 0 && strcmp(name + stem, "Model") == 0)
            return true;
    }
    return false;
}

const struct assay_family *assay_family_find(const char *architecture)
{
    for (size_t i = 0; i < ASSAY_COUNT(families); i++)
        if (strcmp(families[i].architecture, architecture) == 0 || names_model(&families[i], architecture))
            return &families[i];
    return NULL;
}

const char *assay_family_names(void)
{
    return "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Phi3ForCausalLM, "
           "GPTNeoXForCausalLM, GPT2LMHeadModel, PhiForCausalLM, GraniteForCausalLM, Gemma2ForCausalLM, "
           "Gemma3ForCausalLM, DeepseekV3ForCausalLM";
}
