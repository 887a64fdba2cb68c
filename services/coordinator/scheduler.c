#include "services/coordinator/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum chunk_state { CHUNK_PENDING, CHUNK_LEASED, CHUNK_DONE, CHUNK_DEAD };

struct chunk {
    uint8_t state;
    uint8_t attempts;
};

struct assay_run {
    struct assay_run *next;
    struct assay_variant_id variant;
    char precision[32];
    char numerics[64];
    char dead_reason[256];
    void *owner;
    size_t total, done, pending;
    struct assay_chunk_key *keys;
    struct chunk *chunks;
    size_t cursor; /* no pending chunk lies before it */
};

struct lease {
    struct lease *next;
    uint64_t id;
    uint64_t service_id;
    struct assay_run *run;
    int64_t deadline_ms;
    size_t count;
    size_t chunks[];
};

struct assay_scheduler {
    struct assay_run *runs; /* oldest first */
    struct lease *leases;
    uint64_t next_lease_id;
};

struct assay_scheduler *assay_scheduler_new(void)
{
    struct assay_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (scheduler)
        scheduler->next_lease_id = 1;
    return scheduler;
}

static void run_free(struct assay_run *run)
{
    free(run->keys);
    free(run->chunks);
    free(run);
}

void assay_scheduler_free(struct assay_scheduler *scheduler)
{
    if (!scheduler)
        return;
    while (scheduler->runs)
        assay_scheduler_remove(scheduler, scheduler->runs);
    free(scheduler);
}

enum assay_status assay_scheduler_add(struct assay_scheduler *scheduler, const char *precision,
                                      const struct assay_variant_id *variant, const struct assay_chunk_key *keys,
                                      const uint8_t *have, size_t count, void *owner, struct assay_run **ret,
                                      struct assay_err *err)
{
    struct assay_run *run = calloc(1, sizeof *run);
    if (run) {
        run->keys = malloc(ASSAY_MAX(count, 1) * sizeof *run->keys);
        run->chunks = calloc(ASSAY_MAX(count, 1), sizeof *run->chunks);
    }
    if (!run || !run->keys || !run->chunks) {
        if (run)
            run_free(run);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a run of %zu chunks", count);
    }
    snprintf(run->precision, sizeof run->precision, "%s", precision);
    run->variant = *variant;
    run->owner = owner;
    run->total = count;
    memcpy(run->keys, keys, count * sizeof *keys);
    for (size_t i = 0; i < count; i++)
        run->chunks[i].state = have[i] ? CHUNK_DONE : CHUNK_PENDING;
    for (size_t i = 0; i < count; i++)
        *(have[i] ? &run->done : &run->pending) += 1;
    struct assay_run **last = &scheduler->runs;
    while (*last)
        last = &(*last)->next;
    *last = run;
    *ret = run;
    return ASSAY_OK;
}

static void put_back(struct assay_run *run, size_t index)
{
    run->chunks[index].state = CHUNK_PENDING;
    run->pending++;
    run->cursor = ASSAY_MIN(run->cursor, index);
}

/* The chunks of a lease that are still on loan become pending, or dead when they came back too often. */
static void return_chunks(struct lease *lease, bool counts, const char *reason)
{
    struct assay_run *run = lease->run;
    for (size_t i = 0; i < lease->count; i++) {
        struct chunk *chunk = &run->chunks[lease->chunks[i]];
        if (chunk->state != CHUNK_LEASED)
            continue;
        if (counts && ++chunk->attempts >= ASSAY_CHUNK_ATTEMPTS_MAX) {
            chunk->state = CHUNK_DEAD;
            snprintf(run->dead_reason, sizeof run->dead_reason, "chunk %zu of precision %s failed %d times: %s",
                     lease->chunks[i], run->precision, ASSAY_CHUNK_ATTEMPTS_MAX, reason);
        } else {
            put_back(run, lease->chunks[i]);
        }
    }
}

/* Unlinks *at from the list and frees it. */
static void lease_remove(struct lease **at)
{
    struct lease *lease = *at;
    *at = lease->next;
    free(lease);
}

void assay_scheduler_remove(struct assay_scheduler *scheduler, struct assay_run *run)
{
    for (struct lease **at = &scheduler->leases; *at;) {
        if ((*at)->run == run)
            lease_remove(at);
        else
            at = &(*at)->next;
    }
    for (struct assay_run **at = &scheduler->runs; *at; at = &(*at)->next) {
        if (*at == run) {
            *at = run->next;
            run_free(run);
            return;
        }
    }
    ASSAY_BUG("a run that is not in the scheduler was removed");
}

void assay_run_reconcile(struct assay_run *run, const uint8_t *have)
{
    for (size_t i = 0; i < run->total; i++) {
        if (run->chunks[i].state == CHUNK_DONE && !have[i]) {
            run->done--;
            put_back(run, i);
        }
    }
}

static bool suits(const struct assay_run *run, const char *precision, const char *numerics_id)
{
    return run->pending > 0 && strcmp(run->precision, precision) == 0 &&
           (run->numerics[0] == '\0' || strcmp(run->numerics, numerics_id) == 0);
}

static struct assay_run *choose_run(struct assay_scheduler *scheduler, const char *precision, const char *numerics_id,
                                    const struct assay_variant_id *loaded)
{
    struct assay_run *oldest = NULL;
    for (struct assay_run *run = scheduler->runs; run; run = run->next) {
        if (!suits(run, precision, numerics_id))
            continue;
        if (loaded && assay_digest_equal(&run->variant.digest, &loaded->digest))
            return run;
        oldest = oldest ? oldest : run;
    }
    return oldest;
}

bool assay_scheduler_lease(struct assay_scheduler *scheduler, uint64_t service_id, const char *precision,
                           const char *numerics_id, const struct assay_variant_id *loaded, size_t chunks_max,
                           size_t workers, int64_t now_ms, struct assay_lease *ret, struct assay_err *err)
{
    struct assay_run *run = choose_run(scheduler, precision, numerics_id, loaded);
    if (!run)
        return false;
    size_t share = (run->pending + workers - 1) / ASSAY_MAX(workers, 1);
    size_t count = ASSAY_MIN(chunks_max, ASSAY_MAX(share, 1));
    struct lease *lease = malloc(sizeof *lease + count * sizeof lease->chunks[0]);
    if (!lease) {
        assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a lease of %zu chunks", count);
        return false;
    }
    *lease = (struct lease){.next = scheduler->leases,
                            .id = scheduler->next_lease_id++,
                            .service_id = service_id,
                            .run = run,
                            .deadline_ms = now_ms + ASSAY_LEASE_MS};
    size_t index = run->cursor;
    for (; lease->count < count && index < run->total; index++) {
        if (run->chunks[index].state == CHUNK_PENDING) {
            run->chunks[index].state = CHUNK_LEASED;
            lease->chunks[lease->count++] = index;
        }
    }
    run->cursor = index;
    run->pending -= lease->count;
    assay_run_set_numerics(run, numerics_id);
    scheduler->leases = lease;
    *ret = (struct assay_lease){lease->id, run, lease->chunks, lease->count};
    return true;
}

static struct lease **find_lease(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id)
{
    struct lease **at = &scheduler->leases;
    while (*at && ((*at)->id != lease_id || (*at)->service_id != service_id))
        at = &(*at)->next;
    return at;
}

static bool lease_is_over(const struct lease *lease)
{
    for (size_t i = 0; i < lease->count; i++)
        if (lease->run->chunks[lease->chunks[i]].state == CHUNK_LEASED)
            return false;
    return true;
}

bool assay_scheduler_complete(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                              const struct assay_chunk_key *keys, size_t count, int64_t now_ms,
                              struct assay_run **ret_run, size_t *ret_newly)
{
    struct lease **at = find_lease(scheduler, service_id, lease_id);
    struct lease *lease = *at;
    if (!lease)
        return false;
    struct assay_run *run = lease->run;
    size_t newly = 0;
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < lease->count; i++) {
            struct chunk *chunk = &run->chunks[lease->chunks[i]];
            if (chunk->state == CHUNK_LEASED &&
                assay_digest_equal(&run->keys[lease->chunks[i]].digest, &keys[k].digest)) {
                chunk->state = CHUNK_DONE;
                newly++;
                break;
            }
        }
    }
    run->done += newly;
    lease->deadline_ms = now_ms + ASSAY_LEASE_MS;
    *ret_run = run;
    *ret_newly = newly;
    if (lease_is_over(lease))
        lease_remove(at);
    return true;
}

bool assay_scheduler_return(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id, bool counts,
                            const char *reason)
{
    struct lease **at = find_lease(scheduler, service_id, lease_id);
    if (!*at)
        return false;
    return_chunks(*at, counts, reason);
    lease_remove(at);
    return true;
}

size_t assay_scheduler_drop_service(struct assay_scheduler *scheduler, uint64_t service_id)
{
    size_t dropped = 0;
    for (struct lease **at = &scheduler->leases; *at;) {
        if ((*at)->service_id == service_id) {
            return_chunks(*at, true, "its worker fell silent");
            lease_remove(at);
            dropped++;
        } else {
            at = &(*at)->next;
        }
    }
    return dropped;
}

size_t assay_scheduler_expire(struct assay_scheduler *scheduler, int64_t now_ms)
{
    size_t expired = 0;
    for (struct lease **at = &scheduler->leases; *at;) {
        if ((*at)->deadline_ms <= now_ms) {
            return_chunks(*at, true, "no progress before the lease ended");
            lease_remove(at);
            expired++;
        } else {
            at = &(*at)->next;
        }
    }
    return expired;
}

bool assay_scheduler_has_lease(const struct assay_scheduler *scheduler, uint64_t service_id)
{
    for (const struct lease *lease = scheduler->leases; lease; lease = lease->next)
        if (lease->service_id == service_id)
            return true;
    return false;
}

size_t assay_scheduler_wanted(const struct assay_scheduler *scheduler, const char **precisions, size_t max)
{
    size_t count = 0;
    for (const struct assay_run *run = scheduler->runs; run && count < max; run = run->next) {
        bool known = run->pending == 0;
        for (size_t i = 0; i < count; i++)
            known = known || strcmp(precisions[i], run->precision) == 0;
        if (!known)
            precisions[count++] = run->precision;
    }
    return count;
}

void *assay_run_owner(const struct assay_run *run)
{
    return run->owner;
}

const struct assay_variant_id *assay_run_variant(const struct assay_run *run)
{
    return &run->variant;
}

size_t assay_run_total(const struct assay_run *run)
{
    return run->total;
}

size_t assay_run_done(const struct assay_run *run)
{
    return run->done;
}

size_t assay_run_pending(const struct assay_run *run)
{
    return run->pending;
}

const char *assay_run_numerics(const struct assay_run *run)
{
    return run->numerics;
}

void assay_run_set_numerics(struct assay_run *run, const char *numerics_id)
{
    snprintf(run->numerics, sizeof run->numerics, "%s", numerics_id);
}

const char *assay_run_dead_reason(const struct assay_run *run)
{
    return run->dead_reason[0] ? run->dead_reason : NULL;
}
