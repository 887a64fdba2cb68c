#include "cli/bench_quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/artifact/job.h"
#include "common/artifact/kept_digests.h"
#include "common/base/fs.h"
#include "common/formats/safetensors.h"
#include "common/kernels/codec/codec.h"
#include "common/quant/nf4.h"

#define ROWS ((size_t)4864)
#define COLUMNS ((size_t)896)
#define RUNS 5       /* of an encoder */
#define WHOLE_RUNS 3 /* of a whole checkpoint */
#define NAME_BYTES ((size_t)96)
#define LINEARS 7

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    const double *left = a, *right = b;
    return (*left > *right) - (*left < *right);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return values[n / 2];
}

static void fill(uint64_t *state, enum assay_dtype dtype, unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        float x = (float)(int32_t)(*state >> 32) * 0x1p-31f * 0.05f;
        uint16_t half = assay_f32_to_bf16(x);
        if (dtype == ASSAY_F32)
            memcpy(bytes + i * sizeof x, &x, sizeof x);
        else
            memcpy(bytes + i * sizeof half, &half, sizeof half);
    }
}

/* --- the encoders --- */

typedef enum assay_status (*encode_fn)(const struct assay_codec_ops *ops, const float *weights, void *codes,
                                       float *scales, struct assay_err *err);

static enum assay_status encode_int8(const struct assay_codec_ops *ops, const float *weights, void *codes,
                                     float *scales, struct assay_err *err)
{
    return ops->int8_encode(weights, ROWS, COLUMNS, codes, scales, err);
}

static enum assay_status encode_nf4(const struct assay_codec_ops *ops, const float *weights, void *codes, float *scales,
                                    struct assay_err *err)
{
    float map[256], offset;
    size_t count = ROWS * COLUMNS, blocks = assay_nf4_blocks(count, ASSAY_NF4_BLOCK);
    uint8_t *bytes = codes;
    enum assay_status status = ops->nf4_encode(weights, count, ASSAY_NF4_BLOCK, bytes, scales, err);
    assay_nested_map(map);
    if (status == ASSAY_OK)
        assay_nested_encode(scales, blocks, map, bytes + assay_nf4_bytes(count), scales + blocks, &offset);
    return status;
}

static enum assay_status encode_int4(const struct assay_codec_ops *ops, const float *weights, void *codes,
                                     float *scales, struct assay_err *err)
{
    const struct assay_int4_shape shape = {ROWS, COLUMNS, 128};
    uint32_t *words = codes;
    return ops->int4_encode(weights, &shape, words, scales, words + ROWS * assay_int4_words(&shape), err);
}

static const struct {
    const char *name;
    encode_fn encode;
} schemes[] = {{"int8", encode_int8}, {"nf4", encode_nf4}, {"int4", encode_int4}};

static enum assay_status time_encoders(cJSON *result, struct assay_err *err)
{
    uint64_t state = 88172645463325252u;
    const struct assay_kernels *kernels;
    assay_auto(assay_free_ptr) float *weights = malloc(ROWS * COLUMNS * sizeof *weights);
    assay_auto(assay_free_ptr) float *scales = calloc(ROWS * COLUMNS / 16, sizeof *scales);
    assay_auto(assay_free_ptr) float *codes = calloc(ROWS * COLUMNS / 2, sizeof *codes);
    if (!weights || !scales || !codes)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu numbers", ROWS * COLUMNS);
    enum assay_status status = assay_kernels_select(&kernels, err);
    fill(&state, ASSAY_F32, (unsigned char *)weights, ROWS * COLUMNS);
    for (size_t s = 0; s < ASSAY_COUNT(schemes) && status == ASSAY_OK; s++) {
        double times[RUNS];
        char key[64];
        for (size_t i = 0; i < RUNS && status == ASSAY_OK; i++) {
            double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
            status = schemes[s].encode(assay_codec_ops(kernels), weights, codes, scales, err);
            times[i] = seconds(CLOCK_THREAD_CPUTIME_ID) - begin;
        }
        snprintf(key, sizeof key, "%s_mb_per_core_second", schemes[s].name);
        cJSON_AddNumberToObject(result, key, (double)(ROWS * COLUMNS * sizeof(float)) / median(times, RUNS) * 1e-6);
    }
    return status;
}

/* --- a checkpoint --- */

struct plan {
    struct assay_tensor *tensors;
    char (*names)[NAME_BYTES];
    size_t count;
};

static void add(struct plan *plan, enum assay_dtype dtype, const char *name, uint64_t rows, uint64_t cols)
{
    struct assay_tensor *t = &plan->tensors[plan->count];
    snprintf(plan->names[plan->count], NAME_BYTES, "%s", name);
    *t = (struct assay_tensor){.name = plan->names[plan->count], .dtype = dtype, .rank = 2, .shape = {rows, cols}};
    t->bytes = (size_t)assay_tensor_elements(t) * assay_dtype_bytes(dtype);
    plan->count++;
}

static void plan_tensors(struct plan *plan, const struct assay_model_config *c, enum assay_dtype dtype)
{
    size_t query = c->heads * c->head_dim, key = c->kv_heads * c->head_dim;
    const struct {
        const char *name;
        size_t rows, cols;
    } linears[LINEARS] = {{"self_attn.q_proj", query, c->hidden},        {"self_attn.k_proj", key, c->hidden},
                          {"self_attn.v_proj", key, c->hidden},          {"self_attn.o_proj", c->hidden, query},
                          {"mlp.gate_proj", c->intermediate, c->hidden}, {"mlp.up_proj", c->intermediate, c->hidden},
                          {"mlp.down_proj", c->hidden, c->intermediate}};
    char name[NAME_BYTES];
    add(plan, dtype, "model.embed_tokens.weight", c->vocab, c->hidden);
    if (!c->tied_head)
        add(plan, dtype, "lm_head.weight", c->vocab, c->hidden);
    for (size_t layer = 0; layer < c->layers; layer++)
        for (size_t i = 0; i < LINEARS; i++) {
            snprintf(name, sizeof name, "model.layers.%zu.%s.weight", layer, linears[i].name);
            add(plan, dtype, name, linears[i].rows, linears[i].cols);
        }
}

static enum assay_status write_tensors(struct assay_safetensors_writer *writer, const struct plan *plan,
                                       struct assay_err *err)
{
    enum { PIECE = 1 << 18 };
    uint64_t state = 1181783497276652981u;
    assay_auto(assay_free_ptr) unsigned char *piece = malloc(PIECE * sizeof(float));
    enum assay_status status = piece ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    for (size_t i = 0; i < plan->count && status == ASSAY_OK; i++) {
        const struct assay_tensor *t = &plan->tensors[i];
        size_t left = (size_t)assay_tensor_elements(t), size = assay_dtype_bytes(t->dtype);
        for (size_t n; left && status == ASSAY_OK; left -= n) {
            n = ASSAY_MIN(left, PIECE);
            fill(&state, t->dtype, piece, n);
            status = assay_safetensors_append(writer, piece, n * size, err);
        }
    }
    return status;
}

static enum assay_status write_checkpoint(const char *dir, const struct assay_model_config *shape,
                                          enum assay_dtype dtype, struct assay_err *err)
{
    static const char config[] = "{\"architectures\": [\"LlamaForCausalLM\"], \"tie_word_embeddings\": true}";
    char path[ASSAY_PATH_MAX];
    size_t room = shape->layers * LINEARS + 2;
    assay_auto(assay_free_ptr) struct assay_tensor *tensors = calloc(room, sizeof *tensors);
    assay_auto(assay_free_ptr) char *names = calloc(room, NAME_BYTES);
    struct plan plan = {.tensors = tensors, .names = (char(*)[NAME_BYTES])names};
    struct assay_safetensors_writer *writer = NULL;
    if (!tensors || !names)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a model's tensors");
    plan_tensors(&plan, shape, dtype);
    enum assay_status status = assay_mkdirs(dir, 0700, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, "config.json", err);
    if (status == ASSAY_OK)
        status = assay_file_write(path, config, strlen(config), err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, "model.safetensors", err);
    if (status == ASSAY_OK)
        status = assay_safetensors_create(path, plan.tensors, plan.count, &writer, err);
    if (status != ASSAY_OK)
        return status;
    status = write_tensors(writer, &plan, err);
    if (status == ASSAY_OK)
        return assay_safetensors_finish(writer, err);
    assay_safetensors_abandon(writer);
    return status;
}

/* --- from file to file --- */

struct timed {
    double cpu_seconds, wall_seconds;
    uint64_t source_bytes;
};

static enum assay_status time_quantize(struct assay_pool *pool, const char *model, const char *dir, const char *scheme,
                                       const char *digests_dir, struct timed *ret, struct assay_err *err)
{
    char artifact[ASSAY_PATH_MAX];
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    struct assay_quantize_job job = {
        .artifacts_dir = dir, .wanted_dir = artifact, .model_dir = model, .pool = pool, .digests_dir = digests_dir};
    enum assay_status status = assay_path_join(artifact, dir, scheme, err);
    if (status == ASSAY_OK)
        status = assay_spec_parse(scheme, &job.spec, err);
    if (status != ASSAY_OK)
        return status;
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    status = assay_quantize_to(&job, &manifest, err);
    *ret =
        (struct timed){seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu, seconds(CLOCK_MONOTONIC) - wall, manifest.source_bytes};
    assay_manifest_release(&manifest);
    return status == ASSAY_OK ? assay_remove_tree(artifact, err) : status;
}

/* The median of the runs by CPU time. The checkpoint has just been written, so that its pages are in memory.
 * digests_dir NULL: every byte is digested; else as after the first variant of a model. */
static enum assay_status time_scheme(struct assay_pool *pool, const char *model, const char *dir,
                                     const char *digests_dir, const char *source, const char *scheme, cJSON *result,
                                     struct assay_err *err)
{
    double cpu[WHOLE_RUNS], wall[WHOLE_RUNS];
    struct timed timed = {0};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < WHOLE_RUNS && status == ASSAY_OK; i++) {
        status = time_quantize(pool, model, dir, scheme, digests_dir, &timed, err);
        cpu[i] = timed.cpu_seconds;
        wall[i] = timed.wall_seconds;
    }
    if (status != ASSAY_OK)
        return status;
    char key[80];
    const char *how = digests_dir ? "again" : "file_to_file";
    snprintf(key, sizeof key, "%s_%s_%s_mb_per_core_second", source, scheme, how);
    cJSON_AddNumberToObject(result, key, (double)timed.source_bytes / median(cpu, WHOLE_RUNS) * 1e-6);
    snprintf(key, sizeof key, "%s_%s_%s_mb_per_second", source, scheme, how);
    cJSON_AddNumberToObject(result, key, (double)timed.source_bytes / median(wall, WHOLE_RUNS) * 1e-6);
    return ASSAY_OK;
}

enum assay_status bench_quantize(struct assay_pool *pool, const struct assay_model_config *shape, const char *dir,
                                 cJSON *result, struct assay_err *err)
{
    static const enum assay_dtype sources[] = {ASSAY_F32, ASSAY_BF16};
    static const char *const names[] = {"f32", "bf16"};
    char model[ASSAY_PATH_MAX], kept[ASSAY_PATH_MAX];
    struct timed first;
    enum assay_status status = time_encoders(result, err);
    if (status == ASSAY_OK)
        status = assay_path_join(model, dir, "model", err);
    if (status == ASSAY_OK)
        status = assay_path_join(kept, dir, ASSAY_KEPT_DIGESTS_DIR, err);
    for (size_t i = 0; i < ASSAY_COUNT(sources) && status == ASSAY_OK; i++) {
        status = write_checkpoint(model, shape, sources[i], err);
        for (size_t s = 0; s < ASSAY_COUNT(schemes) && status == ASSAY_OK; s++)
            status = time_scheme(pool, model, dir, NULL, names[i], schemes[s].name, result, err);
        if (status == ASSAY_OK)
            status = time_quantize(pool, model, dir, schemes[0].name, kept, &first, err);
        for (size_t s = 0; s < ASSAY_COUNT(schemes) && status == ASSAY_OK; s++)
            status = time_scheme(pool, model, dir, kept, names[i], schemes[s].name, result, err);
    }
    return status;
}
