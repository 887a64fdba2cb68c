/* Token ids from a file. */
#pragma once

#include "common/base/status.h"

/* A JSON array of at least one id in [0, 2^31); the caller frees *ret. Errors name the file and the place in the array.
 */
enum assay_status assay_ids_load(const char *path, int32_t **ret, size_t *ret_count,
                                 struct assay_err *err) ASSAY_MUST_USE;
