#include "common/formats/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/formats/json_scan.h"

/* Beyond 2^53 a double no longer tells neighbouring integers apart. */
#define EXACT_INTEGER_MAX 9007199254740992.0

struct key {
    const char *name;
    size_t ordinal; /* keys before it in the text */
};

struct duplicates {
    size_t keys;      /* visited so far */
    size_t ordinal;   /* of the first key found to stand twice */
    const char *name; /* NULL: none */
    bool failed;      /* out of memory */
};

static int compare_keys(const void *a, const void *b)
{
    const struct key *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order ? order : (left->ordinal > right->ordinal) - (left->ordinal < right->ordinal);
}

/* Recursion is bounded by the scan's ceiling on nesting. */
static void find_duplicates(const cJSON *value, struct duplicates *found)
{
    if (!cJSON_IsObject(value)) {
        for (const cJSON *child = value->child; child && !found->failed; child = child->next)
            find_duplicates(child, found);
        return;
    }
    size_t count = (size_t)cJSON_GetArraySize(value);
    struct key *keys = count ? malloc(count * sizeof *keys) : NULL;
    if (count && !keys) {
        found->failed = true;
        return;
    }
    size_t i = 0;
    for (const cJSON *child = value->child; child && !found->failed; child = child->next) {
        keys[i++] = (struct key){child->string, found->keys++};
        find_duplicates(child, found);
    }
    if (count && !found->failed)
        qsort(keys, count, sizeof *keys, compare_keys);
    for (i = 1; i < count && !found->failed; i++) {
        if (strcmp(keys[i - 1].name, keys[i].name) == 0 && (!found->name || keys[i].ordinal < found->ordinal)) {
            found->name = keys[i].name;
            found->ordinal = keys[i].ordinal;
        }
    }
    free(keys);
}

enum assay_status assay_json_parse(const char *text, size_t len, const char *what, cJSON **ret, struct assay_err *err)
{
    struct assay_json_fault fault;
    if (!assay_json_scan(text, len, &fault))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: byte %zu: not valid JSON: %s", what, fault.offset,
                             fault.reason);
    cJSON *json = cJSON_ParseWithLengthOpts(text, len, NULL, false);
    if (!json)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory while parsing %zu bytes of JSON", what,
                             len);
    struct duplicates found = {0};
    find_duplicates(json, &found);
    enum assay_status status = ASSAY_OK;
    if (found.failed)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory while parsing JSON", what);
    else if (found.name)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: byte %zu: the key '%.100s' stands twice in one object",
                               what, assay_json_key_offset(text, len, found.ordinal), found.name);
    if (status == ASSAY_OK)
        *ret = json;
    else
        cJSON_Delete(json);
    return status;
}

enum assay_status assay_json_load(const char *path, cJSON **ret, struct assay_err *err)
{
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t len;
    enum assay_status status = assay_file_read(path, ASSAY_JSON_FILE_BYTES_MAX, &text, &len, err);
    if (status != ASSAY_OK)
        return status;
    return assay_json_parse(text, len, path, ret, err);
}

static const char *type_name(const cJSON *value)
{
    if (cJSON_IsBool(value))
        return "a boolean";
    if (cJSON_IsNumber(value))
        return "a number";
    if (cJSON_IsString(value))
        return "a string";
    if (cJSON_IsArray(value))
        return "an array";
    if (cJSON_IsObject(value))
        return "an object";
    return "null";
}

/* The member, or NULL in *ret when it is absent or null and may be. */
static enum assay_status get_member(const cJSON *object, const char *what, const char *key, bool required,
                                    const cJSON **ret, struct assay_err *err)
{
    if (!cJSON_IsObject(object))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: expected an object with '%s', found %s", what, key,
                             object ? type_name(object) : "nothing");
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNull(member))
        member = NULL;
    if (!member && required)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is missing", what, key);
    *ret = member;
    return ASSAY_OK;
}

static enum assay_status wrong_type(const cJSON *member, const char *what, const char *key, const char *wanted,
                                    struct assay_err *err)
{
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' should be %s, found %s", what, key, wanted,
                         type_name(member));
}

enum assay_status assay_json_get_int(const cJSON *object, const char *what, const char *key, bool required, int64_t min,
                                     int64_t max, int64_t *ret, struct assay_err *err)
{
    const cJSON *member = NULL;
    enum assay_status status = get_member(object, what, key, required, &member, err);
    if (status != ASSAY_OK || !member)
        return status;
    if (!cJSON_IsNumber(member))
        return wrong_type(member, what, key, "an integer", err);
    double value = member->valuedouble;
    if (!(fabs(value) <= EXACT_INTEGER_MAX) || value != floor(value) || (int64_t)value < min || (int64_t)value > max)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: '%s' should be an integer from %" PRId64 " to %" PRId64 ", found %.17g", what, key,
                             min, max, value);
    *ret = (int64_t)value;
    return ASSAY_OK;
}

enum assay_status assay_json_get_double(const cJSON *object, const char *what, const char *key, bool required,
                                        double *ret, struct assay_err *err)
{
    const cJSON *member = NULL;
    enum assay_status status = get_member(object, what, key, required, &member, err);
    if (status != ASSAY_OK || !member)
        return status;
    if (!cJSON_IsNumber(member))
        return wrong_type(member, what, key, "a number", err);
    if (!isfinite(member->valuedouble))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is beyond the range of a double", what, key);
    *ret = member->valuedouble;
    return ASSAY_OK;
}

enum assay_status assay_json_get_bool(const cJSON *object, const char *what, const char *key, bool required, bool *ret,
                                      struct assay_err *err)
{
    const cJSON *member = NULL;
    enum assay_status status = get_member(object, what, key, required, &member, err);
    if (status != ASSAY_OK || !member)
        return status;
    if (!cJSON_IsBool(member))
        return wrong_type(member, what, key, "true or false", err);
    *ret = cJSON_IsTrue(member);
    return ASSAY_OK;
}

enum assay_status assay_json_get_string(const cJSON *object, const char *what, const char *key, bool required,
                                        const char **ret, struct assay_err *err)
{
    const cJSON *member = NULL;
    enum assay_status status = get_member(object, what, key, required, &member, err);
    if (status != ASSAY_OK || !member)
        return status;
    if (!cJSON_IsString(member))
        return wrong_type(member, what, key, "a string", err);
    *ret = member->valuestring;
    return ASSAY_OK;
}

void assay_json_delete(cJSON **json)
{
    cJSON_Delete(*json);
    *json = NULL;
}
