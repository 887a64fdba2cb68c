/* The spans of a job, from all processes of a stack, on one clock, as Chrome trace JSON (which Perfetto and
 * chrome://tracing load): one track for each thread of each process; calls as a server saw them, which overlap, are
 * asynchronous events of their process. */
#pragma once

#include "cli/remote.h"
#include "common/base/buf.h"

#define ASSAY_TRACE_PROCESSES_MAX 4096

struct assay_trace_process {
    char name[96];         /* "inference int8" */
    char why_missing[256]; /* "" when it answered */
    uint32_t pid;
    char host[256];
    size_t spans;
    uint64_t lost; /* spans that had left its ring, of whatever trace */
};

struct assay_trace {
    char job[2 * 16 + 1]; /* its id, which is the trace id */
    struct assay_trace_process *processes;
    size_t processes_count, spans_count;
    int64_t begin_us, end_us; /* since 1970, UTC; 0 without spans */
    struct assay_buf json;
};

#define ASSAY_TRACE_INIT                                                                                               \
    {                                                                                                                  \
        .json = ASSAY_BUF_INIT                                                                                         \
    }

/* Asks the coordinator at `endpoint`, to which `remote` is connected, and every service that it lists. A process that
 * does not answer is listed with the reason. NOT_FOUND: nobody knows a span of the job. *trace is initialized; release
 * it whatever the outcome. */
enum assay_status assay_trace_collect(struct assay_remote *remote, const char *endpoint, const char *job,
                                      struct assay_trace *trace, struct assay_err *err) ASSAY_MUST_USE;
void assay_trace_release(struct assay_trace *trace);
