/* Any bytes as JSON: refused with a place inside the text, or a tree whose printing parses again. */
#include <stdlib.h>
#include <string.h>

#include "common/formats/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_members(const cJSON *object)
{
    for (const cJSON *member = object->child; member; member = member->next) {
        int64_t integer = 0;
        double number = 0;
        bool flag = false;
        const char *text = NULL;
        enum assay_status status[] = {
            assay_json_get_int(object, "fuzz", member->string, true, -5, INT64_MAX, &integer, NULL),
            assay_json_get_double(object, "fuzz", member->string, false, &number, NULL),
            assay_json_get_bool(object, "fuzz", member->string, true, &flag, NULL),
            assay_json_get_string(object, "fuzz", member->string, false, &text, NULL),
        };
        if (status[0] == ASSAY_OK && (integer < -5 || (double)integer != member->valuedouble))
            abort();
        if (status[3] == ASSAY_OK && text && strlen(text) == SIZE_MAX)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    assay_auto(assay_json_delete) cJSON *again = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_json_parse((const char *)data, size, "fuzz", &json, &err) != ASSAY_OK) {
        if (!err.text[0] || json)
            abort();
        return 0;
    }
    if (cJSON_IsObject(json))
        read_members(json);
    char *text = cJSON_PrintUnformatted(json);
    if (!text || assay_json_parse(text, strlen(text), "fuzz", &again, &err) != ASSAY_OK)
        abort();
    free(text);
    return 0;
}
