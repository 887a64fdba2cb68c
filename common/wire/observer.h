/* What is told of every call of a process when it has ended, at the server's side and at the client's. One observer a
 * process; it is set before the first loop starts and called on any thread, several at a time. */
#pragma once

#include "common/base/status.h"

struct assay_wire_call {
    bool is_server, is_stream;
    const char *method;   /* "assay.v1.Records/Put"; "unknown" for one that is not served here */
    const char *trace_id; /* "" when there is none */
    enum assay_status status;
    int64_t begin_us, end_us;            /* monotonic */
    uint64_t sent_bytes, received_bytes; /* payloads and attachments */
};

struct assay_wire_observer {
    void (*began)(void *arg, bool is_server);
    void (*ended)(void *arg, const struct assay_wire_call *call); /* once for each that began */
    void *arg;
};

/* NULL: nobody. The observer outlives all loops. */
void assay_wire_observe(const struct assay_wire_observer *observer);

/* For the two sides of a call. */
void assay_wire_began(bool is_server);
void assay_wire_ended(const struct assay_wire_call *call);
