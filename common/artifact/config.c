/* config.json of an artifact. */
#include <string.h>

#include "common/artifact/method.h"

#define CONFIG_FILE "config.json"
#define QUANTIZATION "quantization_config"
#define OWN "assay"

static bool set_dtype(cJSON *config, const char *dtype)
{
    const char *key = cJSON_HasObjectItem(config, "dtype") ? "dtype" : "torch_dtype";
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    return cJSON_AddStringToObject(config, key, dtype);
}

/* What our engine reads and others ignore. Absent means f32. */
static bool set_compute(cJSON *config, enum assay_compute compute)
{
    cJSON_DeleteItemFromObjectCaseSensitive(config, OWN);
    if (compute == ASSAY_COMPUTE_F32)
        return true;
    cJSON *own = cJSON_AddObjectToObject(config, OWN);
    return own && cJSON_AddStringToObject(own, "compute", assay_compute_name(compute));
}

static bool change_all(cJSON *config, const struct assay_making *making, const struct assay_config_change *change)
{
    if (change->drops_quantization)
        cJSON_DeleteItemFromObjectCaseSensitive(config, QUANTIZATION);
    return (!change->dtype || set_dtype(config, change->dtype)) && set_compute(config, making->spec.compute);
}

enum assay_status assay_making_write_config(struct assay_making *making, const struct assay_config_change *change,
                                            struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], *text = NULL;
    cJSON *quantization = change->quantization;
    cJSON *config = cJSON_Duplicate(assay_checkpoint_config(making->source), true);
    enum assay_status status = assay_path_join(path, making->dir, CONFIG_FILE, err);
    bool is_changed = config && change_all(config, making, change);
    if (is_changed && quantization) {
        is_changed = cJSON_AddItemToObject(config, QUANTIZATION, quantization);
        quantization = is_changed ? NULL : quantization;
    }
    if (is_changed)
        text = cJSON_Print(config);
    cJSON_Delete(quantization);
    cJSON_Delete(config);
    if (status == ASSAY_OK && !text)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while writing %s", path);
    if (status == ASSAY_OK)
        status = assay_file_write(path, text, strlen(text), err);
    cJSON_free(text);
    return status == ASSAY_OK ? assay_making_add_file(making, CONFIG_FILE, false, err) : status;
}
