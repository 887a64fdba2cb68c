/* assay.v1.Trace of every server: the spans of its process. */
#pragma once

#include "common/wire/server.h"

/* What Trace says that this process is: "inference int8". Copied; before the first loop starts. */
void assay_trace_identify(const char *process);
/* Before the loop runs. */
void assay_trace_add(struct assay_server *server);
