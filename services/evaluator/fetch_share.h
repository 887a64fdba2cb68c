/* Fetches from one other evaluator what it has of our share. */
#pragma once

#include "common/base/shard_map.h"
#include "common/wire/client.h"
#include "services/evaluator/records.h"

struct share_fetch {
    struct assay_loop *loop;
    struct assay_records *records;
    const struct assay_shard_id *self;
    uint64_t epoch;
    const char *endpoint;
    bool (*cancelled)(void *arg);
    void *arg;
    /* Counts, also after a failure. */
    uint64_t fetched, fetched_bytes;
    int64_t wall_ms;
};

/* Lists, fetches what is not here, verifies, commits, and tells the other one what it may drop. A value that is damaged
 * on the way is fetched again; one that the other has lost, or that does not fit the quota, is left to be computed
 * again. UNAVAILABLE, ABORTED and the like: another try may do better. CANCELLED. */
enum assay_status share_fetch_run(struct share_fetch *fetch, struct assay_err *err) ASSAY_MUST_USE;
