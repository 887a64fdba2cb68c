/* JSON from files we do not trust, by cJSON, with a ceiling on nesting. Any thread. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/status.h"

/* Parses exactly one value. INVALID_ARGUMENT with `what` (a file's name, say), byte offset and reason: bad syntax,
 * nesting beyond ASSAY_JSON_DEPTH_MAX, a key that stands twice in one object, bytes after the value. Caller:
 * cJSON_Delete. */
enum assay_status assay_json_parse(const char *text, size_t len, const char *what, cJSON **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Reads and parses a file of at most ASSAY_JSON_FILE_BYTES_MAX. */
enum assay_status assay_json_load(const char *path, cJSON **ret, struct assay_err *err) ASSAY_MUST_USE;

/* Typed members of an object. `what` names the object in errors. Absent (or null) members leave *ret as it is when
 * `required` is false and are INVALID_ARGUMENT when it is true; another type or a value out of range always is. */
enum assay_status assay_json_get_int(const cJSON *object, const char *what, const char *key, bool required, int64_t min,
                                     int64_t max, int64_t *ret, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_json_get_double(const cJSON *object, const char *what, const char *key, bool required,
                                        double *ret, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_json_get_bool(const cJSON *object, const char *what, const char *key, bool required, bool *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* *ret points into the object. */
enum assay_status assay_json_get_string(const cJSON *object, const char *what, const char *key, bool required,
                                        const char **ret, struct assay_err *err) ASSAY_MUST_USE;

void assay_json_delete(cJSON **json); /* for assay_auto */
