/* The part of YAML that a settings file needs, as a JSON tree: mappings, sequences, scalars, comments; by libyaml, with
 * ceilings. Any thread.
 *
 * A plain scalar is null (null, ~, nothing), true or false, a number where JSON would have one, else a string, so that
 * yes, on, 0x10 and 007 are strings. A quoted or block scalar is a string.
 *
 * Refused: anchors and aliases, tags, several documents, a key that is no scalar or stands twice, an escaped NUL. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/status.h"

/* A person writes these files. */
#define ASSAY_YAML_FILE_BYTES_MAX (1024u * 1024)
#define ASSAY_YAML_DEPTH_MAX 32
#define ASSAY_YAML_VALUES_MAX 65536u
#define ASSAY_YAML_KEYS_MAX 1024u /* in one mapping */

struct assay_yaml;

/* INVALID_ARGUMENT: "WHAT:LINE: ...", also for a text beyond the ceilings and one that holds nothing. */
enum assay_status assay_yaml_parse(const char *text, size_t len, const char *what, struct assay_yaml **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* The same of a file, and what assay_file_read answers. */
enum assay_status assay_yaml_load(const char *path, struct assay_yaml **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_yaml_free(struct assay_yaml *yaml); /* NULL is fine */

/* The tree; valid as long as the yaml. */
const cJSON *assay_yaml_json(const struct assay_yaml *yaml);
/* The line, from 1, where a value of the tree begins, or the key that it belongs to; 0 for one that is not in it. */
size_t assay_yaml_line(const struct assay_yaml *yaml, const cJSON *value);
