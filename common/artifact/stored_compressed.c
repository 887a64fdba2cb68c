/* compressed-tensors: int-quantized 8 bits and pack-quantized 4 bits. */
#include <stdio.h>
#include <string.h>

#include "common/artifact/stored_layouts.h"
#include "common/base/limits.h"
#include "common/quant/int4.h"

const struct assay_tensor *assay_stored_part(const struct assay_checkpoint *checkpoint,
                                             const struct assay_stored *stored, const char *suffix)
{
    char name[512];
    int len = snprintf(name, sizeof name, "%s%s", stored->name, suffix);
    return len > 0 && (size_t)len < sizeof name ? assay_checkpoint_find(checkpoint, name) : NULL;
}

float *assay_stored_copy_f32(struct assay_arena *arena, const struct assay_tensor *tensor)
{
    size_t elements = (size_t)assay_tensor_elements(tensor);
    float *values = assay_arena_alloc(arena, elements * sizeof *values + 1);
    if (values && !assay_dtype_to_f32(tensor->dtype, tensor->data, elements, values))
        ASSAY_BUG("the dtype of scales was checked");
    return values;
}

void *assay_stored_copy(struct assay_arena *arena, const struct assay_tensor *tensor)
{
    void *bytes = assay_arena_alloc(arena, tensor->bytes + 1);
    if (bytes)
        memcpy(bytes, tensor->data, tensor->bytes);
    return bytes;
}

bool assay_stored_is_sane(uint64_t rows, uint64_t cols)
{
    return rows > 0 && cols > 0 && rows <= ASSAY_MODEL_VOCAB_MAX && cols <= ASSAY_MODEL_VOCAB_MAX;
}

static enum assay_status out_of_memory(const struct assay_stored *stored, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for tensor %s", stored->name);
}

static enum assay_status misfit(const struct assay_stored *stored, const char *what, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s, %llu x %llu: %s", stored->name,
                         (unsigned long long)stored->shape[0], (unsigned long long)stored->shape[1], what);
}

/* The weights of the first group of the config; every group of a model of ours has the same. */
static const cJSON *weights_config(const struct assay_checkpoint *checkpoint)
{
    const cJSON *quantization =
        cJSON_GetObjectItemCaseSensitive(assay_checkpoint_config(checkpoint), "quantization_config");
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(quantization, "config_groups");
    return cJSON_GetObjectItemCaseSensitive(groups ? groups->child : NULL, "weights");
}

/* Scales of a matrix: [1] for the tensor, or [rows, groups]; groups of `group` columns. */
struct scales {
    const struct assay_tensor *tensor;
    size_t groups, group;
    bool is_one;
};

static enum assay_status find_scales(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                     struct scales *ret, struct assay_err *err)
{
    const struct assay_tensor *tensor = assay_stored_part(checkpoint, stored, "_scale");
    uint64_t rows = stored->shape[0], cols = stored->shape[1];
    if (assay_stored_part(checkpoint, stored, "_g_idx"))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "tensor %s: columns in another order (weight_g_idx)",
                             stored->name);
    if (!tensor || (tensor->dtype != ASSAY_F32 && tensor->dtype != ASSAY_F16 && tensor->dtype != ASSAY_BF16))
        return misfit(stored, "there is no weight_scale of floats", err);
    uint64_t elements = assay_tensor_elements(tensor);
    *ret = (struct scales){.tensor = tensor, .groups = 1, .group = (size_t)cols, .is_one = elements == 1};
    if (ret->is_one)
        return ASSAY_OK;
    if (tensor->rank < 1 || tensor->rank > 2 || tensor->shape[0] != rows || elements % rows != 0)
        return misfit(stored, "weight_scale has another number of rows", err);
    ret->groups = (size_t)(elements / rows);
    int64_t group = 0;
    enum assay_status status = assay_json_get_int(weights_config(checkpoint), "quantization_config", "group_size",
                                                  false, -1, ASSAY_MODEL_VOCAB_MAX, &group, err);
    if (status != ASSAY_OK)
        return status;
    if (assay_stored_by_group(weights_config(checkpoint)))
        ret->group = (size_t)group;
    else if (ret->groups > 1)
        ret->group = (size_t)cols / ret->groups;
    if (ret->group == 0 || (cols + ret->group - 1) / ret->group != ret->groups)
        return misfit(stored, "weight_scale has another number of groups than the row", err);
    return ASSAY_OK;
}

static enum assay_status want_bits(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                   int64_t wanted, struct assay_err *err)
{
    int64_t bits = 0;
    enum assay_status status =
        assay_json_get_int(weights_config(checkpoint), "quantization_config", "num_bits", true, 1, 64, &bits, err);
    if (status == ASSAY_OK && bits != wanted)
        status =
            assay_err_set(err, ASSAY_UNIMPLEMENTED, "tensor %s: weights of %lld bits in this format cannot be read",
                          stored->name, (long long)bits);
    return status;
}

/* Weights that are not symmetric have zero points. */
static enum assay_status want_zeros(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                    const struct assay_tensor *zeros, struct assay_err *err)
{
    bool symmetric = true;
    enum assay_status status =
        assay_json_get_bool(weights_config(checkpoint), "quantization_config", "symmetric", false, &symmetric, err);
    if (status == ASSAY_OK && !symmetric && !zeros)
        status = misfit(stored, "there is no weight_zero_point, and it is not symmetric", err);
    return status;
}

static void accept(struct assay_stored *stored, int layout)
{
    stored->dtype = ASSAY_F32;
    stored->layout = layout;
}

enum assay_status assay_int8_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                      struct assay_err *err)
{
    struct scales scales;
    if (stored->rank != 2 || !assay_stored_is_sane(stored->shape[0], stored->shape[1]))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s of I8 is no matrix", stored->name);
    enum assay_status status = want_bits(checkpoint, stored, 8, err);
    if (status == ASSAY_OK)
        status = find_scales(checkpoint, stored, &scales, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_tensor *zeros = assay_stored_part(checkpoint, stored, "_zero_point");
    status = want_zeros(checkpoint, stored, zeros, err);
    if (status != ASSAY_OK)
        return status;
    if (zeros && (zeros->dtype != ASSAY_I8 || zeros->bytes != assay_tensor_elements(scales.tensor)))
        return misfit(stored, "weight_zero_point is not I8 beside weight_scale", err);
    accept(stored, ASSAY_STORED_INT8);
    return ASSAY_OK;
}

enum assay_status assay_int8_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                  struct assay_arena *arena, float *values, struct assay_err *err)
{
    struct scales scales;
    enum assay_status status = find_scales(checkpoint, stored, &scales, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_tensor *zeros = assay_stored_part(checkpoint, stored, "_zero_point");
    const int8_t *codes = stored->source->data, *zero = zeros ? zeros->data : NULL;
    const float *scale = assay_stored_copy_f32(arena, scales.tensor);
    size_t rows = (size_t)stored->shape[0], cols = (size_t)stored->shape[1];
    if (!scale)
        return out_of_memory(stored, err);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            size_t s = scales.is_one ? 0 : r * scales.groups + c / scales.group;
            values[r * cols + c] = (float)(codes[r * cols + c] - (zero ? zero[s] : 0)) * scale[s];
        }
    }
    return ASSAY_OK;
}

/* [rows, cols] of weight_shape, I64 or I32. */
static bool read_shape(const struct assay_tensor *tensor, uint64_t shape[2])
{
    if (!tensor || assay_tensor_elements(tensor) != 2)
        return false;
    int64_t wide[2];
    int32_t narrow[2];
    if (tensor->dtype == ASSAY_I64) {
        memcpy(wide, tensor->data, sizeof wide);
    } else if (tensor->dtype == ASSAY_I32) {
        memcpy(narrow, tensor->data, sizeof narrow);
        wide[0] = narrow[0];
        wide[1] = narrow[1];
    } else {
        return false;
    }
    shape[0] = (uint64_t)wide[0];
    shape[1] = (uint64_t)wide[1];
    return wide[0] > 0 && wide[1] > 0 && assay_stored_is_sane(shape[0], shape[1]);
}

static struct assay_int4_shape int4_shape(const struct assay_stored *stored, const struct scales *scales)
{
    return (struct assay_int4_shape){(size_t)stored->shape[0], (size_t)stored->shape[1], scales->group};
}

enum assay_status assay_int4_describe(const struct assay_checkpoint *checkpoint, struct assay_stored *stored,
                                      struct assay_err *err)
{
    struct scales scales;
    stored->rank = 2;
    if (!read_shape(assay_stored_part(checkpoint, stored, "_shape"), stored->shape))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s_packed has no weight_shape of two sizes",
                             stored->name);
    enum assay_status status = want_bits(checkpoint, stored, 4, err);
    if (status == ASSAY_OK)
        status = find_scales(checkpoint, stored, &scales, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_int4_shape shape = int4_shape(stored, &scales);
    const struct assay_tensor *codes = stored->source, *zeros = assay_stored_part(checkpoint, stored, "_zero_point");
    status = want_zeros(checkpoint, stored, zeros, err);
    if (status != ASSAY_OK)
        return status;
    if (scales.is_one && shape.rows > 1)
        return misfit(stored, "one scale for the tensor cannot be read in this format", err);
    if (codes->dtype != ASSAY_I32 || codes->rank != 2 || codes->shape[0] != shape.rows ||
        codes->shape[1] != assay_int4_words(&shape))
        return misfit(stored, "weight_packed has another shape", err);
    if (scales.groups > 1 && shape.group % 8 != 0)
        return misfit(stored, "groups are not whole words of weight_packed", err);
    if (zeros && (zeros->dtype != ASSAY_I32 || zeros->bytes != assay_int4_zero_words(&shape) * sizeof(uint32_t)))
        return misfit(stored, "weight_zero_point has another shape", err);
    accept(stored, ASSAY_STORED_INT4);
    return ASSAY_OK;
}

enum assay_status assay_int4_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                  struct assay_arena *arena, float *values, struct assay_err *err)
{
    struct scales scales;
    enum assay_status status = find_scales(checkpoint, stored, &scales, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_int4_shape shape = int4_shape(stored, &scales);
    const struct assay_tensor *zeros = assay_stored_part(checkpoint, stored, "_zero_point");
    const uint32_t *codes = assay_stored_copy(arena, stored->source);
    const uint32_t *zero = zeros ? assay_stored_copy(arena, zeros) : NULL;
    const float *scale = assay_stored_copy_f32(arena, scales.tensor);
    if (!codes || !scale || (zeros && !zero))
        return out_of_memory(stored, err);
    assay_int4_decode(codes, scale, zero, &shape, values);
    return ASSAY_OK;
}
