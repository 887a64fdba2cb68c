/* Which job the user means. */
#pragma once

#include "cli/remote.h"

#define ASSAY_JOB_ID_BYTES 16

/* 32 hexadecimal digits; or the first 4 or more of a job that is kept, when no other begins so; or "last", the one that
 * was submitted last. INVALID_ARGUMENT: none of these, or several jobs begin so. NOT_FOUND: no job begins so. */
enum assay_status assay_job_id_resolve(struct assay_remote *remote, const char *text, uint8_t ret[ASSAY_JOB_ID_BYTES],
                                       struct assay_err *err) ASSAY_MUST_USE;
