#include "common/formats/gguf_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_text.h"

#define KEY_MAX 128
/* What the reader of DeepSeek's files has for experts that are chosen by sigmoids. */
#define GATING_SIGMOID 2

static void name_key(const struct assay_gguf_reader *r, const char *key, char full[KEY_MAX])
{
    snprintf(full, KEY_MAX, "%s.%s", r->arch, key);
}

uint64_t assay_gguf_read_size(struct assay_gguf_reader *r, const char *key, bool required, uint64_t otherwise,
                              uint64_t min, uint64_t max)
{
    char full[KEY_MAX];
    int64_t value = (int64_t)otherwise;
    name_key(r, key, full);
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_int(r->file, full, required, (int64_t)min, (int64_t)max, &value, r->err);
    return (uint64_t)value;
}

double assay_gguf_read_double(struct assay_gguf_reader *r, const char *key, bool required, double otherwise)
{
    char full[KEY_MAX];
    double value = otherwise;
    name_key(r, key, full);
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_double(r->file, full, required, &value, r->err);
    return value;
}

bool assay_gguf_read_bool(struct assay_gguf_reader *r, const char *key, bool otherwise)
{
    char full[KEY_MAX];
    bool value = otherwise;
    name_key(r, key, full);
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_bool(r->file, full, false, &value, r->err);
    return value;
}

static enum assay_status find_architecture(const struct assay_gguf *file, const struct assay_gguf_arch **ret,
                                           struct assay_err *err)
{
    struct assay_gguf_text name = {"", 0};
    char room[104];
    int64_t files = 1;
    enum assay_status status = assay_gguf_get_int(file, "split.count", false, 0, INT32_MAX, &files, err);
    if (status == ASSAY_OK && files > 1)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: one of %" PRId64 " files that a model was split into: join them first "
                             "(llama-gguf-split --merge)",
                             assay_gguf_what(file), files);
    if (status == ASSAY_OK)
        status = assay_gguf_get_text(file, "general.architecture", true, &name, err);
    if (status != ASSAY_OK)
        return status;
    *ret = assay_gguf_arch_find(name.bytes, name.len);
    if (!*ret)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: the architecture '%s' is not implemented for GGUF; these are: %s",
                             assay_gguf_what(file), assay_gguf_cut(name, room), assay_gguf_arch_names());
    return ASSAY_OK;
}

/* --- what would change the result --- */

/* A key that not every architecture heeds, and its value without effect. */
static const struct {
    const char *key;
    unsigned option; /* 0: none heeds it */
    double neutral;
} options[] = {
    {"attention.sliding_window", ASSAY_GGUF_WINDOW, 0},
    {"attention.scale", ASSAY_GGUF_MULTIPLIERS, 0},
    {"embedding_scale", ASSAY_GGUF_MULTIPLIERS, 1},
    {"residual_scale", ASSAY_GGUF_MULTIPLIERS, 1},
    {"logit_scale", ASSAY_GGUF_MULTIPLIERS, 1},
    {"attn_logit_softcapping", ASSAY_GGUF_ATTENTION_CAP, 0},
    {"final_logit_softcapping", ASSAY_GGUF_FINAL_CAP, 0},
    {"rope.freq_base_swa", ASSAY_GGUF_LOCAL_ROPE, 0},
    {"attention.kv_lora_rank", ASSAY_GGUF_LATENT_ATTENTION, 0},
    {"expert_count", ASSAY_GGUF_LATENT_ATTENTION, 0},
    {"attention.clamp_kqv", 0, 0},
    {"attention.max_alibi_bias", 0, 0},
    {"attention.temperature_scale", 0, 0},
    {"nextn_predict_layers", 0, 0},
    {"rope.scaling.alpha", 0, 0},
};

/* Reads a number of either type. */
static double read_number(struct assay_gguf_reader *r, const char *key, double otherwise)
{
    char full[KEY_MAX];
    int64_t whole = 0;
    name_key(r, key, full);
    if (r->status != ASSAY_OK || !assay_gguf_has(r->file, full))
        return otherwise;
    if (assay_gguf_get_int(r->file, full, true, INT32_MIN, UINT32_MAX, &whole, NULL) == ASSAY_OK)
        return (double)whole;
    return assay_gguf_read_double(r, key, true, otherwise);
}

static void refuse_options(struct assay_gguf_reader *r, const struct assay_gguf_arch *arch)
{
    for (size_t i = 0; i < ASSAY_COUNT(options) && r->status == ASSAY_OK; i++) {
        if (arch->options & options[i].option)
            continue;
        double value = read_number(r, options[i].key, options[i].neutral);
        if (r->status == ASSAY_OK && value != options[i].neutral)
            r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED, "%s: %s.%s of %g is not implemented",
                                      assay_gguf_what(r->file), r->arch, options[i].key, value);
    }
    if (!assay_gguf_read_bool(r, "attention.causal", true) && r->status == ASSAY_OK)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED, "%s: attention to later positions is not implemented",
                                  assay_gguf_what(r->file));
    if (!assay_gguf_read_bool(r, "rope.scaling.finetuned", true) && arch->options & ASSAY_GGUF_MULTIPLIERS &&
        r->status == ASSAY_OK)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED, "%s: a %s without rope is not implemented",
                                  assay_gguf_what(r->file), r->arch);
}

/* --- sizes --- */

static void read_heads(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    const bool latent = m->arch->options & ASSAY_GGUF_LATENT_ATTENTION;
    uint64_t value_dim;
    if (r->status != ASSAY_OK)
        return;
    if (latent) { /* the other keys are of heads that share one latent */
        m->kv_heads = m->heads;
        m->latent.kv_rank = assay_gguf_read_size(r, "attention.kv_lora_rank", true, 0, 1, ASSAY_MODEL_DIM_MAX);
        bool split = assay_gguf_find(r->file, "blk.0.attn_k_b.weight");
        m->head_dim = assay_gguf_read_size(r, split ? "attention.key_length_mla" : "attention.key_length", true, 0, 1,
                                           ASSAY_MODEL_DIM_MAX);
        value_dim = assay_gguf_read_size(r, split ? "attention.value_length_mla" : "attention.value_length", true, 0, 1,
                                         ASSAY_MODEL_DIM_MAX);
        m->latent.value_dim = value_dim;
        m->latent.joined = !split;
    } else {
        m->head_dim =
            assay_gguf_read_size(r, "attention.key_length", false, m->hidden / m->heads, 1, ASSAY_MODEL_DIM_MAX);
        value_dim = assay_gguf_read_size(r, "attention.value_length", false, m->head_dim, 1, ASSAY_MODEL_DIM_MAX);
    }
    m->rotated = assay_gguf_read_size(r, "rope.dimension_count", latent, m->head_dim, 1, ASSAY_MODEL_DIM_MAX);
    if (r->status != ASSAY_OK)
        return;
    if (m->head_dim == 0 || m->head_dim % 2 != 0 || m->rotated % 2 != 0 || m->heads % m->kv_heads != 0 ||
        m->heads * m->head_dim > ASSAY_MODEL_DIM_MAX)
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT,
                                  "%s: %" PRIu64 " heads of %" PRIu64 ", %" PRIu64
                                  " of them for keys: wanted an even size, and heads that share keys evenly",
                                  assay_gguf_what(r->file), m->heads, m->head_dim, m->kv_heads);
    else if ((m->rotated != m->head_dim && !latent && !(m->arch->options & ASSAY_GGUF_PARTIAL_ROTARY)) ||
             (value_dim != m->head_dim && !latent) || m->rotated > m->head_dim - latent)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: heads of %" PRIu64 " with %" PRIu64 " rotated and values of %" PRIu64
                                  " are not implemented for %s",
                                  assay_gguf_what(r->file), m->head_dim, m->rotated, value_dim, r->arch);
}

static void read_sizes(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    const struct assay_gguf_tensor *embedding = assay_gguf_find(r->file, "token_embd.weight");
    m->hidden = assay_gguf_read_size(r, "embedding_length", true, 0, 1, ASSAY_MODEL_DIM_MAX);
    m->intermediate = assay_gguf_read_size(r, "feed_forward_length", true, 0, 1, ASSAY_MODEL_DIM_MAX);
    m->layers = assay_gguf_read_size(r, "block_count", true, 0, 1, ASSAY_MODEL_LAYERS_MAX);
    m->heads = assay_gguf_read_size(r, "attention.head_count", true, 0, 1, ASSAY_MODEL_DIM_MAX);
    m->kv_heads = assay_gguf_read_size(r, "attention.head_count_kv", false, m->heads, 1, ASSAY_MODEL_DIM_MAX);
    m->positions = assay_gguf_read_size(r, "context_length", true, 0, 1, ASSAY_MODEL_VOCAB_MAX);
    m->norm_eps = assay_gguf_read_double(r, m->arch->norm_key, true, 0);
    read_heads(r, m);
    if (r->status != ASSAY_OK)
        return;
    if (!embedding || embedding->rank != 2 || embedding->shape[0] > ASSAY_MODEL_VOCAB_MAX) {
        r->status = assay_err_set(r->err, ASSAY_INVALID_ARGUMENT,
                                  "%s: no tensor token_embd.weight of [vocabulary, %" PRIu64 "]",
                                  assay_gguf_what(r->file), m->hidden);
        return;
    }
    m->vocab = embedding->shape[0];
    m->tied_head = !assay_gguf_find(r->file, "output.weight");
    m->attention_bias =
        assay_gguf_find(r->file, "blk.0.attn_q.bias") || assay_gguf_find(r->file, "blk.0.attn_qkv.bias");
    m->mlp_bias = assay_gguf_find(r->file, "blk.0.ffn_up.bias");
}

/* --- what some architectures have --- */

static void read_scales(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    m->attention_scale = m->embedding_scale = m->residual_scale = m->logit_scale = 1;
    if (m->arch->options & ASSAY_GGUF_MULTIPLIERS) {
        m->attention_scale = assay_gguf_read_double(r, "attention.scale", true, 1);
        m->embedding_scale = assay_gguf_read_double(r, "embedding_scale", false, 1);
        m->residual_scale = assay_gguf_read_double(r, "residual_scale", false, 1);
        m->logit_scale = assay_gguf_read_double(r, "logit_scale", true, 1);
    }
    if (m->arch->options & ASSAY_GGUF_ATTENTION_CAP)
        m->attention_cap = assay_gguf_read_double(r, "attn_logit_softcapping", false, 50);
    if (m->arch->options & ASSAY_GGUF_FINAL_CAP)
        m->final_cap = assay_gguf_read_double(r, "final_logit_softcapping", false,
                                              m->arch->options & ASSAY_GGUF_ATTENTION_CAP ? 30 : 0);
    m->query_scalar = m->head_dim;
    if (m->layers == m->arch->large_layers)
        m->query_scalar = m->hidden / m->heads;
    m->parallel = !(m->arch->options & ASSAY_GGUF_PARALLEL) || assay_gguf_read_bool(r, "use_parallel_residual", true);
}

static void read_windows(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    const bool by_layer = m->arch->window_pattern > 0;
    m->window_pattern = m->arch->window_pattern;
    if (m->arch->options & ASSAY_GGUF_WINDOW)
        m->window = assay_gguf_read_size(r, "attention.sliding_window", by_layer, 0, by_layer, ASSAY_MODEL_VOCAB_MAX);
    if (m->arch->options & ASSAY_GGUF_WINDOW_PATTERN)
        m->window_pattern = assay_gguf_read_size(r, "attention.sliding_window_pattern", false, m->window_pattern, 1,
                                                 ASSAY_MODEL_LAYERS_MAX);
}

static void read_experts(struct assay_gguf_reader *r, struct assay_gguf_model *m)
{
    const uint64_t most = ASSAY_MODEL_EXPERTS_MAX;
    if (!(m->arch->options & ASSAY_GGUF_LATENT_ATTENTION))
        return;
    m->latent.q_rank = assay_gguf_read_size(r, "attention.q_lora_rank", false, 0, 1, ASSAY_MODEL_DIM_MAX);
    m->latent.experts = assay_gguf_read_size(r, "expert_count", true, 0, 1, most);
    m->latent.used = assay_gguf_read_size(r, "expert_used_count", true, 0, 1, most);
    m->latent.groups = assay_gguf_read_size(r, "expert_group_count", false, 1, 1, most);
    m->latent.groups_used = assay_gguf_read_size(r, "expert_group_used_count", false, 1, 1, most);
    m->latent.shared = assay_gguf_read_size(r, "expert_shared_count", true, 0, 1, most);
    m->latent.intermediate = assay_gguf_read_size(r, "expert_feed_forward_length", true, 0, 1, ASSAY_MODEL_DIM_MAX);
    m->latent.dense_layers = assay_gguf_read_size(r, "leading_dense_block_count", false, 0, 0, m->layers);
    m->latent.normalized = assay_gguf_read_bool(r, "expert_weights_norm", false);
    m->latent.scale = assay_gguf_read_double(r, "expert_weights_scale", false, 1);
    uint64_t gating = assay_gguf_read_size(r, "expert_gating_func", false, 0, 0, INT32_MAX);
    if (r->status == ASSAY_OK && gating != GATING_SIGMOID)
        r->status = assay_err_set(r->err, ASSAY_UNIMPLEMENTED,
                                  "%s: experts that are not chosen by sigmoids as in DeepSeek-V3 "
                                  "(expert_gating_func %" PRIu64 ") are not implemented",
                                  assay_gguf_what(r->file), gating);
}

enum assay_status assay_gguf_model_read(const struct assay_gguf *file, struct assay_gguf_model *ret,
                                        struct assay_err *err)
{
    struct assay_gguf_model m = {0};
    enum assay_status status = find_architecture(file, &m.arch, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_gguf_reader r = {file, m.arch->name, err, ASSAY_OK};
    refuse_options(&r, m.arch);
    read_sizes(&r, &m);
    if (r.status != ASSAY_OK)
        return r.status;
    read_scales(&r, &m);
    read_windows(&r, &m);
    read_experts(&r, &m);
    assay_gguf_read_rope(&r, &m);
    if (r.status == ASSAY_OK)
        r.status = assay_gguf_read_parts(file, &m, err);
    if (r.status == ASSAY_OK)
        *ret = m;
    else
        assay_gguf_model_release(&m);
    return r.status;
}

void assay_gguf_model_release(struct assay_gguf_model *model)
{
    free(model->parts);
    *model = (struct assay_gguf_model){0};
}
