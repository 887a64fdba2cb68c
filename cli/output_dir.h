/* A directory that a command makes. */
#pragma once

#include "common/base/fs.h"

struct assay_output_dir {
    char parent[ASSAY_PATH_MAX]; /* absolute, exists */
    char path[ASSAY_PATH_MAX];   /* a name in it */
};

/* Of what the user wrote. INVALID_ARGUMENT: no name for a directory; NOT_FOUND: no such parent. Whether something
 * stands there is not looked at. */
enum assay_status assay_output_dir_of(const char *text, struct assay_output_dir *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
