/* quantization_config of compressed-tensors ("int-quantized", "pack-quantized") and of bitsandbytes (nf4). */
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/model_impl.h"

static const cJSON *member(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return item && !cJSON_IsNull(item) ? item : NULL;
}

/* A string member must be `wanted`; one that is absent may be so when `optional`. */
static enum assay_status want_string(const cJSON *object, const char *what, const char *key, const char *wanted,
                                     bool optional, struct assay_err *err)
{
    const cJSON *item = member(object, key);
    if (optional && !item)
        return ASSAY_OK;
    if (cJSON_IsString(item) && strcmp(item->valuestring, wanted) == 0)
        return ASSAY_OK;
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: quantization_config with %s '%.60s' is not implemented; '%s' is", what, key,
                         cJSON_IsString(item) ? item->valuestring : "(none)", wanted);
}

static enum assay_status want_absent(const cJSON *object, const char *what, const char *key, struct assay_err *err)
{
    const cJSON *item = member(object, key);
    if (!item || cJSON_IsFalse(item) || (cJSON_IsObject(item) && !item->child))
        return ASSAY_OK;
    return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: quantization_config with %s is not implemented", what, key);
}

/* What one group says about its weights. */
static enum assay_status read_weights(const cJSON *weights, const char *what, bool packed,
                                      struct assay_quantization *ret, struct assay_err *err)
{
    const cJSON *bits = member(weights, "num_bits"), *strategy = member(weights, "strategy");
    const cJSON *size = member(weights, "group_size"), *symmetric = member(weights, "symmetric");
    int wanted = packed ? 4 : 8;
    if (!cJSON_IsNumber(bits) || bits->valuedouble != wanted)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config of %s weights with num_bits other than %d is not implemented",
                             what, packed ? "pack-quantized" : "int-quantized", wanted);
    *ret = (struct assay_quantization){packed ? ASSAY_QUANTIZATION_INT4 : ASSAY_QUANTIZATION_INT8, 0,
                                       !cJSON_IsFalse(symmetric)};
    if (!packed && !cJSON_IsTrue(symmetric))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config with asymmetric weights of 8 bits is not implemented", what);
    if (!packed || !cJSON_IsString(strategy) || strcmp(strategy->valuestring, "group") != 0)
        return want_string(weights, what, "strategy", "channel", false, err);
    if (!cJSON_IsNumber(size) || !(size->valuedouble >= 1 && size->valuedouble <= ASSAY_MODEL_DIM_MAX) ||
        size->valuedouble != (double)(size_t)size->valuedouble)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: quantization_config with strategy group needs a group_size of 1 to %u", what,
                             ASSAY_MODEL_DIM_MAX);
    ret->group = (size_t)size->valuedouble;
    return ASSAY_OK;
}

static enum assay_status read_group(const cJSON *group, const char *what, bool packed, struct assay_quantization *ret,
                                    struct assay_err *err)
{
    const cJSON *weights = member(group, "weights");
    if (!cJSON_IsObject(weights))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config with a group without weights is not implemented", what);
    enum assay_status status =
        want_string(group, what, "format", packed ? "pack-quantized" : "int-quantized", true, err);
    if (status == ASSAY_OK)
        status = want_absent(group, what, "input_activations", err);
    if (status == ASSAY_OK)
        status = want_absent(group, what, "output_activations", err);
    if (status == ASSAY_OK)
        status = want_string(weights, what, "type", "int", false, err);
    if (status == ASSAY_OK)
        status = want_absent(weights, what, "actorder", err);
    if (status == ASSAY_OK)
        status = want_absent(weights, what, "dynamic", err);
    return status == ASSAY_OK ? read_weights(weights, what, packed, ret, err) : status;
}

static enum assay_status read_compressed_tensors(const cJSON *quantization, const char *what,
                                                 struct assay_quantization *ret, struct assay_err *err)
{
    const cJSON *format = member(quantization, "format");
    bool packed = cJSON_IsString(format) && strcmp(format->valuestring, "pack-quantized") == 0;
    enum assay_status status =
        packed ? ASSAY_OK : want_string(quantization, what, "format", "int-quantized", false, err);
    if (status == ASSAY_OK)
        status = want_string(quantization, what, "quantization_status", "compressed", true, err);
    static const char *const unknown[] = {"kv_cache_scheme", "sparsity_config", "transform_config"};
    for (size_t i = 0; i < ASSAY_COUNT(unknown) && status == ASSAY_OK; i++)
        status = want_absent(quantization, what, unknown[i], err);
    const cJSON *groups = member(quantization, "config_groups"), *group;
    if (status == ASSAY_OK && (!cJSON_IsObject(groups) || !groups->child))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: quantization_config has no config_groups", what);
    if (status != ASSAY_OK)
        return status;
    struct assay_quantization first = {0}, found = {0};
    cJSON_ArrayForEach(group, groups)
    {
        status = read_group(group, what, packed, &found, err);
        if (status != ASSAY_OK)
            return status;
        if (group == groups->child)
            first = found;
        if (found.group != first.group || found.symmetric != first.symmetric)
            return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                                 "%s: quantization_config with config_groups that differ is not implemented", what);
    }
    *ret = first;
    return ASSAY_OK;
}

static enum assay_status read_bitsandbytes(const cJSON *quantization, const char *what, struct assay_quantization *ret,
                                           struct assay_err *err)
{
    enum assay_status status = want_absent(quantization, what, "load_in_8bit", err);
    if (status == ASSAY_OK)
        status = want_string(quantization, what, "bnb_4bit_quant_type", "nf4", false, err);
    if (status == ASSAY_OK)
        status = want_string(quantization, what, "bnb_4bit_quant_storage", "uint8", true, err);
    if (status == ASSAY_OK)
        *ret = (struct assay_quantization){.kind = ASSAY_QUANTIZATION_NF4};
    return status;
}

enum assay_status assay_quantization_read(const cJSON *config, const char *what, struct assay_quantization *ret,
                                          struct assay_err *err)
{
    const cJSON *quantization = member(config, "quantization_config");
    if (!quantization) {
        *ret = (struct assay_quantization){0};
        return ASSAY_OK;
    }
    const cJSON *method = member(quantization, "quant_method");
    if (cJSON_IsString(method) && strcmp(method->valuestring, "compressed-tensors") == 0)
        return read_compressed_tensors(quantization, what, ret, err);
    if (cJSON_IsString(method) && strcmp(method->valuestring, "bitsandbytes") == 0)
        return read_bitsandbytes(quantization, what, ret, err);
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: quantization_config with quant_method '%.60s' is not implemented; 'compressed-tensors' "
                         "and 'bitsandbytes' are",
                         what, cJSON_IsString(method) ? method->valuestring : "(none)");
}
