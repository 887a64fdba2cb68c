#include "common/formats/gguf_llama.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_text.h"

/* What a file of Llama 3.1 to 3.3 keeps of its rope scaling is the factor of each frequency alone. The parameters that
 * gave them: these, and a factor of 8 (3.1) or 32 (3.2). */
#define LLAMA3_LOW 1.0
#define LLAMA3_HIGH 4.0
#define LLAMA3_POSITIONS 8192.0
/* Frequencies are rounded to f32 on the way: a few units in the last place. */
#define LLAMA3_TOLERANCE 1e-4

#define ROPE_FREQS "rope_freqs.weight"

/* Reads members; the first failure stays. */
struct reader {
    const struct assay_gguf *file;
    struct assay_err *err;
    enum assay_status status;
};

static uint64_t read_size(struct reader *r, const char *key, bool required, uint64_t otherwise, uint64_t max)
{
    int64_t value = (int64_t)otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_int(r->file, key, required, 1, (int64_t)max, &value, r->err);
    return (uint64_t)value;
}

static double read_double(struct reader *r, const char *key, bool required, double otherwise)
{
    double value = otherwise;
    if (r->status == ASSAY_OK)
        r->status = assay_gguf_get_double(r->file, key, required, &value, r->err);
    return value;
}

static enum assay_status check_architecture(const struct assay_gguf *file, struct assay_err *err)
{
    struct assay_gguf_text architecture = {"", 0};
    char room[104];
    enum assay_status status = assay_gguf_get_text(file, "general.architecture", true, &architecture, err);
    if (status != ASSAY_OK)
        return status;
    if (!assay_gguf_text_is(architecture, "llama"))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: the architecture '%s' is not implemented for GGUF; llama is", assay_gguf_what(file),
                             assay_gguf_cut(architecture, room));
    int64_t experts = 0;
    status = assay_gguf_get_int(file, "llama.expert_count", false, 0, INT32_MAX, &experts, err);
    if (status == ASSAY_OK && experts)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: a mixture of %" PRId64 " experts is not implemented",
                             assay_gguf_what(file), experts);
    return status;
}

static enum assay_status read_sizes(const struct assay_gguf *file, struct assay_gguf_llama *m, struct assay_err *err)
{
    const char *what = assay_gguf_what(file);
    const struct assay_gguf_tensor *embedding = assay_gguf_find(file, "token_embd.weight");
    struct reader r = {file, err, ASSAY_OK};
    m->hidden = read_size(&r, "llama.embedding_length", true, 0, ASSAY_MODEL_DIM_MAX);
    m->intermediate = read_size(&r, "llama.feed_forward_length", true, 0, ASSAY_MODEL_DIM_MAX);
    m->layers = read_size(&r, "llama.block_count", true, 0, ASSAY_MODEL_LAYERS_MAX);
    m->heads = read_size(&r, "llama.attention.head_count", true, 0, ASSAY_MODEL_DIM_MAX);
    m->kv_heads = read_size(&r, "llama.attention.head_count_kv", false, m->heads, ASSAY_MODEL_DIM_MAX);
    m->positions = read_size(&r, "llama.context_length", true, 0, ASSAY_MODEL_VOCAB_MAX);
    m->norm_eps = read_double(&r, "llama.attention.layer_norm_rms_epsilon", true, 0);
    m->rope_theta = read_double(&r, "llama.rope.freq_base", false, 10000);
    if (r.status != ASSAY_OK)
        return r.status;
    m->head_dim = read_size(&r, "llama.attention.key_length", false, m->hidden / m->heads, ASSAY_MODEL_DIM_MAX);
    uint64_t value_dim = read_size(&r, "llama.attention.value_length", false, m->head_dim, ASSAY_MODEL_DIM_MAX);
    uint64_t rotated = read_size(&r, "llama.rope.dimension_count", false, m->head_dim, ASSAY_MODEL_DIM_MAX);
    if (r.status != ASSAY_OK)
        return r.status;
    if (m->head_dim == 0 || m->head_dim % 2 != 0 || m->heads % m->kv_heads != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %" PRIu64 " heads of %" PRIu64 ", %" PRIu64
                             " of them for keys: wanted an even size, and heads that share keys evenly",
                             what, m->heads, m->head_dim, m->kv_heads);
    if (rotated != m->head_dim || value_dim != m->head_dim)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: heads of %" PRIu64 " with %" PRIu64 " rotated and values of %" PRIu64
                             " are not implemented; equal sizes are",
                             what, m->head_dim, rotated, value_dim);
    if (!embedding || embedding->rank != 2 || embedding->shape[0] > ASSAY_MODEL_VOCAB_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: no tensor token_embd.weight of [vocabulary, %" PRIu64 "]", what, m->hidden);
    m->vocab = embedding->shape[0];
    return ASSAY_OK;
}

static double llama3_divisor(double theta, double head_dim, size_t i, double factor)
{
    double wavelength = 2 * M_PI * pow(theta, 2 * (double)i / head_dim);
    if (wavelength < LLAMA3_POSITIONS / LLAMA3_HIGH)
        return 1;
    if (wavelength > LLAMA3_POSITIONS / LLAMA3_LOW)
        return factor;
    double smooth = (LLAMA3_POSITIONS / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
    return 1 / ((1 - smooth) / factor + smooth);
}

/* The factor is the last frequency's, as its wavelength is beyond any context; all others have to follow from it. */
static enum assay_status read_frequencies(const struct assay_gguf *file, struct assay_gguf_llama *m,
                                          struct assay_err *err)
{
    const struct assay_gguf_tensor *tensor = assay_gguf_find(file, ROPE_FREQS);
    if (!tensor)
        return ASSAY_OK;
    uint64_t count = m->head_dim / 2;
    if (tensor->rank != 1 || tensor->type != ASSAY_GGML_F32 || tensor->elements != count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: " ROPE_FREQS " is not F32 [%" PRIu64 "]",
                             assay_gguf_what(file), count);
    float last, given;
    assay_gguf_to_f32(tensor, count - 1, 1, &last);
    for (size_t i = 0; i < count; i++) {
        assay_gguf_to_f32(tensor, i, 1, &given);
        double wanted = llama3_divisor(m->rope_theta, (double)m->head_dim, i, (double)last);
        if (!(last >= 1 && fabs((double)given - wanted) <= LLAMA3_TOLERANCE * wanted))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                                 "%s: factor %zu of " ROPE_FREQS " is %g where Llama 3 has %g: other scalings by "
                                 "frequency are not implemented",
                                 assay_gguf_what(file), i, (double)given, wanted);
    }
    m->llama3_factor = (double)last;
    return ASSAY_OK;
}

static enum assay_status read_rope(const struct assay_gguf *file, struct assay_gguf_llama *m, struct assay_err *err)
{
    struct assay_gguf_text type = {"none", 4};
    char room[104];
    struct reader r = {file, err, ASSAY_OK};
    double legacy = read_double(&r, "llama.rope.scale_linear", false, 1);
    double factor = read_double(&r, "llama.rope.scaling.factor", false, legacy);
    m->linear_factor = m->llama3_factor = 1;
    if (legacy != 1)
        type = (struct assay_gguf_text){"linear", 6};
    if (r.status == ASSAY_OK)
        r.status = assay_gguf_get_text(file, "llama.rope.scaling.type", false, &type, err);
    if (r.status != ASSAY_OK)
        return r.status;
    if (assay_gguf_text_is(type, "linear"))
        m->linear_factor = factor;
    else if (!assay_gguf_text_is(type, "none"))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: the rope scaling '%s' is not implemented; linear is",
                             assay_gguf_what(file), assay_gguf_cut(type, room));
    enum assay_status status = read_frequencies(file, m, err);
    if (status == ASSAY_OK && m->linear_factor != 1 && m->llama3_factor != 1)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: two scalings of rope at once are not implemented",
                             assay_gguf_what(file));
    return status;
}

/* Adds one tensor in the shape [rows, columns], or [columns] for rows 0. */
static enum assay_status add_part(const struct assay_gguf *file, struct assay_gguf_llama *m, const char *source,
                                  uint64_t rows, uint64_t columns, struct assay_err *err)
{
    const struct assay_gguf_tensor *tensor = assay_gguf_find(file, source);
    if (!tensor)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the tensor '%s' is missing", assay_gguf_what(file),
                             source);
    if (tensor->rank != (rows ? 2 : 1) || tensor->shape[tensor->rank - 1] != columns ||
        (rows && tensor->shape[0] != rows))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%s' is [%" PRIu64 ", %" PRIu64 "], wanted [%" PRIu64 ", %" PRIu64 "]",
                             assay_gguf_what(file), source, tensor->rank == 1 ? 0 : tensor->shape[0],
                             tensor->shape[tensor->rank - 1], rows, columns);
    m->parts[m->parts_count++].tensor = tensor;
    return ASSAY_OK;
}

/* The part that was added last. */
static struct assay_gguf_part *last_part(struct assay_gguf_llama *m)
{
    return &m->parts[m->parts_count - 1];
}

static enum assay_status add_layer(const struct assay_gguf *file, struct assay_gguf_llama *m, uint64_t layer,
                                   struct assay_err *err)
{
    const uint64_t all = m->heads * m->head_dim, keys = m->kv_heads * m->head_dim;
    const struct {
        const char *source, *target;
        uint64_t rows, columns, rotary_heads;
    } rows[] = {
        {"attn_norm", "input_layernorm", 0, m->hidden, 0},
        {"attn_q", "self_attn.q_proj", all, m->hidden, m->heads},
        {"attn_k", "self_attn.k_proj", keys, m->hidden, m->kv_heads},
        {"attn_v", "self_attn.v_proj", keys, m->hidden, 0},
        {"attn_output", "self_attn.o_proj", m->hidden, all, 0},
        {"ffn_norm", "post_attention_layernorm", 0, m->hidden, 0},
        {"ffn_gate", "mlp.gate_proj", m->intermediate, m->hidden, 0},
        {"ffn_up", "mlp.up_proj", m->intermediate, m->hidden, 0},
        {"ffn_down", "mlp.down_proj", m->hidden, m->intermediate, 0},
    };
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(rows) && status == ASSAY_OK; i++) {
        char source[ASSAY_GGUF_NAME_MAX];
        snprintf(source, sizeof source, "blk.%" PRIu64 ".%s.weight", layer, rows[i].source);
        status = add_part(file, m, source, rows[i].rows, rows[i].columns, err);
        if (status != ASSAY_OK)
            break;
        snprintf(last_part(m)->name, ASSAY_GGUF_NAME_MAX, "model.layers.%" PRIu64 ".%s.weight", layer, rows[i].target);
        last_part(m)->rotary_heads = rows[i].rotary_heads;
    }
    return status;
}

static enum assay_status add_outer(const struct assay_gguf *file, struct assay_gguf_llama *m, struct assay_err *err)
{
    m->tied_head = !assay_gguf_find(file, "output.weight");
    const struct {
        const char *source, *target;
        uint64_t rows;
    } rows[] = {
        {"token_embd.weight", "model.embed_tokens.weight", m->vocab},
        {"output_norm.weight", "model.norm.weight", 0},
        {"output.weight", "lm_head.weight", m->vocab},
    };
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(rows) - m->tied_head && status == ASSAY_OK; i++) {
        status = add_part(file, m, rows[i].source, rows[i].rows, m->hidden, err);
        if (status == ASSAY_OK)
            snprintf(last_part(m)->name, ASSAY_GGUF_NAME_MAX, "%s", rows[i].target);
    }
    return status;
}

/* A tensor that no part came from would change what the model computes. */
static enum assay_status refuse_further(const struct assay_gguf *file, const struct assay_gguf_llama *m,
                                        struct assay_err *err)
{
    if (assay_gguf_count(file) == m->parts_count + (assay_gguf_find(file, ROPE_FREQS) != NULL))
        return ASSAY_OK;
    for (size_t i = 0; i < assay_gguf_count(file); i++) {
        const struct assay_gguf_tensor *tensor = assay_gguf_at(file, i);
        bool used = strcmp(tensor->name, ROPE_FREQS) == 0;
        for (size_t j = 0; j < m->parts_count && !used; j++)
            used = m->parts[j].tensor == tensor;
        if (!used)
            return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                                 "%s: the tensor '%s' has no place in a Llama of %" PRIu64 " layers without biases",
                                 assay_gguf_what(file), tensor->name, m->layers);
    }
    return ASSAY_OK;
}

enum assay_status assay_gguf_llama_read(const struct assay_gguf *file, struct assay_gguf_llama *ret,
                                        struct assay_err *err)
{
    struct assay_gguf_llama m = {0};
    enum assay_status status = check_architecture(file, err);
    if (status == ASSAY_OK)
        status = read_sizes(file, &m, err);
    if (status == ASSAY_OK)
        status = read_rope(file, &m, err);
    if (status != ASSAY_OK)
        return status;
    m.parts = calloc(m.layers * 9 + 3, sizeof *m.parts);
    if (!m.parts)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(file));
    status = add_outer(file, &m, err);
    for (uint64_t i = 0; i < m.layers && status == ASSAY_OK; i++)
        status = add_layer(file, &m, i, err);
    if (status == ASSAY_OK)
        status = refuse_further(file, &m, err);
    if (status == ASSAY_OK)
        *ret = m;
    else
        assay_gguf_llama_release(&m);
    return status;
}

void assay_gguf_llama_release(struct assay_gguf_llama *model)
{
    free(model->parts);
    *model = (struct assay_gguf_llama){0};
}

static void append_size(struct assay_buf *out, const char *key, uint64_t value)
{
    assay_buf_printf(out, "  \"%s\": %" PRIu64 ",\n", key, value);
}

static void append_double(struct assay_buf *out, const char *key, double value)
{
    assay_buf_printf(out, "  \"%s\": ", key);
    assay_gguf_number(out, value);
    assay_buf_str(out, ",\n");
}

static void append_rope(struct assay_buf *out, const struct assay_gguf_llama *m)
{
    append_double(out, "rope_theta", m->rope_theta);
    bool llama3 = m->llama3_factor != 1;
    if (!llama3 && m->linear_factor == 1)
        return;
    assay_buf_printf(out, "  \"rope_scaling\": {\"rope_type\": \"%s\", \"factor\": ", llama3 ? "llama3" : "linear");
    assay_gguf_number(out, llama3 ? m->llama3_factor : m->linear_factor);
    if (llama3)
        assay_buf_printf(out,
                         ", \"low_freq_factor\": %.1f, \"high_freq_factor\": %.1f, "
                         "\"original_max_position_embeddings\": %.0f",
                         LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_POSITIONS);
    assay_buf_str(out, "},\n");
}

enum assay_status assay_gguf_llama_config(const struct assay_gguf *file, const struct assay_gguf_llama *model,
                                          const char *dtype, struct assay_buf *out, struct assay_err *err)
{
    static const struct {
        const char *source, *target;
    } ids[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
               {"tokenizer.ggml.eos_token_id", "eos_token_id"},
               {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    assay_buf_str(out, "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n");
    append_size(out, "hidden_size", model->hidden);
    append_size(out, "intermediate_size", model->intermediate);
    append_size(out, "num_hidden_layers", model->layers);
    append_size(out, "num_attention_heads", model->heads);
    append_size(out, "num_key_value_heads", model->kv_heads);
    append_size(out, "head_dim", model->head_dim);
    append_size(out, "vocab_size", model->vocab);
    append_size(out, "max_position_embeddings", model->positions);
    append_double(out, "rms_norm_eps", model->norm_eps);
    append_rope(out, model);
    for (size_t i = 0; i < ASSAY_COUNT(ids); i++) {
        int64_t id = -1;
        enum assay_status status =
            assay_gguf_get_int(file, ids[i].source, false, 0, (int64_t)model->vocab - 1, &id, err);
        if (status != ASSAY_OK)
            return status;
        if (id >= 0)
            append_size(out, ids[i].target, (uint64_t)id);
    }
    assay_buf_printf(out,
                     "  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n  \"mlp_bias\": false,\n"
                     "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"%s\"\n}\n",
                     model->tied_head ? "true" : "false", dtype);
    return assay_buf_check(out, err);
}
