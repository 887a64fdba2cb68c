/* config.json of the model that a GGUF file holds. */
#include <inttypes.h>
#include <string.h>

#include "common/formats/gguf_model.h"
#include "common/formats/gguf_text.h"

static void append_text(struct assay_buf *out, const char *key, const char *value)
{
    assay_buf_printf(out, "  \"%s\": \"%s\",\n", key, value);
}

static void append_size(struct assay_buf *out, const char *key, uint64_t value)
{
    assay_buf_printf(out, "  \"%s\": %" PRIu64 ",\n", key, value);
}

static void append_bool(struct assay_buf *out, const char *key, bool value)
{
    assay_buf_printf(out, "  \"%s\": %s,\n", key, value ? "true" : "false");
}

static void append_double(struct assay_buf *out, const char *key, double value)
{
    assay_buf_printf(out, "  \"%s\": ", key);
    assay_gguf_number(out, value);
    assay_buf_str(out, ",\n");
}

/* 0 is null. */
static void append_size_or_null(struct assay_buf *out, const char *key, uint64_t value)
{
    if (value != 0)
        append_size(out, key, value);
    else
        assay_buf_printf(out, "  \"%s\": null,\n", key);
}

/* 0 is null. */
static void append_double_or_null(struct assay_buf *out, const char *key, double value)
{
    if (value != 0)
        append_double(out, key, value);
    else
        assay_buf_printf(out, "  \"%s\": null,\n", key);
}

static void append_sizes(struct assay_buf *out, const struct assay_gguf_model *m)
{
    const unsigned options = m->arch->options;
    if (options & ASSAY_GGUF_NO_ROPE) { /* GPT-2 has names of its own */
        append_size(out, "n_embd", m->hidden);
        append_size(out, "n_inner", m->intermediate);
        append_size(out, "n_layer", m->layers);
        append_size(out, "n_head", m->heads);
        append_size(out, "n_positions", m->positions);
        append_size(out, "vocab_size", m->vocab);
        return;
    }
    append_size(out, "hidden_size", m->hidden);
    append_size(out, "intermediate_size", m->intermediate);
    append_size(out, "num_hidden_layers", m->layers);
    append_size(out, "num_attention_heads", m->heads);
    append_size(out, "num_key_value_heads", m->kv_heads);
    if (!(options & ASSAY_GGUF_LATENT_ATTENTION))
        append_size(out, "head_dim", m->head_dim);
    append_size(out, "vocab_size", m->vocab);
    append_size(out, "max_position_embeddings", m->positions);
}

/* ", \"key\": value" */
static void append_member(struct assay_buf *out, const char *key, double value)
{
    assay_buf_printf(out, ", \"%s\": ", key);
    assay_gguf_number(out, value);
}

static void append_factors(struct assay_buf *out, const char *key, const struct assay_gguf_tensor *tensor)
{
    assay_buf_printf(out, ", \"%s\": [", key);
    for (size_t i = 0; i < tensor->elements; i++) {
        float factor;
        assay_gguf_to_f32(tensor, i, 1, &factor);
        assay_buf_str(out, i ? ", " : "");
        assay_gguf_number(out, (double)factor);
    }
    assay_buf_str(out, "]");
}

static void append_scaling(struct assay_buf *out, const struct assay_gguf_rope *rope)
{
    static const char *const names[] = {[ASSAY_GGUF_ROPE_LINEAR] = "linear",
                                        [ASSAY_GGUF_ROPE_LLAMA3] = "llama3",
                                        [ASSAY_GGUF_ROPE_YARN] = "yarn",
                                        [ASSAY_GGUF_ROPE_FACTORS] = "longrope"};
    if (rope->kind == ASSAY_GGUF_ROPE_PLAIN)
        return;
    assay_buf_printf(out, "  \"rope_scaling\": {\"rope_type\": \"%s\"", names[rope->kind]);
    if (rope->kind != ASSAY_GGUF_ROPE_FACTORS)
        append_member(out, "factor", rope->factor);
    if (rope->kind == ASSAY_GGUF_ROPE_LLAMA3)
        assay_buf_str(out, ", \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                           "\"original_max_position_embeddings\": 8192");
    if (rope->kind == ASSAY_GGUF_ROPE_YARN || rope->kind == ASSAY_GGUF_ROPE_FACTORS)
        assay_buf_printf(out, ", \"original_max_position_embeddings\": %" PRIu64, rope->original_positions);
    if (rope->attention_factor != 0)
        append_member(out, "attention_factor", rope->attention_factor);
    if (rope->beta_fast != 0)
        append_member(out, "beta_fast", rope->beta_fast);
    if (rope->beta_slow != 0)
        append_member(out, "beta_slow", rope->beta_slow);
    if (rope->mscale_all != 0) { /* readers of these files take both for the same */
        append_member(out, "mscale", rope->mscale_all);
        append_member(out, "mscale_all_dim", rope->mscale_all);
    }
    if (rope->kind == ASSAY_GGUF_ROPE_FACTORS) {
        append_factors(out, "short_factor", rope->short_factors);
        append_factors(out, "long_factor", rope->long_factors);
    }
    assay_buf_str(out, "},\n");
}

static void append_rope(struct assay_buf *out, const struct assay_gguf_model *m)
{
    const struct assay_gguf_rope *rope = &m->rope;
    const bool neox = m->arch->options & ASSAY_GGUF_PARALLEL;
    if (m->arch->options & ASSAY_GGUF_NO_ROPE)
        return;
    append_double(out, neox ? "rotary_emb_base" : "rope_theta", rope->theta);
    if (rope->local_theta != 0)
        append_double(out, "rope_local_base_freq", rope->local_theta);
    if (m->arch->options & ASSAY_GGUF_PARTIAL_ROTARY)
        append_double(out, neox ? "rotary_pct" : "partial_rotary_factor", (double)m->rotated / (double)m->head_dim);
    if (m->arch->options & ASSAY_GGUF_FACTORS)
        append_size(out, "original_max_position_embeddings",
                    rope->kind == ASSAY_GGUF_ROPE_FACTORS ? rope->original_positions : m->positions);
    append_scaling(out, rope);
}

static void append_options(struct assay_buf *out, const struct assay_gguf_model *m)
{
    const unsigned options = m->arch->options;
    if (options & ASSAY_GGUF_WINDOW && (m->window || m->arch->options != ASSAY_GGUF_WINDOW))
        append_size_or_null(out, "sliding_window", m->window);
    if (options & ASSAY_GGUF_WINDOW_PATTERN)
        append_size(out, "sliding_window_pattern", m->window_pattern);
    if (options & ASSAY_GGUF_QUERY_SCALAR)
        append_size(out, "query_pre_attn_scalar", m->query_scalar);
    if (options & ASSAY_GGUF_ATTENTION_CAP)
        append_double_or_null(out, "attn_logit_softcapping", m->attention_cap);
    if (options & ASSAY_GGUF_FINAL_CAP)
        append_double_or_null(out, "final_logit_softcapping", m->final_cap);
    if (options & ASSAY_GGUF_PARALLEL)
        append_bool(out, "use_parallel_residual", m->parallel);
    if (options & ASSAY_GGUF_MULTIPLIERS) {
        append_double(out, "attention_multiplier", m->attention_scale);
        append_double(out, "embedding_multiplier", m->embedding_scale);
        append_double(out, "residual_multiplier", m->residual_scale);
        append_double(out, "logits_scaling", m->logit_scale);
    }
}

static void append_latent(struct assay_buf *out, const struct assay_gguf_model *m)
{
    if (!(m->arch->options & ASSAY_GGUF_LATENT_ATTENTION))
        return;
    append_size_or_null(out, "q_lora_rank", m->latent.q_rank);
    append_size(out, "kv_lora_rank", m->latent.kv_rank);
    append_size(out, "qk_nope_head_dim", m->head_dim - m->rotated);
    append_size(out, "qk_rope_head_dim", m->rotated);
    append_size(out, "v_head_dim", m->latent.value_dim);
    append_bool(out, "rope_interleave", true);
    append_size(out, "n_routed_experts", m->latent.experts);
    append_size(out, "num_experts_per_tok", m->latent.used);
    append_size(out, "n_group", m->latent.groups);
    append_size(out, "topk_group", m->latent.groups_used);
    append_size(out, "n_shared_experts", m->latent.shared);
    append_size(out, "moe_intermediate_size", m->latent.intermediate);
    append_size(out, "first_k_dense_replace", m->latent.dense_layers);
    append_bool(out, "norm_topk_prob", m->latent.normalized);
    append_double(out, "routed_scaling_factor", m->latent.scale);
}

static enum assay_status append_ids(const struct assay_gguf *file, uint64_t vocab, struct assay_buf *out,
                                    struct assay_err *err)
{
    static const struct {
        const char *source, *target;
    } ids[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
               {"tokenizer.ggml.eos_token_id", "eos_token_id"},
               {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    for (size_t i = 0; i < ASSAY_COUNT(ids); i++) {
        int64_t id = -1;
        enum assay_status status = assay_gguf_get_int(file, ids[i].source, false, 0, (int64_t)vocab - 1, &id, err);
        if (status != ASSAY_OK)
            return status;
        if (id >= 0)
            append_size(out, ids[i].target, (uint64_t)id);
        else /* a class of transformers may have one of its own, beyond this vocabulary */
            assay_buf_printf(out, "  \"%s\": null,\n", ids[i].target);
    }
    return ASSAY_OK;
}

enum assay_status assay_gguf_config(const struct assay_gguf *file, const struct assay_gguf_model *model,
                                    const char *dtype, struct assay_buf *out, struct assay_err *err)
{
    const struct assay_gguf_arch *arch = model->arch;
    /* A Llama with a window is a Mistral. */
    const bool mistral = arch->options == ASSAY_GGUF_WINDOW && model->window > 0;
    assay_buf_printf(out, "{\n  \"architectures\": [\"%s\"],\n", mistral ? "MistralForCausalLM" : arch->architecture);
    append_text(out, "model_type", mistral ? "mistral" : arch->model_type);
    append_sizes(out, model);
    append_double(out, arch->norm_member, model->norm_eps);
    append_rope(out, model);
    append_options(out, model);
    append_latent(out, model);
    enum assay_status status = append_ids(file, model->vocab, out, err);
    if (status != ASSAY_OK)
        return status;
    append_text(out, arch->activation_member, arch->activation);
    if (arch->attention_bias)
        append_bool(out, "attention_bias", model->attention_bias);
    if (arch->mlp_bias)
        append_bool(out, "mlp_bias", model->mlp_bias);
    append_bool(out, "tie_word_embeddings", model->tied_head);
    assay_buf_printf(out, "  \"torch_dtype\": \"%s\"\n}\n", dtype);
    return assay_buf_check(out, err);
}
