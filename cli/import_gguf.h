/* What the commands that import GGUF files share. */
#pragma once

#include <cjson/cJSON.h>

#include "common/formats/gguf_import.h"

/* Imports the file into `dir`, which exists, and opens what was written as a job would: weights, config and tokenizer.
 * Progress goes to stderr when that is a terminal. Ctrl-C ends it with CANCELLED. */
enum assay_status assay_import_gguf(const char *file, const char *dir, struct assay_gguf_summary *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* One line for a reader, on stdout. */
void assay_import_print(const char *dir, const struct assay_gguf_summary *summary);
/* Adds the summary's members to an object. */
void assay_import_json(cJSON *object, const struct assay_gguf_summary *summary);
