/* Weights of 4 bits: the layouts of bitsandbytes (nf4) and compressed-tensors (pack-quantized). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/model_impl.h"
#include "common/quant/nf4.h"

#define NAME_MAX_BYTES 320
/* bitsandbytes allows blocks of 32 to 4096. */
#define BLOCK_MAX 4096

struct source {
    const struct assay_checkpoint *checkpoint;
    const char *name; /* of the module */
    size_t n, k;
    struct assay_err *err;
};

/* NAME.PART of that dtype; columns 0 means rank 1. */
static enum assay_status get(const struct source *s, const char *part, enum assay_dtype dtype, size_t rows,
                             size_t columns, const void **ret)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.%s", s->name, part);
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(s->checkpoint, full, rows, columns, &tensor, s->err);
    if (status != ASSAY_OK)
        return status;
    if (tensor->dtype != dtype)
        return assay_err_set(s->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %s, wanted %s",
                             assay_checkpoint_dir(s->checkpoint), full, assay_dtype_name(tensor->dtype),
                             assay_dtype_name(dtype));
    *ret = tensor->data;
    return ASSAY_OK;
}

/* --- nf4 --- */

struct nf4_state {
    size_t block, nested_block;
    double offset;
};

static enum assay_status check_state(const struct source *s, const cJSON *json, const char *what, struct nf4_state *ret)
{
    const char *type = NULL;
    int64_t block = 0, nested = ASSAY_NF4_NESTED_BLOCK;
    double offset = 0;
    enum assay_status status = assay_json_get_string(json, what, "quant_type", true, &type, s->err);
    if (status == ASSAY_OK && strcmp(type, "nf4") != 0)
        return assay_err_set(s->err, ASSAY_UNIMPLEMENTED, "%s: quant_type '%.40s' is not implemented; nf4 is", what,
                             type);
    if (status == ASSAY_OK)
        status = assay_json_get_int(json, what, "blocksize", true, 1, BLOCK_MAX, &block, s->err);
    if (status == ASSAY_OK)
        status = assay_json_get_int(json, what, "nested_blocksize", false, 1, BLOCK_MAX, &nested, s->err);
    if (status == ASSAY_OK)
        status = assay_json_get_double(json, what, "nested_offset", false, &offset, s->err);
    if (status != ASSAY_OK)
        return status;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(json, "shape");
    const cJSON *rows = cJSON_IsArray(shape) ? cJSON_GetArrayItem(shape, 0) : NULL, *columns = rows ? rows->next : NULL;
    if (!cJSON_IsNumber(rows) || !cJSON_IsNumber(columns) || columns->next || rows->valuedouble != (double)s->n ||
        columns->valuedouble != (double)s->k)
        return assay_err_set(s->err, ASSAY_INVALID_ARGUMENT, "%s: the shape is not [%zu, %zu]", what, s->n, s->k);
    *ret = (struct nf4_state){(size_t)block, (size_t)nested, offset};
    return ASSAY_OK;
}

static enum assay_status read_state(const struct source *s, struct nf4_state *ret)
{
    char what[NAME_MAX_BYTES];
    snprintf(what, sizeof what, "%s.weight.quant_state.bitsandbytes__nf4", s->name);
    const struct assay_tensor *tensor = assay_checkpoint_find(s->checkpoint, what);
    if (!tensor)
        return assay_err_set(s->err, ASSAY_NOT_FOUND, "%s: the tensor %s is missing",
                             assay_checkpoint_dir(s->checkpoint), what);
    if (tensor->dtype != ASSAY_U8)
        return assay_err_set(s->err, ASSAY_INVALID_ARGUMENT, "%s: %s is %s, wanted U8",
                             assay_checkpoint_dir(s->checkpoint), what, assay_dtype_name(tensor->dtype));
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_json_parse((const char *)tensor->data, tensor->bytes, what, &json, s->err);
    if (status == ASSAY_OK)
        status = check_state(s, json, what, ret);
    if (status != ASSAY_OK)
        assay_err_prefix(s->err, "%s", assay_checkpoint_dir(s->checkpoint));
    return status;
}

/* Scales that were quantized themselves. */
static enum assay_status load_nested(const struct source *s, const struct nf4_state *state, const uint8_t *codes,
                                     size_t blocks, float **ret)
{
    assay_auto(assay_free_ptr) float *absmax2 = NULL, *map = NULL;
    size_t count = (blocks + state->nested_block - 1) / state->nested_block;
    enum assay_status status =
        assay_tensor_floats(s->checkpoint, s->name, "weight.nested_absmax", count, 0, &absmax2, s->err);
    if (status == ASSAY_OK)
        status = assay_tensor_floats(s->checkpoint, s->name, "weight.nested_quant_map", 256, 0, &map, s->err);
    if (status != ASSAY_OK)
        return status;
    float *absmax = malloc(blocks * sizeof *absmax);
    if (!absmax)
        return assay_err_set(s->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu scales of %s", blocks, s->name);
    assay_nested_decode(codes, absmax2, blocks, state->nested_block, map, (float)state->offset, absmax);
    *ret = absmax;
    return ASSAY_OK;
}

static enum assay_status load_absmax(const struct source *s, const struct nf4_state *state, size_t blocks, float **ret)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.weight.absmax", s->name);
    const struct assay_tensor *tensor = assay_checkpoint_find(s->checkpoint, full);
    if (!tensor || tensor->dtype != ASSAY_U8)
        return assay_tensor_floats(s->checkpoint, s->name, "weight.absmax", blocks, 0, ret, s->err);
    const void *codes;
    enum assay_status status = get(s, "weight.absmax", ASSAY_U8, blocks, 0, &codes);
    return status == ASSAY_OK ? load_nested(s, state, codes, blocks, ret) : status;
}

static enum assay_status check_map(const struct source *s)
{
    assay_auto(assay_free_ptr) float *map = NULL;
    enum assay_status status = assay_tensor_floats(s->checkpoint, s->name, "weight.quant_map", 16, 0, &map, s->err);
    if (status == ASSAY_OK && memcmp(map, assay_nf4_table, 16 * sizeof *map) != 0)
        return assay_err_set(s->err, ASSAY_UNIMPLEMENTED,
                             "%s: %s.weight.quant_map is not the table of nf4; another one is not implemented",
                             assay_checkpoint_dir(s->checkpoint), s->name);
    return status;
}

static struct assay_codes nf4_shape(const struct source *s, const struct nf4_state *state)
{
    return (struct assay_codes){.high_first = true,
                                .row_codes = s->k,
                                .group = state->block,
                                .row_span = s->k,
                                .groups = (s->n * s->k + state->block - 1) / state->block,
                                .table = assay_nf4_table};
}

enum assay_status assay_panels_load_nf4(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                        const char *name, size_t n, size_t k, struct assay_panels *ret,
                                        struct assay_err *err)
{
    struct source s = {checkpoint, name, n, k, err};
    struct nf4_state state = {.block = 1, .nested_block = 1};
    const void *codes;
    assay_auto(assay_free_ptr) float *absmax = NULL;
    enum assay_status status = get(&s, "weight", ASSAY_U8, n * k / 2 + n * k % 2, 1, &codes);
    if (status == ASSAY_OK)
        status = read_state(&s, &state);
    if (status == ASSAY_OK)
        status = check_map(&s);
    size_t blocks = status == ASSAY_OK ? (n * k + state.block - 1) / state.block : 0;
    if (status == ASSAY_OK)
        status = load_absmax(&s, &state, blocks, &absmax);
    if (status != ASSAY_OK)
        return status;
    struct assay_codes src = nf4_shape(&s, &state);
    src.codes = codes;
    src.scales = absmax;
    return assay_panels_pack_codes(pool, &src, n, k, ret, err);
}

enum assay_status assay_panels_measure_nf4(const struct assay_checkpoint *checkpoint, const char *name, size_t n,
                                           size_t k, size_t *ret_bytes, struct assay_err *err)
{
    const struct source s = {checkpoint, name, n, k, err};
    struct nf4_state state;
    enum assay_status status = read_state(&s, &state);
    if (status != ASSAY_OK)
        return status;
    const struct assay_codes shape = nf4_shape(&s, &state);
    *ret_bytes = assay_panels_codes_bytes(&shape, n, k);
    return ASSAY_OK;
}

/* --- int4 --- */

/* NAME.weight_shape, I64 or I32, must say what the config says. */
static enum assay_status check_shape(const struct source *s)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.weight_shape", s->name);
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(s->checkpoint, full, 2, 0, &tensor, s->err);
    if (status != ASSAY_OK)
        return status;
    int64_t wide[2] = {0, 0};
    int32_t narrow[2];
    if (tensor->dtype == ASSAY_I64) {
        memcpy(wide, tensor->data, sizeof wide);
    } else if (tensor->dtype == ASSAY_I32) {
        memcpy(narrow, tensor->data, sizeof narrow);
        wide[0] = narrow[0];
        wide[1] = narrow[1];
    }
    if (wide[0] != (int64_t)s->n || wide[1] != (int64_t)s->k)
        return assay_err_set(s->err, ASSAY_INVALID_ARGUMENT, "%s: %s (%s) is [%lld, %lld], wanted [%zu, %zu] in I64",
                             assay_checkpoint_dir(s->checkpoint), full, assay_dtype_name(tensor->dtype),
                             (long long)wide[0], (long long)wide[1], s->n, s->k);
    return ASSAY_OK;
}

/* One zero point a byte, in the order of the scales, + 8 as the codes are; *ret is to be freed. */
static enum assay_status load_zeros(const struct source *s, size_t groups, bool symmetric, uint8_t **ret)
{
    const void *packed = NULL;
    if (!symmetric) {
        enum assay_status status = get(s, "weight_zero_point", ASSAY_I32, s->n / 8 + (s->n % 8 != 0), groups, &packed);
        if (status != ASSAY_OK)
            return status;
    }
    uint8_t *zeros = malloc(s->n * groups);
    if (!zeros)
        return assay_err_set(s->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the zero points of %s", s->name);
    for (size_t r = 0; r < s->n; r++)
        for (size_t g = 0; g < groups; g++) {
            uint32_t word = 0x88888888u;
            if (packed)
                memcpy(&word, (const unsigned char *)packed + (r / 8 * groups + g) * sizeof word, sizeof word);
            zeros[r * groups + g] = (uint8_t)(word >> 4 * (r % 8) & 15);
        }
    *ret = zeros;
    return ASSAY_OK;
}

static struct assay_codes int4_shape(size_t n, size_t k, const struct assay_quantization *quantization)
{
    size_t group = quantization->group ? quantization->group : k, groups = (k + group - 1) / group;
    return (struct assay_codes){
        .row_codes = (k / 8 + (k % 8 != 0)) * 8, .group = group, .row_span = groups * group, .groups = n * groups};
}

size_t assay_panels_int4_bytes(size_t n, size_t k, const struct assay_quantization *quantization)
{
    const struct assay_codes shape = int4_shape(n, k, quantization);
    return assay_panels_codes_bytes(&shape, n, k);
}

enum assay_status assay_panels_load_int4(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                         const char *name, size_t n, size_t k,
                                         const struct assay_quantization *quantization, struct assay_panels *ret,
                                         struct assay_err *err)
{
    struct source s = {checkpoint, name, n, k, err};
    size_t group = quantization->group ? quantization->group : k, groups = (k + group - 1) / group;
    size_t words = k / 8 + (k % 8 != 0);
    const void *codes;
    assay_auto(assay_free_ptr) float *scales = NULL;
    assay_auto(assay_free_ptr) uint8_t *zeros = NULL;
    enum assay_status status = get(&s, "weight_packed", ASSAY_I32, n, words, &codes);
    if (status == ASSAY_OK)
        status = check_shape(&s);
    if (status == ASSAY_OK)
        status = assay_tensor_floats(checkpoint, name, "weight_scale", n, groups, &scales, err);
    if (status == ASSAY_OK)
        status = load_zeros(&s, groups, quantization->symmetric, &zeros);
    if (status != ASSAY_OK)
        return status;
    struct assay_codes src = int4_shape(n, k, quantization);
    src.codes = codes;
    src.scales = scales;
    src.zeros = zeros;
    return assay_panels_pack_codes(pool, &src, n, k, ret, err);
}
