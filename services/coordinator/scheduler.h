/* Which chunks are on loan to whom. Pure: no sockets, no clock of its own, no threads; every call gets the time. The
 * caller locks.
 *
 * A run is all chunks of one variant in one job. A chunk is pending, leased, done or dead:
 *
 *   pending --lease--> leased --complete--> done
 *      ^                 |
 *      '--- return ------'   failure, silence or the lease's end; counted, and dead after ATTEMPTS_MAX counts
 *
 * Runs of the same variant whose records would be the same share the state of chunks that have the same key: what one
 * job has on loan the other waits for, and what is done is done for both.
 *
 * Who is next: among jobs that a worker can serve, the one that has had the least work for its weight (2^priority);
 * within the job a model that the worker has loaded, else the oldest run. Models of other jobs that it has loaded go
 * first as long as their job is not ahead by more than ASSAY_LOADED_SLACK_US; among those the job that has had least.
 *
 * When nothing is pending, chunks of a lease that is late are lent a second time. Who completes first counts; the other
 * lease is lost once nothing of it is left.
 *
 * A decision takes O(log n) steps in workers, runs, leases and chunks, for each chunk that it is about and each job
 * that wants the chunk. assay_scheduler_stats counts the steps. */
#pragma once

#include "common/base/digest.h"
#include "common/base/limits.h"

/* A lease without progress for that long ends although its worker is alive: the most, and the least once the time of a
 * chunk is known. */
#define ASSAY_LEASE_MS 600000
#define ASSAY_LEASE_MIN_MS 60000
/* How long a lease should take, at the speed measured: short, so that little is lost with a worker, and long, so that
 * asking for it costs nothing. */
#define ASSAY_LEASE_TARGET_MS 5000
/* Chunks in one lease. */
#define ASSAY_LEASE_CHUNKS_MAX 4096
/* A chunk that failed that often, or whose worker fell silent that often, is dead: it would take the next worker down
 * too. */
#define ASSAY_CHUNK_ATTEMPTS_MAX 5
/* Work that a job may get beyond its share because its model is loaded: about what loading another one costs. */
#define ASSAY_LOADED_SLACK_US 10000000
struct assay_scheduler;
struct assay_run;

struct assay_scheduler *assay_scheduler_new(void);            /* NULL when out of memory */
void assay_scheduler_free(struct assay_scheduler *scheduler); /* frees the runs; NULL is fine */

/* A run over `count` chunks. */
struct assay_run_options {
    const char *precision;
    struct assay_variant_id variant;
    bool f16;             /* records of f16: other records than those of f32 */
    const char *numerics; /* of the records that are there already, "" = none: then the first lease fixes it */
    const struct assay_chunk_key *keys;
    const uint8_t *have; /* have[i] != 0: done already */
    size_t count;
    uint64_t job; /* runs with the same one take turns as one */
    bool paused;
    int priority; /* -ASSAY_PRIORITY_MAX..ASSAY_PRIORITY_MAX */
    void *owner;  /* handed back by assay_run_owner */
};
/* Copies what options points to. A run that finds chunks of its variant with another run takes that one's numerics id.
 * RESOURCE_EXHAUSTED: out of memory. */
enum assay_status assay_scheduler_add(struct assay_scheduler *scheduler, const struct assay_run_options *options,
                                      struct assay_run **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Ends the run's leases, but for chunks that another run waits for, and frees it. Completes that come later find the
 * lease lost. */
void assay_scheduler_remove(struct assay_scheduler *scheduler, struct assay_run *run);
/* Done chunks that the evaluator does not have (any more) become pending again, pending ones that it has are done; have
 * as in add. */
void assay_run_reconcile(struct assay_run *run, const uint8_t *have);
/* A paused run gets no new leases. */
void assay_run_set_paused(struct assay_run *run, bool paused);
void assay_run_set_priority(struct assay_run *run, int priority);

/* What a worker asks for. */
struct assay_ask {
    uint64_t service_id;
    const char *precision, *numerics_id;
    const struct assay_variant_id *loaded; /* [loaded_count], the one used last first */
    size_t loaded_count;
    size_t chunks_max;   /* its credit */
    size_t batch_chunks; /* of one forward pass; 0 = it does not say */
    size_t workers;      /* that share what is left at the end of a run */
};

struct assay_lease {
    uint64_t id;
    struct assay_run *run;
    const size_t *chunks; /* indices into the run, valid until the next call that changes the scheduler */
    size_t count;
    int64_t lease_ms; /* it ends after that long without progress */
    bool is_copy;     /* of chunks that another worker is late with */
};

/* False: no work (err is untouched), or out of memory. */
bool assay_scheduler_lease(struct assay_scheduler *scheduler, const struct assay_ask *ask, int64_t now_ms,
                           struct assay_lease *ret, struct assay_err *err);
/* Whether a worker of this precision and numerics id would have a chance to get a lease now. Changes nothing. */
bool assay_scheduler_has_work(const struct assay_scheduler *scheduler, const char *precision, const char *numerics_id,
                              int64_t now_ms);

/* The variant that a worker of this precision and numerics id would get next if it had nothing loaded; NULL when
 * nothing is pending for it. Valid until the scheduler changes. */
const struct assay_variant_id *assay_scheduler_next_variant(struct assay_scheduler *scheduler, const char *precision,
                                                            const char *numerics_id);

/* Chunks of a lease are done; compute_us is what they took, 0 = not said. False: the lease is lost. *ret_run is the run
 * that the lease was given for (NULL when it has been removed), *ret_newly how many chunks were not done before. */
bool assay_scheduler_complete(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                              const struct assay_chunk_key *keys, size_t count, uint64_t compute_us, int64_t now_ms,
                              struct assay_run **ret_run, size_t *ret_newly);
/* Returns what is left of a lease. `counts`: the return is the chunks' or the worker's fault. A chunk that was returned
 * too often is dead for `reason`. False: the lease is lost. */
bool assay_scheduler_return(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id, bool counts,
                            const char *reason);
/* The model of this lease does not fit into the worker's memory: what is left goes back, not counted, and the worker is
 * lent nothing of that variant any more. False: the lease is lost. */
bool assay_scheduler_refuse(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                            const char *reason);
/* NULL, or why the worker has refused the run's variant so. Valid until the scheduler changes. */
const char *assay_run_refusal(const struct assay_run *run, uint64_t service_id);
/* Returns the worker's leases but those in held[count], not counted: it never heard of them, or has given them up. The
 * number of leases. */
size_t assay_scheduler_keep_leases(struct assay_scheduler *scheduler, uint64_t service_id, const uint64_t *held,
                                   size_t count);
/* The worker is dead: returns all its leases, counted, and forgets it. The number of leases. */
size_t assay_scheduler_drop_service(struct assay_scheduler *scheduler, uint64_t service_id);
/* Returns leases that made no progress until their deadline, counted. The number of leases. */
size_t assay_scheduler_expire(struct assay_scheduler *scheduler, int64_t now_ms);
bool assay_scheduler_has_lease(const struct assay_scheduler *scheduler, uint64_t service_id);

/* Precisions with pending chunks, each once, in order of their first run; at most `max`. The number. */
size_t assay_scheduler_wanted(const struct assay_scheduler *scheduler, const char **precisions, size_t max);
/* A run whose counts changed since it was handed out here last; NULL when there is none (left). */
struct assay_run *assay_scheduler_next_changed(struct assay_scheduler *scheduler);

void *assay_run_owner(const struct assay_run *run);
size_t assay_run_total(const struct assay_run *run);
size_t assay_run_done(const struct assay_run *run);
size_t assay_run_ran(const struct assay_run *run); /* of done: by leases of this run, not by another job's */
size_t assay_run_pending(const struct assay_run *run);
const char *assay_run_precision(const struct assay_run *run);  /* as it was added */
bool assay_run_has(const struct assay_run *run, size_t chunk); /* done */
/* "" while none is fixed. */
const char *assay_run_numerics(const struct assay_run *run);
/* NULL, or why a chunk of this run is dead. */
const char *assay_run_dead_reason(const struct assay_run *run);

/* Counts since the start, and gauges. */
struct assay_scheduler_stats {
    uint64_t decisions; /* calls that looked for a lease */
    uint64_t leases, leases_copied;
    /* How leases ended; the sum with leases_open is `leases`. */
    uint64_t leases_completed, leases_returned, leases_expired, leases_dropped, leases_outrun, leases_removed;
    uint64_t chunks_leased, chunks_done, chunks_retried, chunks_dead;
    uint64_t steps; /* of heaps, bit sets, tables and lists */
    size_t runs, leases_open, chunks_pending, chunks_on_loan;
};
void assay_scheduler_stats(const struct assay_scheduler *scheduler, struct assay_scheduler_stats *ret);
