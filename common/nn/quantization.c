/* quantization_config of compressed-tensors. Source: compressed-tensors, "int-quantized". */
#include <string.h>

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

static enum assay_status check_group(const cJSON *group, const char *what, struct assay_err *err)
{
    const cJSON *weights = member(group, "weights");
    if (!cJSON_IsObject(weights))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config with a group without weights is not implemented", what);
    enum assay_status status = want_string(group, what, "format", "int-quantized", true, err);
    if (status == ASSAY_OK)
        status = want_absent(group, what, "input_activations", err);
    if (status == ASSAY_OK)
        status = want_absent(group, what, "output_activations", err);
    if (status == ASSAY_OK)
        status = want_string(weights, what, "type", "int", false, err);
    if (status == ASSAY_OK)
        status = want_string(weights, what, "strategy", "channel", false, err);
    if (status == ASSAY_OK)
        status = want_absent(weights, what, "actorder", err);
    if (status == ASSAY_OK)
        status = want_absent(weights, what, "dynamic", err);
    if (status != ASSAY_OK)
        return status;
    const cJSON *bits = member(weights, "num_bits");
    if (!cJSON_IsNumber(bits) || bits->valuedouble != 8)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config with num_bits other than 8 is not implemented", what);
    if (!cJSON_IsTrue(member(weights, "symmetric")))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: quantization_config with asymmetric weights is not implemented", what);
    return ASSAY_OK;
}

enum assay_status assay_quantization_read(const cJSON *config, const char *what, struct assay_quantization *ret,
                                          struct assay_err *err)
{
    const cJSON *quantization = member(config, "quantization_config");
    if (!quantization) {
        *ret = (struct assay_quantization){0};
        return ASSAY_OK;
    }
    enum assay_status status = want_string(quantization, what, "quant_method", "compressed-tensors", false, err);
    if (status == ASSAY_OK)
        status = want_string(quantization, what, "format", "int-quantized", false, err);
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
    cJSON_ArrayForEach(group, groups)
    {
        status = check_group(group, what, err);
        if (status != ASSAY_OK)
            return status;
    }
    *ret = (struct assay_quantization){.int8 = true};
    return ASSAY_OK;
}
