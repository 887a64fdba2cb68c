/* The worker: takes leases, runs their chunks batch by batch, hands records over. Its states are in README.md. */
#pragma once

#include "common/base/pool.h"
#include "common/wire/member.h"
#include "services/inference/models.h"
#include "services/inference/outbox.h"

struct assay_worker_options {
    struct assay_link *link;
    struct assay_pool *pool;
    struct assay_models *models;
    struct assay_loop *loop;
    const char *cache_dir; /* where artifacts go that are not visible here */
    const char *precision; /* leases of another scheme are given back */
    size_t batch_tokens;   /* at most so many in one forward pass, unless one chunk has more */
    int64_t lease_wait_ms; /* one long poll, at most 60,000 */
    struct assay_outbox_options outbox;
};

/* Counts since the start. A chunk counts when its forward pass has run, whatever becomes of its record. */
struct assay_worker_counts {
    uint64_t chunks_run, tokens_run, records_sent, compute_us;
    size_t batches_waiting; /* computed, and on their way to the evaluator now */
    struct assay_models_stats models;
};

struct assay_worker;

/* The link, the pool, the models and the strings outlive the worker. */
enum assay_status assay_worker_new(const struct assay_worker_options *options, struct assay_worker **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Starts the thread. The member outlives assay_worker_stop. */
enum assay_status assay_worker_start(struct assay_worker *worker, struct assay_member *member,
                                     struct assay_err *err) ASSAY_MUST_USE;
/* Finishes the batch in hand, completes what was put, gives the rest back, joins. Takes at most the forward pass in
 * hand and grace_ms, then breaks calls off. Not started, or NULL, is fine. */
void assay_worker_stop(struct assay_worker *worker, int64_t grace_ms);
void assay_worker_free(struct assay_worker *worker); /* stopped before; NULL is fine */

/* Any thread. */
struct assay_worker_counts assay_worker_counts(const struct assay_worker *worker);

/* Chunks to ask for, so that one batch computes while one is on its way: about two batches of chunks like the last
 * ones. Pure. */
size_t assay_worker_chunks_max(size_t batch_tokens, size_t mean_tokens);
