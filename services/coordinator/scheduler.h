/* Which chunks are on loan to whom. Pure: no sockets, no clock of its own, no threads; every call gets the time. The
 * caller locks.
 *
 * A run is all chunks of one variant in one job. A chunk of a run is pending, leased, done or dead:
 *
 *   pending --lease--> leased --complete--> done
 *      ^                 |
 *      '--- return ------'   failure, silence or the lease's end; counted, and dead after ATTEMPTS_MAX counts
 */
#pragma once

#include "common/base/digest.h"

/* A lease without progress for that long ends although its worker is alive. */
#define ASSAY_LEASE_MS 600000
/* A chunk that failed that often, or whose worker fell silent that often, is dead: it would take the next worker down
 * too. */
#define ASSAY_CHUNK_ATTEMPTS_MAX 5

struct assay_scheduler;
struct assay_run;

struct assay_scheduler *assay_scheduler_new(void);            /* NULL when out of memory */
void assay_scheduler_free(struct assay_scheduler *scheduler); /* frees the runs; NULL is fine */

/* A run over `count` chunks; `keys` is copied. have[i] != 0: done already. `owner` is handed back by assay_run_owner.
 */
enum assay_status assay_scheduler_add(struct assay_scheduler *scheduler, const char *precision,
                                      const struct assay_variant_id *variant, const struct assay_chunk_key *keys,
                                      const uint8_t *have, size_t count, void *owner, struct assay_run **ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* Ends the run's leases and frees it. Completes that come later find the lease lost. */
void assay_scheduler_remove(struct assay_scheduler *scheduler, struct assay_run *run);
/* Done chunks that the evaluator does not have (any more) become pending again; have as in add. */
void assay_run_reconcile(struct assay_run *run, const uint8_t *have);

struct assay_lease {
    uint64_t id;
    struct assay_run *run;
    const size_t *chunks; /* indices into the run, valid until the next call that changes the scheduler */
    size_t count;
};

/* A lease of up to chunks_max chunks of a run with this precision and numerics id: `loaded` is preferred, then the
 * oldest run. `workers` shares out what is left at the end of a run. False: no work. The first lease of a run fixes its
 * numerics id. */
bool assay_scheduler_lease(struct assay_scheduler *scheduler, uint64_t service_id, const char *precision,
                           const char *numerics_id, const struct assay_variant_id *loaded, size_t chunks_max,
                           size_t workers, int64_t now_ms, struct assay_lease *ret, struct assay_err *err);

/* Chunks of a lease are done. False: the lease is lost. *ret_run and *ret_newly: whose, and how many were not done
 * before. */
bool assay_scheduler_complete(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                              const struct assay_chunk_key *keys, size_t count, int64_t now_ms,
                              struct assay_run **ret_run, size_t *ret_newly);

/* Returns what is left of a lease. `counts`: the return is the chunks' or the worker's fault. Kills the run's chunk
 * with `reason` when it was returned too often. False: the lease is lost. */
bool assay_scheduler_return(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id, bool counts,
                            const char *reason);
/* The worker is gone or silent: returns all its leases, counted. The number of leases. */
size_t assay_scheduler_drop_service(struct assay_scheduler *scheduler, uint64_t service_id);
/* Returns leases that made no progress for ASSAY_LEASE_MS, counted. The number of leases. */
size_t assay_scheduler_expire(struct assay_scheduler *scheduler, int64_t now_ms);
bool assay_scheduler_has_lease(const struct assay_scheduler *scheduler, uint64_t service_id);

/* Precisions with pending chunks, each once, in order of their first run; at most `max`. The number. */
size_t assay_scheduler_wanted(const struct assay_scheduler *scheduler, const char **precisions, size_t max);

void *assay_run_owner(const struct assay_run *run);
const struct assay_variant_id *assay_run_variant(const struct assay_run *run);
size_t assay_run_total(const struct assay_run *run);
size_t assay_run_done(const struct assay_run *run);
size_t assay_run_pending(const struct assay_run *run);
/* "" while none is fixed. */
const char *assay_run_numerics(const struct assay_run *run);
/* Fixes the numerics id of records that are there already; before the first lease. */
void assay_run_set_numerics(struct assay_run *run, const char *numerics_id);
/* NULL, or why a chunk of this run is dead. */
const char *assay_run_dead_reason(const struct assay_run *run);
