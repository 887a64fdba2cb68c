/* What `assay top` shows of a stack. Decided here without a terminal. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/buf.h"
#include "proto/status.pb-c.h"

/* How fast one process is, from two of its reports. A process reports once a second, not at our times: rates are over
 * its own clock, and stay as they were until it reports again. */
struct assay_top_rate {
    uint64_t service_id; /* 0: the coordinator */
    uint64_t uptime_ms, cpu_ms, tokens;
    bool known;
    double cpu_percent; /* of one CPU */
    double tokens_per_second;
};

struct assay_top {
    struct assay_top_rate *rates;
    size_t count;
};

/* Takes a new report in. False: out of memory; the rates are as before. *top is zeroed before the first. */
bool assay_top_update(struct assay_top *top, const Assay__V1__StackStatus *status) ASSAY_MUST_USE;
void assay_top_release(struct assay_top *top);

/* Lines of text, without control characters. */
void assay_top_text(const struct assay_top *top, const Assay__V1__StackStatus *status, const char *endpoint,
                    struct assay_buf *out);
/* The caller's to delete. */
cJSON *assay_top_json(const struct assay_top *top, const Assay__V1__StackStatus *status, const char *endpoint);

/* The text as it fits a terminal: at most `height` lines of `width` code points, each cleared to its end, from the home
 * position. */
void assay_top_frame(const char *text, size_t width, size_t height, struct assay_buf *out);
