/* What goes out while the next batch is computed: records to the evaluator, then word of them to the coordinator. One
 * thread sends, in order; at most ASSAY_OUTBOX_MAX batches are on their way. */
#pragma once

#include "services/inference/link.h"

#define ASSAY_OUTBOX_MAX 2

/* A lease, as both threads see it. Counted. */
struct assay_loan;
/* Takes the lease over (empties it), whatever the outcome. NULL when out of memory. One reference. */
struct assay_loan *assay_loan_new(struct assay_worker_lease *lease);
void assay_loan_drop(struct assay_loan *loan); /* NULL is fine */
const struct assay_worker_lease *assay_loan_lease(const struct assay_loan *loan);
/* True once the lease is lost or given back: what is left of it is not worth computing. Any thread. */
bool assay_loan_is_over(const struct assay_loan *loan);

/* Records of one forward pass, or the failure with which the rest of a lease goes back, or both. */
struct assay_batch {
    struct assay_loan *loan; /* a reference of its own */
    struct assay_batch_memory *memory;
    size_t count;
    struct assay_outgoing *records; /* [count] */
    uint32_t *tokens;               /* [count]; 0 for extra ones */
    uint64_t compute_us;
    struct assay_err failure; /* status OK: none */
    bool too_large;           /* the failure: the model does not fit into memory here */
};
/* Room for `count` records of the loan. NULL when out of memory. */
struct assay_batch *assay_batch_new(struct assay_loan *loan, size_t count, size_t floats);
void assay_batch_free(struct assay_batch *batch); /* NULL is fine */

struct assay_outbox;

/* How long and how often; a test is shorter. */
struct assay_outbox_options {
    int64_t put_ms;      /* one attempt */
    int64_t complete_ms; /* one attempt */
    int64_t backoff_ms;  /* before the second attempt; doubles, up to 5 s */
    int64_t retry_ms;    /* no attempt begins later than that after the first: an evaluator that has died comes back
                            elsewhere */
    size_t attempts_max;
    int64_t elsewhere_ms; /* with several evaluators: how long the others are asked who has taken a dead one's place */
};
#define ASSAY_OUTBOX_OPTIONS_DEFAULT                                                                                   \
    {                                                                                                                  \
        .put_ms = 30000, .complete_ms = 10000, .backoff_ms = 100, .retry_ms = 2000, .attempts_max = 5,                 \
        .elsewhere_ms = 10000                                                                                          \
    }

/* Starts the thread. The link outlives the outbox. */
enum assay_status assay_outbox_start(struct assay_link *link, const struct assay_outbox_options *options,
                                     struct assay_outbox **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Takes the batch over; waits while ASSAY_OUTBOX_MAX are on their way. One thread. */
void assay_outbox_add(struct assay_outbox *outbox, struct assay_batch *batch);
/* Any thread: attempts that fail are not repeated from now on. */
void assay_outbox_hurry(struct assay_outbox *outbox);
/* Sends what is there and ends the thread; nothing may be added afterwards. */
void assay_outbox_drain(struct assay_outbox *outbox);
void assay_outbox_free(struct assay_outbox *outbox); /* drains first if nobody has; NULL is fine */
/* Leases of the batches on their way, each once; the number. Any thread. */
size_t assay_outbox_leases(struct assay_outbox *outbox, uint64_t ids[ASSAY_OUTBOX_MAX]);
/* Batches on their way. Any thread. */
size_t assay_outbox_waiting(struct assay_outbox *outbox);
/* Records that the evaluator acknowledged. Any thread. */
uint64_t assay_outbox_sent(const struct assay_outbox *outbox);
