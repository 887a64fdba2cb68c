#include "cli/ids.h"

#include <stdlib.h>

#include "common/formats/json.h"

enum assay_status assay_ids_load(const char *path, int32_t **ret, size_t *ret_count, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_json_load(path, &json, err);
    if (status != ASSAY_OK)
        return status;
    if (!cJSON_IsArray(json) || !json->child)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: wanted a JSON array of token ids, as [1, 2, 3]", path);
    size_t count = 0, at = 0;
    for (const cJSON *id = json->child; id; id = id->next)
        count++;
    assay_auto(assay_free_ptr) int32_t *ids = malloc(count * sizeof *ids);
    if (!ids)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for %zu ids", path, count);
    for (const cJSON *id = json->child; id; id = id->next) {
        double value = id->valuedouble;
        if (!cJSON_IsNumber(id) || !(value >= 0.0 && value <= INT32_MAX) || value != (double)(int32_t)value)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: element %zu is no token id (a whole number from 0)",
                                 path, at);
        ids[at++] = (int32_t)value;
    }
    *ret = assay_steal(&ids);
    *ret_count = count;
    return ASSAY_OK;
}
