#include "common/artifact/stored.h"

#include <stdio.h>
#include <string.h>

#include "common/artifact/stored_layouts.h"
#include "common/base/limits.h"

enum method { METHOD_NONE, METHOD_BITSANDBYTES, METHOD_COMPRESSED };

static enum assay_status read_method(const struct assay_checkpoint *checkpoint, enum method *ret, struct assay_err *err)
{
    const cJSON *quantization =
        cJSON_GetObjectItemCaseSensitive(assay_checkpoint_config(checkpoint), "quantization_config");
    const char *name = "";
    char what[ASSAY_PATH_MAX];
    if (!quantization || cJSON_IsNull(quantization)) {
        *ret = METHOD_NONE;
        return ASSAY_OK;
    }
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(checkpoint), "config.json", err);
    if (status != ASSAY_OK)
        return status;
    if (!cJSON_IsObject(quantization))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: quantization_config is not an object", what);
    status = assay_json_get_string(quantization, what, "quant_method", true, &name, err);
    if (status != ASSAY_OK)
        return status;
    if (strcmp(name, "bitsandbytes") == 0)
        *ret = METHOD_BITSANDBYTES;
    else if (strcmp(name, "compressed-tensors") == 0)
        *ret = METHOD_COMPRESSED;
    else
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quant_method '%.60s' cannot be read; bitsandbytes and compressed-tensors can", what,
                             name);
    return assay_stored_check_config(quantization, what, *ret == METHOD_COMPRESSED, err);
}

/* The name without this end, in the arena; NULL when it has another one. Sets *failed when out of memory. */
static char *without(struct assay_arena *arena, const char *name, const char *end, bool *failed)
{
    size_t len = strlen(name), end_len = strlen(end);
    if (len <= end_len || strcmp(name + len - end_len, end) != 0)
        return NULL;
    char *copy = assay_arena_strdup(arena, name);
    *failed = *failed || !copy;
    if (copy)
        copy[len - end_len] = '\0';
    return copy;
}

/* Belongs to another tensor, which it helps to read. */
static bool is_part(const struct assay_checkpoint *checkpoint, enum method method, const char *name,
                    struct assay_arena *arena, bool *failed)
{
    static const char *const nested[] = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", NF4_STATE};
    static const char *const compressed[] = {"_scale", "_zero_point", "_shape"};
    bool is_nf4 = method == METHOD_BITSANDBYTES;
    const char *const *ends = is_nf4 ? nested : compressed;
    size_t count = is_nf4 ? ASSAY_COUNT(nested) : ASSAY_COUNT(compressed);
    for (size_t i = 0; method != METHOD_NONE && i < count; i++) {
        const char *owner = without(arena, name, ends[i], failed);
        if (!owner)
            continue;
        char packed[512];
        snprintf(packed, sizeof packed, "%s_packed", owner);
        return assay_checkpoint_find(checkpoint, owner) || assay_checkpoint_find(checkpoint, packed);
    }
    return false;
}

/* Parts that belong to no weight, or to one of a dtype that has none. */
static enum assay_status refuse_strays(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                       struct assay_arena *arena, bool *failed, struct assay_err *err)
{
    static const char *const ends[] = {".weight_scale", ".weight_zero_point", ".weight_shape"};
    for (size_t i = 0; i < ASSAY_COUNT(ends); i++)
        if (without(arena, stored->name, ends[i], failed))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s belongs to a weight that is not there",
                                 stored->name);
    if (assay_stored_part(checkpoint, stored, "_scale"))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tensor %s has a scale and is %s, wanted I8", stored->name,
                             assay_dtype_name(stored->source->dtype));
    return ASSAY_OK;
}

static enum assay_status describe(const struct assay_checkpoint *checkpoint, enum method method,
                                  const struct assay_tensor *tensor, struct assay_arena *arena,
                                  struct assay_stored *stored, struct assay_err *err)
{
    bool failed = false;
    *stored =
        (struct assay_stored){.name = tensor->name, .dtype = tensor->dtype, .rank = tensor->rank, .source = tensor};
    memcpy(stored->shape, tensor->shape, sizeof stored->shape);
    enum assay_status status = ASSAY_OK;
    char *packed_name = method == METHOD_COMPRESSED ? without(arena, tensor->name, "_packed", &failed) : NULL;
    if (packed_name) {
        stored->name = packed_name;
        status = assay_int4_describe(checkpoint, stored, err);
    } else if (method == METHOD_COMPRESSED && tensor->dtype == ASSAY_I8) {
        status = assay_int8_describe(checkpoint, stored, err);
    } else if (method == METHOD_BITSANDBYTES && (tensor->dtype == ASSAY_U8 || tensor->dtype == ASSAY_I8 ||
                                                 assay_stored_part(checkpoint, stored, NF4_STATE))) {
        status = assay_nf4_describe(checkpoint, stored, err);
    } else {
        if (method == METHOD_COMPRESSED)
            status = refuse_strays(checkpoint, stored, arena, &failed, err);
        if (tensor->dtype == ASSAY_F16 || tensor->dtype == ASSAY_BF16)
            stored->dtype = ASSAY_F32;
    }
    return failed ? assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the tensors of a checkpoint")
                  : status;
}

enum assay_status assay_stored_list(const struct assay_checkpoint *checkpoint, struct assay_arena *arena,
                                    struct assay_stored **ret, size_t *ret_count, struct assay_err *err)
{
    size_t tensors = assay_checkpoint_count(checkpoint), count = 0;
    struct assay_stored *list = assay_arena_alloc(arena, (tensors + 1) * sizeof *list);
    enum method method = METHOD_NONE;
    enum assay_status status = read_method(checkpoint, &method, err);
    if (status == ASSAY_OK && !list)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", tensors);
    for (size_t i = 0; i < tensors && status == ASSAY_OK; i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(checkpoint, i);
        bool failed = false, part = is_part(checkpoint, method, tensor->name, arena, &failed);
        if (failed)
            status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu tensors", tensors);
        else if (!part)
            status = describe(checkpoint, method, tensor, arena, &list[count++], err);
    }
    if (status != ASSAY_OK)
        return status;
    *ret = list;
    *ret_count = count;
    return ASSAY_OK;
}

enum assay_status assay_stored_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                    struct assay_arena *arena, float **ret, struct assay_err *err)
{
    uint64_t elements = 1; /* checked when the tensor was described */
    for (size_t i = 0; i < stored->rank; i++)
        elements *= stored->shape[i];
    float *values = assay_arena_alloc(arena, (size_t)elements * sizeof *values + 1);
    if (!values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for tensor %s", stored->name);
    enum assay_status status = ASSAY_OK;
    switch (stored->layout) {
    case ASSAY_STORED_INT8:
        status = assay_int8_read(checkpoint, stored, arena, values, err);
        break;
    case ASSAY_STORED_INT4:
        status = assay_int4_read(checkpoint, stored, arena, values, err);
        break;
    case ASSAY_STORED_NF4:
        status = assay_nf4_read(checkpoint, stored, arena, values, err);
        break;
    case ASSAY_STORED_PLAIN:
        if (!assay_dtype_to_f32(stored->source->dtype, stored->source->data, (size_t)elements, values))
            ASSAY_BUG("a tensor that is listed as F32 is F32, F16 or BF16");
        break;
    }
    if (status == ASSAY_OK)
        *ret = values;
    return status;
}
