/* What quantization_config says, as far as the decoding depends on it: what we cannot decode is refused by name. */
#include <string.h>

#include "common/artifact/stored_layouts.h"
#include "common/base/limits.h"

/* The member is absent or one of the words. */
static enum assay_status want_word(const cJSON *object, const char *what, const char *key, const char *const *words,
                                   size_t count, struct assay_err *err)
{
    const char *found = NULL;
    enum assay_status status = assay_json_get_string(object, what, key, false, &found, err);
    if (status != ASSAY_OK || !found)
        return status;
    for (size_t i = 0; i < count; i++)
        if (strcmp(found, words[i]) == 0)
            return ASSAY_OK;
    return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: quantization_config with %s '%.60s' cannot be read; '%s' can",
                         what, key, found, words[0]);
}

static enum assay_status want_false(const cJSON *object, const char *what, const char *key, struct assay_err *err)
{
    bool found = false;
    enum assay_status status = assay_json_get_bool(object, what, key, false, &found, err);
    if (status == ASSAY_OK && found)
        status = assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: quantization_config with %s cannot be read", what, key);
    return status;
}

static enum assay_status check_weights(const cJSON *weights, const char *what, struct assay_err *err)
{
    static const char *const types[] = {"int"}, *const strategies[] = {"channel", "group", "tensor"};
    static const char *const orders[] = {"weight", "static"}; /* these do not reorder the columns of the file */
    int64_t bits = 0, group = 0;
    enum assay_status status = assay_json_get_int(weights, what, "num_bits", true, 1, 64, &bits, err);
    if (status == ASSAY_OK)
        status = want_word(weights, what, "type", types, ASSAY_COUNT(types), err);
    if (status == ASSAY_OK)
        status = want_word(weights, what, "strategy", strategies, ASSAY_COUNT(strategies), err);
    if (status == ASSAY_OK)
        status = want_word(weights, what, "actorder", orders, ASSAY_COUNT(orders), err);
    if (status == ASSAY_OK)
        status = want_false(weights, what, "dynamic", err);
    return status == ASSAY_OK
               ? assay_json_get_int(weights, what, "group_size", assay_stored_by_group(weights),
                                    assay_stored_by_group(weights) ? 1 : -1, ASSAY_MODEL_VOCAB_MAX, &group, err)
               : status;
}

static enum assay_status check_compressed(const cJSON *quantization, const char *what, struct assay_err *err)
{
    static const char *const formats[] = {"int-quantized", "pack-quantized", "naive-quantized"};
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(quantization, "config_groups"), *group;
    enum assay_status status = want_word(quantization, what, "format", formats, ASSAY_COUNT(formats), err);
    if (status == ASSAY_OK && (!cJSON_IsObject(groups) || !groups->child))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                               "%s: quantization_config has no config_groups, wanted an object of at least one", what);
    if (status != ASSAY_OK)
        return status;
    cJSON_ArrayForEach(group, groups)
    {
        const cJSON *weights = cJSON_GetObjectItemCaseSensitive(group, "weights");
        if (!cJSON_IsObject(weights))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: quantization_config: config group '%.60s' says nothing of weights", what,
                                 group->string);
        status = check_weights(weights, what, err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

bool assay_stored_by_group(const cJSON *weights)
{
    const char *strategy = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(weights, "strategy"));
    return strategy && strcmp(strategy, "group") == 0;
}

enum assay_status assay_stored_check_config(const cJSON *quantization, const char *what, bool is_compressed,
                                            struct assay_err *err)
{
    static const char *const types[] = {"nf4"};
    if (is_compressed)
        return check_compressed(quantization, what, err);
    enum assay_status status = want_false(quantization, what, "load_in_8bit", err);
    return status == ASSAY_OK ? want_word(quantization, what, "bnb_4bit_quant_type", types, ASSAY_COUNT(types), err)
                              : status;
}
