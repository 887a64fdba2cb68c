/* nf4 as bitsandbytes serializes it. */
#include <math.h>
#include <string.h>

#include "common/artifact/stored_layouts.h"
#include "common/base/limits.h"
#include "common/quant/nf4.h"

struct state {
    int64_t block, nested_block; /* nested_block is 0 for plain scales */
    uint64_t shape[2];
    double offset;
};

static enum assay_status misfit(const struct assay_stored *stored, const char *what, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s: %s", stored->name, what);
}

static enum assay_status read_fields(const struct assay_stored *stored, const cJSON *root, struct state *state,
                                     struct assay_err *err)
{
    const char *what = stored->name, *type = "";
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(root, "shape");
    enum assay_status status = assay_json_get_string(root, what, "quant_type", true, &type, err);
    if (status == ASSAY_OK && strcmp(type, "nf4") != 0)
        status = assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: quant_type '%.60s' cannot be read; nf4 can", what, type);
    if (status == ASSAY_OK)
        status = assay_json_get_int(root, what, "blocksize", true, 2, 4096, &state->block, err);
    if (status == ASSAY_OK)
        status = assay_json_get_int(root, what, "nested_blocksize", false, 1, 4096, &state->nested_block, err);
    if (status == ASSAY_OK)
        status = assay_json_get_double(root, what, "nested_offset", state->nested_block > 0, &state->offset, err);
    if (status != ASSAY_OK)
        return status;
    if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) != 2)
        return misfit(stored, "its state has no shape of two sizes", err);
    for (int i = 0; i < 2; i++) {
        double size = cJSON_GetNumberValue(cJSON_GetArrayItem(shape, i));
        if (!(size >= 1 && size <= ASSAY_MODEL_VOCAB_MAX && size == floor(size)))
            return misfit(stored, "its state has a shape that is none", err);
        state->shape[i] = (uint64_t)size;
    }
    return state->block % 2 ? misfit(stored, "its blocks have an odd size", err) : ASSAY_OK;
}

static enum assay_status read_state(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                    struct state *ret, struct assay_err *err)
{
    const struct assay_tensor *tensor = assay_stored_part(checkpoint, stored, NF4_STATE);
    if (!tensor || tensor->dtype != ASSAY_U8)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "tensor %s has no quant_state of nf4; only that format of bitsandbytes can be read",
                             stored->name);
    assay_auto(assay_json_delete) cJSON *root = NULL;
    struct state state = {0};
    enum assay_status status = assay_json_parse(tensor->data, tensor->bytes, stored->name, &root, err);
    if (status == ASSAY_OK)
        status = read_fields(stored, root, &state, err);
    if (status == ASSAY_OK)
        *ret = state;
    return status;
}

static bool has_f32(const struct assay_tensor *tensor, uint64_t elements)
{
    return tensor && tensor->dtype == ASSAY_F32 && assay_tensor_elements(tensor) == elements;
}

static bool is_our_table(const struct assay_tensor *table)
{
    float values[16];
    if (!has_f32(table, ASSAY_COUNT(values)))
        return false;
    memcpy(values, table->data, sizeof values);
    for (size_t i = 0; i < ASSAY_COUNT(values); i++)
        if (!(fabsf(values[i] - assay_nf4_table[i]) <= 1e-6f))
            return false;
    return true;
}

enum assay_status assay_nf4_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                     struct assay_err *err)
{
    struct state state = {0};
    enum assay_status status = read_state(checkpoint, stored, &state, err);
    if (status != ASSAY_OK)
        return status;
    size_t count = (size_t)(state.shape[0] * state.shape[1]);
    size_t blocks = assay_nf4_blocks(count, (size_t)state.block);
    const struct assay_tensor *absmax = assay_stored_part(checkpoint, stored, ".absmax");
    if (stored->source->dtype == ASSAY_BOOL)
        return misfit(stored, "it is BOOL, wanted U8", err);
    if (stored->source->bytes != assay_nf4_bytes(count))
        return misfit(stored, "its bytes are not those of its shape", err);
    if (!is_our_table(assay_stored_part(checkpoint, stored, ".quant_map")))
        return misfit(stored, "its quant_map is not that of nf4", err);
    if (state.nested_block == 0 && !has_f32(absmax, blocks))
        return misfit(stored, "its absmax is not one F32 a block", err);
    if (state.nested_block > 0) {
        size_t nested = assay_nf4_blocks(blocks, (size_t)state.nested_block);
        if (!absmax || absmax->dtype != ASSAY_U8 || absmax->bytes != blocks)
            return misfit(stored, "its absmax is not one U8 a block", err);
        if (!has_f32(assay_stored_part(checkpoint, stored, ".nested_absmax"), nested) ||
            !has_f32(assay_stored_part(checkpoint, stored, ".nested_quant_map"), 256))
            return misfit(stored, "its nested_absmax or nested_quant_map has another size", err);
    }
    stored->rank = 2;
    memcpy(stored->shape, state.shape, sizeof state.shape);
    stored->dtype = ASSAY_F32;
    stored->layout = ASSAY_STORED_NF4;
    return ASSAY_OK;
}

enum assay_status assay_nf4_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                 struct assay_arena *arena, float *values, struct assay_err *err)
{
    struct state state = {0};
    enum assay_status status = read_state(checkpoint, stored, &state, err);
    if (status != ASSAY_OK)
        return status;
    size_t count = (size_t)(stored->shape[0] * stored->shape[1]);
    size_t blocks = assay_nf4_blocks(count, (size_t)state.block);
    const struct assay_tensor *plain = assay_stored_part(checkpoint, stored, ".absmax");
    const bool is_nested = state.nested_block > 0;
    float *absmax = is_nested ? assay_arena_alloc(arena, blocks * sizeof *absmax) : assay_stored_copy_f32(arena, plain);
    if (is_nested && absmax) {
        const float *map = assay_stored_copy_f32(arena, assay_stored_part(checkpoint, stored, ".nested_quant_map"));
        const float *absmax2 = assay_stored_copy_f32(arena, assay_stored_part(checkpoint, stored, ".nested_absmax"));
        if (map && absmax2)
            assay_nested_decode(plain->data, absmax2, blocks, (size_t)state.nested_block, map, (float)state.offset,
                                absmax);
        else
            absmax = NULL;
    }
    if (!absmax)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for tensor %s", stored->name);
    assay_nf4_decode(stored->source->data, absmax, count, (size_t)state.block, values);
    return ASSAY_OK;
}
