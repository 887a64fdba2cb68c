#include "common/formats/gguf_arch.h"

#include <string.h>

#include "common/base/macros.h"

#define NONE ASSAY_GGUF_DIM_NONE
#define HIDDEN ASSAY_GGUF_DIM_HIDDEN
#define INTERMEDIATE ASSAY_GGUF_DIM_INTERMEDIATE
#define Q ASSAY_GGUF_DIM_Q
#define KV ASSAY_GGUF_DIM_KV
#define QKV ASSAY_GGUF_DIM_QKV
#define VOCAB ASSAY_GGUF_DIM_VOCAB
#define EXPERT ASSAY_GGUF_DIM_EXPERT

#define AS_IT_IS ASSAY_GGUF_AS_IT_IS
#define ALWAYS ASSAY_GGUF_ALWAYS
#define ATTENTION_BIAS ASSAY_GGUF_ATTENTION_BIAS
#define MLP_BIAS ASSAY_GGUF_MLP_BIAS
#define UNTIED ASSAY_GGUF_UNTIED

/* clang-format off */
#define ROW(source, target, rows, columns, order, when) {source ".weight", target ".weight", rows, columns, order, when}
#define BIAS(source, target, size, order, when) {source ".bias", target ".bias", NONE, size, order, when}
#define NORM(source, target, order) ROW(source, target, NONE, HIDDEN, order, ALWAYS)
#define END {NULL, NULL, NONE, NONE, AS_IT_IS, ALWAYS}

#define OUTER(order)                                                                                                   \
    ROW("token_embd", "model.embed_tokens", VOCAB, HIDDEN, AS_IT_IS, ALWAYS),                                          \
    NORM("output_norm", "model.norm", order),                                                                          \
    ROW("output", "lm_head", VOCAB, HIDDEN, AS_IT_IS, UNTIED)
#define ATTENTION(order)                                                                                               \
    ROW("attn_q", "self_attn.q_proj", Q, HIDDEN, order, ALWAYS),                                                       \
    ROW("attn_k", "self_attn.k_proj", KV, HIDDEN, order, ALWAYS),                                                      \
    ROW("attn_v", "self_attn.v_proj", KV, HIDDEN, AS_IT_IS, ALWAYS),                                                   \
    ROW("attn_output", "self_attn.o_proj", HIDDEN, Q, AS_IT_IS, ALWAYS)
#define QKV_BIASES(order, when)                                                                                        \
    BIAS("attn_q", "self_attn.q_proj", Q, order, when), BIAS("attn_k", "self_attn.k_proj", KV, order, when),           \
    BIAS("attn_v", "self_attn.v_proj", KV, AS_IT_IS, when)
#define BIASES(order)                                                                                                  \
    QKV_BIASES(order, ATTENTION_BIAS), BIAS("attn_output", "self_attn.o_proj", HIDDEN, AS_IT_IS, ATTENTION_BIAS)
#define MLP(when)                                                                                                      \
    ROW("ffn_gate", "mlp.gate_proj", INTERMEDIATE, HIDDEN, AS_IT_IS, when),                                            \
    ROW("ffn_up", "mlp.up_proj", INTERMEDIATE, HIDDEN, AS_IT_IS, when),                                                \
    ROW("ffn_down", "mlp.down_proj", HIDDEN, INTERMEDIATE, AS_IT_IS, when)
#define MLP_BIASES                                                                                                     \
    BIAS("ffn_gate", "mlp.gate_proj", INTERMEDIATE, AS_IT_IS, MLP_BIAS),                                               \
    BIAS("ffn_up", "mlp.up_proj", INTERMEDIATE, AS_IT_IS, MLP_BIAS),                                                   \
    BIAS("ffn_down", "mlp.down_proj", HIDDEN, AS_IT_IS, MLP_BIAS)
#define NORMS NORM("attn_norm", "input_layernorm", AS_IT_IS), NORM("ffn_norm", "post_attention_layernorm", AS_IT_IS)
#define HEAD_NORMS(order)                                                                                              \
    ROW("attn_q_norm", "self_attn.q_norm", NONE, ASSAY_GGUF_DIM_HEAD, order, ALWAYS),                                  \
    ROW("attn_k_norm", "self_attn.k_norm", NONE, ASSAY_GGUF_DIM_HEAD, order, ALWAYS)
#define GEMMA_NORMS                                                                                                    \
    NORM("attn_norm", "input_layernorm", ASSAY_GGUF_MINUS_ONE),                                                        \
    NORM("post_attention_norm", "post_attention_layernorm", ASSAY_GGUF_MINUS_ONE),                                     \
    NORM("ffn_norm", "pre_feedforward_layernorm", ASSAY_GGUF_MINUS_ONE),                                               \
    NORM("post_ffw_norm", "post_feedforward_layernorm", ASSAY_GGUF_MINUS_ONE)
#define WITH_BIAS(source, target, rows, columns, order)                                                                \
    ROW(source, target, rows, columns, order, ALWAYS),                                                                 \
    BIAS(source, target, rows, (order) == ASSAY_GGUF_BY_HEAD ? (order) : AS_IT_IS, ALWAYS)
#define LAYER_NORM(source, target) NORM(source, target, AS_IT_IS), BIAS(source, target, HIDDEN, AS_IT_IS, ALWAYS)

static const struct assay_gguf_row usual_outer[] = {OUTER(AS_IT_IS), END};
static const struct assay_gguf_row gemma_outer[] = {OUTER(ASSAY_GGUF_MINUS_ONE), END};
static const struct assay_gguf_row llama_inner[] = {
    NORMS, ATTENTION(ASSAY_GGUF_ROTARY), BIASES(ASSAY_GGUF_ROTARY), MLP(ALWAYS), MLP_BIASES, END};
static const struct assay_gguf_row qwen2_inner[] = {
    NORMS, ATTENTION(AS_IT_IS), QKV_BIASES(AS_IT_IS, ALWAYS), MLP(ALWAYS), END};
static const struct assay_gguf_row qwen3_inner[] = {
    NORMS, ATTENTION(AS_IT_IS), BIASES(AS_IT_IS), HEAD_NORMS(AS_IT_IS), MLP(ALWAYS), END};
static const struct assay_gguf_row phi3_inner[] = {
    NORMS,
    ROW("attn_qkv", "self_attn.qkv_proj", QKV, HIDDEN, AS_IT_IS, ALWAYS),
    ROW("attn_output", "self_attn.o_proj", HIDDEN, Q, AS_IT_IS, ALWAYS),
    ROW("ffn_up", "mlp.gate_up_proj", ASSAY_GGUF_DIM_GATE_UP, HIDDEN, AS_IT_IS, ALWAYS),
    ROW("ffn_down", "mlp.down_proj", HIDDEN, INTERMEDIATE, AS_IT_IS, ALWAYS),
    END};
static const struct assay_gguf_row gemma2_inner[] = {GEMMA_NORMS, ATTENTION(AS_IT_IS), MLP(ALWAYS), END};
static const struct assay_gguf_row gemma3_inner[] = {
    GEMMA_NORMS, HEAD_NORMS(ASSAY_GGUF_MINUS_ONE), ATTENTION(AS_IT_IS), MLP(ALWAYS), END};

static const struct assay_gguf_row phi2_outer[] = {
    ROW("token_embd", "model.embed_tokens", VOCAB, HIDDEN, AS_IT_IS, ALWAYS),
    LAYER_NORM("output_norm", "model.final_layernorm"),
    ROW("output", "lm_head", VOCAB, HIDDEN, AS_IT_IS, UNTIED),
    BIAS("output", "lm_head", VOCAB, AS_IT_IS, ALWAYS),
    END};
static const struct assay_gguf_row phi2_inner[] = {
    LAYER_NORM("attn_norm", "input_layernorm"),
    WITH_BIAS("attn_q", "self_attn.q_proj", Q, HIDDEN, AS_IT_IS),
    WITH_BIAS("attn_k", "self_attn.k_proj", KV, HIDDEN, AS_IT_IS),
    WITH_BIAS("attn_v", "self_attn.v_proj", KV, HIDDEN, AS_IT_IS),
    WITH_BIAS("attn_output", "self_attn.dense", HIDDEN, Q, AS_IT_IS),
    WITH_BIAS("ffn_up", "mlp.fc1", INTERMEDIATE, HIDDEN, AS_IT_IS),
    WITH_BIAS("ffn_down", "mlp.fc2", HIDDEN, INTERMEDIATE, AS_IT_IS),
    END};

static const struct assay_gguf_row gpt2_outer[] = {
    ROW("token_embd", "transformer.wte", VOCAB, HIDDEN, AS_IT_IS, ALWAYS),
    ROW("position_embd", "transformer.wpe", ASSAY_GGUF_DIM_POSITIONS, HIDDEN, AS_IT_IS, ALWAYS),
    LAYER_NORM("output_norm", "transformer.ln_f"),
    ROW("output", "lm_head", VOCAB, HIDDEN, AS_IT_IS, UNTIED),
    END};
static const struct assay_gguf_row gpt2_inner[] = {
    LAYER_NORM("attn_norm", "ln_1"),
    LAYER_NORM("ffn_norm", "ln_2"),
    WITH_BIAS("attn_qkv", "attn.c_attn", QKV, HIDDEN, ASSAY_GGUF_TRANSPOSED),
    WITH_BIAS("attn_output", "attn.c_proj", HIDDEN, Q, ASSAY_GGUF_TRANSPOSED),
    WITH_BIAS("ffn_up", "mlp.c_fc", INTERMEDIATE, HIDDEN, ASSAY_GGUF_TRANSPOSED),
    WITH_BIAS("ffn_down", "mlp.c_proj", HIDDEN, INTERMEDIATE, ASSAY_GGUF_TRANSPOSED),
    END};

static const struct assay_gguf_row gptneox_outer[] = {
    ROW("token_embd", "gpt_neox.embed_in", VOCAB, HIDDEN, AS_IT_IS, ALWAYS),
    LAYER_NORM("output_norm", "gpt_neox.final_layer_norm"),
    ROW("output", "embed_out", VOCAB, HIDDEN, AS_IT_IS, UNTIED),
    END};
static const struct assay_gguf_row gptneox_inner[] = {
    LAYER_NORM("attn_norm", "input_layernorm"),
    LAYER_NORM("ffn_norm", "post_attention_layernorm"),
    ROW("attn_qkv", "attention.query_key_value", QKV, HIDDEN, ASSAY_GGUF_BY_HEAD, ALWAYS),
    BIAS("attn_qkv", "attention.query_key_value", QKV, ASSAY_GGUF_BY_HEAD, ATTENTION_BIAS),
    ROW("attn_output", "attention.dense", HIDDEN, Q, AS_IT_IS, ALWAYS),
    BIAS("attn_output", "attention.dense", HIDDEN, AS_IT_IS, ATTENTION_BIAS),
    WITH_BIAS("ffn_up", "mlp.dense_h_to_4h", INTERMEDIATE, HIDDEN, AS_IT_IS),
    WITH_BIAS("ffn_down", "mlp.dense_4h_to_h", HIDDEN, INTERMEDIATE, AS_IT_IS),
    END};

static const struct assay_gguf_row deepseek2_inner[] = {
    NORMS,
    ROW("attn_q", "self_attn.q_proj", Q, HIDDEN, AS_IT_IS, ASSAY_GGUF_Q_DIRECT),
    ROW("attn_q_a", "self_attn.q_a_proj", ASSAY_GGUF_DIM_Q_RANK, HIDDEN, AS_IT_IS, ASSAY_GGUF_Q_LATENT),
    ROW("attn_q_a_norm", "self_attn.q_a_layernorm", NONE, ASSAY_GGUF_DIM_Q_RANK, AS_IT_IS, ASSAY_GGUF_Q_LATENT),
    ROW("attn_q_b", "self_attn.q_b_proj", Q, ASSAY_GGUF_DIM_Q_RANK, AS_IT_IS, ASSAY_GGUF_Q_LATENT),
    ROW("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", ASSAY_GGUF_DIM_KV_DOWN, HIDDEN, AS_IT_IS, ALWAYS),
    ROW("attn_kv_a_norm", "self_attn.kv_a_layernorm", NONE, ASSAY_GGUF_DIM_KV_RANK, AS_IT_IS, ALWAYS),
    ROW("attn_kv_b", "self_attn.kv_b_proj", KV, ASSAY_GGUF_DIM_KV_RANK, AS_IT_IS, ASSAY_GGUF_KV_JOINED),
    ROW("attn_k_b", "self_attn.kv_b_proj", KV, ASSAY_GGUF_DIM_KV_RANK, ASSAY_GGUF_LATENT, ASSAY_GGUF_KV_SPLIT),
    ROW("attn_output", "self_attn.o_proj", HIDDEN, ASSAY_GGUF_DIM_VALUES, AS_IT_IS, ALWAYS),
    MLP(ASSAY_GGUF_DENSE),
    ROW("ffn_gate_inp", "mlp.gate", ASSAY_GGUF_DIM_EXPERTS, HIDDEN, AS_IT_IS, ASSAY_GGUF_MIXED),
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias", NONE, ASSAY_GGUF_DIM_EXPERTS, AS_IT_IS, ASSAY_GGUF_MIXED},
    ROW("ffn_gate_shexp", "mlp.shared_experts.gate_proj", ASSAY_GGUF_DIM_SHARED, HIDDEN, AS_IT_IS, ASSAY_GGUF_MIXED),
    ROW("ffn_up_shexp", "mlp.shared_experts.up_proj", ASSAY_GGUF_DIM_SHARED, HIDDEN, AS_IT_IS, ASSAY_GGUF_MIXED),
    ROW("ffn_down_shexp", "mlp.shared_experts.down_proj", HIDDEN, ASSAY_GGUF_DIM_SHARED, AS_IT_IS, ASSAY_GGUF_MIXED),
    ROW("ffn_gate_exps", "mlp.experts.%u.gate_proj", EXPERT, HIDDEN, ASSAY_GGUF_EXPERTS, ASSAY_GGUF_MIXED),
    ROW("ffn_up_exps", "mlp.experts.%u.up_proj", EXPERT, HIDDEN, ASSAY_GGUF_EXPERTS, ASSAY_GGUF_MIXED),
    ROW("ffn_down_exps", "mlp.experts.%u.down_proj", HIDDEN, EXPERT, ASSAY_GGUF_EXPERTS, ASSAY_GGUF_MIXED),
    END};
/* clang-format on */

#define RMS .norm_key = "attention.layer_norm_rms_epsilon", .norm_member = "rms_norm_eps"
#define LAYER .norm_key = "attention.layer_norm_epsilon"
#define SILU .activation_member = "hidden_act", .activation = "silu"
#define MODEL_LAYERS .layers = "model.layers."
#define GEMMA                                                                                                          \
    MODEL_LAYERS, RMS, .activation_member = "hidden_activation", .activation = "gelu_pytorch_tanh", .outer = gemma_outer

/* What no key says is what the architecture has in every file: activations, and where norms stand. */
static const struct assay_gguf_arch archs[] = {
    {.name = "llama",
     .architecture = "LlamaForCausalLM",
     .model_type = "llama",
     MODEL_LAYERS,
     RMS,
     SILU,
     .options = ASSAY_GGUF_WINDOW,
     .attention_bias = true,
     .mlp_bias = true,
     .outer = usual_outer,
     .inner = llama_inner},
    {.name = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     MODEL_LAYERS,
     RMS,
     SILU,
     .outer = usual_outer,
     .inner = qwen2_inner},
    {.name = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     MODEL_LAYERS,
     RMS,
     SILU,
     .attention_bias = true,
     .outer = usual_outer,
     .inner = qwen3_inner},
    {.name = "phi3",
     .architecture = "Phi3ForCausalLM",
     .model_type = "phi3",
     MODEL_LAYERS,
     RMS,
     SILU,
     .options = ASSAY_GGUF_WINDOW | ASSAY_GGUF_PARTIAL_ROTARY | ASSAY_GGUF_FACTORS,
     .outer = usual_outer,
     .inner = phi3_inner},
    {.name = "phi2",
     .architecture = "PhiForCausalLM",
     .model_type = "phi",
     MODEL_LAYERS,
     LAYER,
     .norm_member = "layer_norm_eps",
     .activation_member = "hidden_act",
     .activation = "gelu_new",
     .options = ASSAY_GGUF_PARTIAL_ROTARY,
     .outer = phi2_outer,
     .inner = phi2_inner},
    {.name = "granite",
     .architecture = "GraniteForCausalLM",
     .model_type = "granite",
     MODEL_LAYERS,
     RMS,
     SILU,
     .options = ASSAY_GGUF_MULTIPLIERS,
     .attention_bias = true,
     .mlp_bias = true,
     .outer = usual_outer,
     .inner = llama_inner},
    {.name = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .model_type = "gemma2",
     GEMMA,
     .options = ASSAY_GGUF_WINDOW | ASSAY_GGUF_ATTENTION_CAP | ASSAY_GGUF_FINAL_CAP | ASSAY_GGUF_QUERY_SCALAR,
     .large_layers = 46,
     .window_pattern = 2,
     .inner = gemma2_inner},
    {.name = "gemma3",
     .architecture = "Gemma3ForCausalLM",
     .model_type = "gemma3_text",
     GEMMA,
     .options = ASSAY_GGUF_WINDOW | ASSAY_GGUF_WINDOW_PATTERN | ASSAY_GGUF_FINAL_CAP | ASSAY_GGUF_LOCAL_ROPE |
                ASSAY_GGUF_QUERY_SCALAR,
     .large_layers = 62,
     .window_pattern = 6,
     .inner = gemma3_inner},
    {.name = "gpt2",
     .architecture = "GPT2LMHeadModel",
     .model_type = "gpt2",
     .layers = "transformer.h.",
     LAYER,
     .norm_member = "layer_norm_epsilon",
     .activation_member = "activation_function",
     .activation = "gelu_new",
     .options = ASSAY_GGUF_NO_ROPE,
     .outer = gpt2_outer,
     .inner = gpt2_inner},
    {.name = "gptneox",
     .architecture = "GPTNeoXForCausalLM",
     .model_type = "gpt_neox",
     .layers = "gpt_neox.layers.",
     LAYER,
     .norm_member = "layer_norm_eps",
     .activation_member = "hidden_act",
     .activation = "gelu",
     .options = ASSAY_GGUF_PARTIAL_ROTARY | ASSAY_GGUF_PARALLEL,
     .attention_bias = true,
     .outer = gptneox_outer,
     .inner = gptneox_inner},
    {.name = "deepseek2",
     .architecture = "DeepseekV3ForCausalLM",
     .model_type = "deepseek_v3",
     MODEL_LAYERS,
     RMS,
     SILU,
     .options = ASSAY_GGUF_LATENT_ATTENTION,
     .outer = usual_outer,
     .inner = deepseek2_inner},
};

const struct assay_gguf_arch *assay_gguf_arch_find(const char *name, size_t len)
{
    for (size_t i = 0; i < ASSAY_COUNT(archs); i++)
        if (strlen(archs[i].name) == len && memcmp(archs[i].name, name, len) == 0)
            return &archs[i];
    return NULL;
}

const char *assay_gguf_arch_names(void)
{
    return "llama, qwen2, qwen3, phi2, phi3, granite, gemma2, gemma3, gpt2, gptneox, deepseek2";
}
