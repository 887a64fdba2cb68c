#include "cli/bench_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/limits.h"
#include "common/formats/safetensors.h"
#include "common/quant/nf4.h"

#define PIECE_BYTES ((size_t)1 << 20)

const struct assay_model_config bench_shape_qwen = {.architecture = "LlamaForCausalLM",
                                                    .hidden = 896,
                                                    .layers = 24,
                                                    .heads = 14,
                                                    .kv_heads = 2,
                                                    .head_dim = 64,
                                                    .intermediate = 4864,
                                                    .vocab = 151936,
                                                    .positions_max = 32768,
                                                    .norm_eps = 1e-6f,
                                                    .tied_head = true,
                                                    .rope = {.theta = 1e6}};

enum filling { FILL_NOISE, FILL_ONES, FILL_SMALL, FILL_TEXT };

struct part {
    enum filling filling;
    const void *bytes; /* FILL_TEXT */
};

struct plan {
    struct assay_arena arena;
    struct assay_tensor *tensors;
    struct part *parts;
    size_t count, room;
    bool failed; /* out of memory */
};

static void add(struct plan *plan, const char *name, enum assay_dtype dtype, uint64_t rows, uint64_t columns,
                struct part part)
{
    char *kept = assay_arena_alloc(&plan->arena, strlen(name) + 1);
    if (!kept || plan->count == plan->room) {
        plan->failed = true;
        return;
    }
    strcpy(kept, name);
    struct assay_tensor *t = &plan->tensors[plan->count];
    *t = (struct assay_tensor){.name = kept, .dtype = dtype, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    t->bytes = (size_t)assay_tensor_elements(t) * assay_dtype_bytes(dtype);
    plan->parts[plan->count++] = part;
}

static void add_nf4(struct plan *plan, const char *name, size_t rows, size_t columns)
{
    char full[160], text[160];
    const struct part noise = {FILL_NOISE, NULL}, small = {FILL_SMALL, NULL};
    size_t blocks = assay_nf4_blocks(rows * columns, ASSAY_NF4_BLOCK);
    snprintf(full, sizeof full, "%s.weight", name);
    add(plan, full, ASSAY_U8, assay_nf4_bytes(rows * columns), 1, noise);
    snprintf(full, sizeof full, "%s.weight.absmax", name);
    add(plan, full, ASSAY_F32, blocks, 0, small);
    snprintf(full, sizeof full, "%s.weight.quant_map", name);
    add(plan, full, ASSAY_F32, 16, 0, (struct part){FILL_TEXT, assay_nf4_table});
    int length = snprintf(text, sizeof text, "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"shape\": [%zu, %zu]}",
                          ASSAY_NF4_BLOCK, rows, columns);
    char *state = assay_arena_alloc(&plan->arena, sizeof text);
    plan->failed |= !state;
    if (state)
        memcpy(state, text, sizeof text);
    snprintf(full, sizeof full, "%s.weight.quant_state.bitsandbytes__nf4", name);
    add(plan, full, ASSAY_U8, (uint64_t)length, 0, (struct part){FILL_TEXT, state});
}

static void add_int4(struct plan *plan, const char *name, size_t rows, size_t columns, size_t group)
{
    char full[160];
    const struct part noise = {FILL_NOISE, NULL}, small = {FILL_SMALL, NULL};
    int64_t *shape = assay_arena_alloc(&plan->arena, 2 * sizeof *shape);
    plan->failed |= !shape;
    if (shape)
        memcpy(shape, (const int64_t[]){(int64_t)rows, (int64_t)columns}, 2 * sizeof *shape);
    size_t groups = (columns + group - 1) / group;
    snprintf(full, sizeof full, "%s.weight_shape", name);
    add(plan, full, ASSAY_I64, 2, 0, (struct part){FILL_TEXT, shape});
    snprintf(full, sizeof full, "%s.weight_scale", name);
    add(plan, full, ASSAY_F32, rows, groups, small);
    snprintf(full, sizeof full, "%s.weight_zero_point", name);
    add(plan, full, ASSAY_I32, (rows + 7) / 8, groups, noise);
    snprintf(full, sizeof full, "%s.weight_packed", name);
    add(plan, full, ASSAY_I32, rows, (columns + 7) / 8, noise);
}

static void add_linear(struct plan *plan, const struct assay_spec *spec, const char *name, size_t rows, size_t columns)
{
    char full[160];
    const struct part noise = {FILL_NOISE, NULL}, small = {FILL_SMALL, NULL};
    snprintf(full, sizeof full, "%s.weight", name);
    if (spec->scheme == ASSAY_SCHEME_NF4) {
        add_nf4(plan, name, rows, columns);
    } else if (spec->scheme == ASSAY_SCHEME_INT4) {
        size_t group = spec->group_size == 0 ? 128 : spec->group_size;
        add_int4(plan, name, rows, columns, ASSAY_MIN(group, columns));
    } else if (spec->scheme == ASSAY_SCHEME_INT8) {
        add(plan, full, ASSAY_I8, rows, columns, noise);
        snprintf(full, sizeof full, "%s.weight_scale", name);
        add(plan, full, ASSAY_F32, rows, 1, small);
    } else {
        add(plan, full, spec->scheme == ASSAY_SCHEME_FP16 ? ASSAY_F16 : ASSAY_BF16, rows, columns, small);
    }
}

static void plan_tensors(struct plan *plan, const struct assay_model_config *c, const struct assay_spec *spec)
{
    const struct part ones = {FILL_ONES, NULL}, small = {FILL_SMALL, NULL};
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    const struct {
        const char *name;
        size_t rows, columns;
    } linears[] = {{"self_attn.q_proj", query, c->hidden},        {"self_attn.k_proj", key, c->hidden},
                   {"self_attn.v_proj", key, c->hidden},          {"self_attn.o_proj", c->hidden, query},
                   {"mlp.gate_proj", c->intermediate, c->hidden}, {"mlp.up_proj", c->intermediate, c->hidden},
                   {"mlp.down_proj", c->hidden, c->intermediate}};
    char name[96];
    add(plan, "model.embed_tokens.weight", ASSAY_BF16, c->vocab, c->hidden, small);
    if (!c->tied_head)
        add(plan, "lm_head.weight", ASSAY_BF16, c->vocab, c->hidden, small);
    add(plan, "model.norm.weight", ASSAY_F32, c->hidden, 0, ones);
    for (size_t layer = 0; layer < c->layers; layer++) {
        snprintf(name, sizeof name, "model.layers.%zu.input_layernorm.weight", layer);
        add(plan, name, ASSAY_F32, c->hidden, 0, ones);
        snprintf(name, sizeof name, "model.layers.%zu.post_attention_layernorm.weight", layer);
        add(plan, name, ASSAY_F32, c->hidden, 0, ones);
        for (size_t i = 0; i < ASSAY_COUNT(linears); i++) {
            snprintf(name, sizeof name, "model.layers.%zu.%s", layer, linears[i].name);
            add_linear(plan, spec, name, linears[i].rows, linears[i].columns);
        }
    }
}

static float noise(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (float)(int32_t)(*state >> 32) * 0x1p-31f;
}

/* `bytes` of a tensor, a multiple of its element but for the last piece of noise. */
static void fill(enum assay_dtype dtype, enum filling filling, uint64_t *state, unsigned char *piece, size_t bytes)
{
    size_t size = assay_dtype_bytes(dtype);
    for (size_t i = 0; i < bytes; i += size) {
        float x = filling == FILL_ONES ? 1.0f : 0.03f * noise(state);
        uint16_t half = dtype == ASSAY_BF16 ? assay_f32_to_bf16(x) : assay_f32_to_f16(x);
        if (filling == FILL_NOISE)
            memcpy(piece + i, state, size);
        else
            memcpy(piece + i, size == 2 ? (const void *)&half : (const void *)&x, size);
    }
}

static enum assay_status write_tensor(struct assay_safetensors_writer *writer, const struct assay_tensor *t,
                                      struct part part, uint64_t *state, unsigned char *piece, struct assay_err *err)
{
    if (part.filling == FILL_TEXT)
        return assay_safetensors_append(writer, part.bytes, t->bytes, err);
    enum assay_status status = ASSAY_OK;
    for (size_t done = 0; done < t->bytes && status == ASSAY_OK; done += PIECE_BYTES) {
        size_t bytes = ASSAY_MIN(t->bytes - done, PIECE_BYTES);
        fill(t->dtype, part.filling, state, piece, bytes);
        status = assay_safetensors_append(writer, piece, bytes, err);
    }
    return status;
}

static enum assay_status write_tensors(const char *dir, const struct plan *plan, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct assay_safetensors_writer *writer;
    assay_auto(assay_free_ptr) unsigned char *piece = malloc(PIECE_BYTES);
    enum assay_status status = assay_path_join(path, dir, "model.safetensors", err);
    if (status == ASSAY_OK && (plan->failed || !piece))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model's tensors");
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, plan->tensors, plan->count, &writer, err);
    if (status != ASSAY_OK)
        return status;
    uint64_t state = 1181783497276652981u;
    for (size_t i = 0; i < plan->count && status == ASSAY_OK; i++)
        status = write_tensor(writer, &plan->tensors[i], plan->parts[i], &state, piece, err);
    if (status == ASSAY_OK)
        return assay_safetensors_finish(writer, err);
    assay_safetensors_abandon(writer);
    return status;
}

static const char *quantization_of(const struct assay_spec *spec, char text[512])
{
    static const char compressed[] =
        ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\","
        "\"config_groups\":{\"group_0\":{\"weights\":{\"num_bits\":%d,\"type\":\"int\",\"symmetric\":%s,"
        "\"strategy\":\"%s\",\"group_size\":%u}}}}";
    bool channel = spec->group_size == ASSAY_GROUP_CHANNEL;
    *text = '\0';
    if (spec->scheme == ASSAY_SCHEME_INT8)
        snprintf(text, 512, compressed, "int-quantized", 8, "true", "channel", 1u);
    if (spec->scheme == ASSAY_SCHEME_INT4)
        snprintf(text, 512, compressed, "pack-quantized", 4, "false", channel ? "channel" : "group",
                 channel            ? 1u
                 : spec->group_size ? spec->group_size
                                    : 128u);
    if (spec->scheme == ASSAY_SCHEME_NF4)
        snprintf(text, 512, "%s",
                 ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,"
                 "\"bnb_4bit_quant_type\":\"nf4\"}");
    return text;
}

static enum assay_status write_config(const char *dir, const struct assay_model_config *c,
                                      const struct assay_spec *spec, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], text[2048], quantization[512];
    int length =
        snprintf(text, sizeof text,
                 "{\"architectures\":[\"%s\"],\"hidden_act\":\"silu\",\"hidden_size\":%zu,\"num_hidden_layers\":%zu,"
                 "\"num_attention_heads\":%zu,\"num_key_value_heads\":%zu,\"head_dim\":%zu,\"intermediate_size\":%zu,"
                 "\"vocab_size\":%zu,\"max_position_embeddings\":%zu,\"rms_norm_eps\":%g,\"rope_theta\":%g,"
                 "\"tie_word_embeddings\":%s,\"assay\":{\"compute\":\"%s\"}%s}",
                 c->architecture, c->hidden, c->layers, c->heads, c->kv_heads, c->head_dim, c->intermediate, c->vocab,
                 c->positions_max, (double)c->norm_eps, c->rope.theta, c->tied_head ? "true" : "false",
                 assay_compute_name(spec->compute), quantization_of(spec, quantization));
    enum assay_status status = assay_path_join(path, dir, "config.json", err);
    return status == ASSAY_OK ? assay_file_write(path, text, (size_t)length, err) : status;
}

enum assay_status bench_model_write(const char *dir, const struct assay_model_config *shape,
                                    const struct assay_spec *spec, struct assay_err *err)
{
    /* Nine modules a layer, at most four tensors each, and three beside the layers. */
    size_t room = shape->layers * 36 + 3;
    assay_auto(assay_free_ptr) struct assay_tensor *tensors = calloc(room, sizeof *tensors);
    assay_auto(assay_free_ptr) struct part *parts = calloc(room, sizeof *parts);
    struct plan plan = {.tensors = tensors, .parts = parts, .room = room};
    if (!tensors || !parts)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model's tensors");
    plan_tensors(&plan, shape, spec);
    enum assay_status status = write_config(dir, shape, spec, err);
    if (status == ASSAY_OK)
        status = write_tensors(dir, &plan, err);
    assay_arena_release(&plan.arena);
    return status;
}
