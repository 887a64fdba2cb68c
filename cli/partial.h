/* What a cancelled job leaves behind: figures of the chunks that were scored, with how many these are. Messages in,
 * text out. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/buf.h"
#include "proto/control.pb-c.h"

/* A table with a line above that says that it is partial. job->partial is set. */
void assay_partial_table(const Assay__V1__Job *job, struct assay_buf *out);
/* The same as JSON; the caller's to delete, NULL when out of memory. */
cJSON *assay_partial_json(const Assay__V1__Job *job);
