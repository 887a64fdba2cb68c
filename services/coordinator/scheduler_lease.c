/* Lends chunks and takes them back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/coordinator/scheduler_internal.h"

/* A lease id is a serial number above the slot, so that an id that is over is never taken for another one. */
#define SLOT_BITS 24
/* Chunks of a lease before the speed is known, of a worker that does not say how many it runs at once. */
#define CHUNKS_AT_FIRST 16
/* What a chunk is charged before the speed is known. */
#define CHUNK_US_AT_FIRST 100000
/* The weight of the last measurement of speed. */
#define RATE_WEIGHT 0.3
/* A lease is late after that many times what the rest of it should have taken, not before the least, and after the
 * most when the speed is not known. */
#define LATE_FACTOR 3
#define LATE_MIN_MS 2000
#define LATE_UNKNOWN_MS 60000
/* A lease ends after that many times. */
#define DEADLINE_FACTOR 20
/* Models that do not fit into a worker and are remembered; the oldest is forgotten, and refused anew. */
#define REFUSALS_MAX ((size_t)64)

/* --- leases --- */

static struct lease *lease_find(const struct assay_scheduler *s, uint64_t service_id, uint64_t lease_id)
{
    uint64_t slot = lease_id & (((uint64_t)1 << SLOT_BITS) - 1);
    struct lease *lease = slot < s->leases_slots ? s->leases[slot] : NULL;
    return lease && lease->id == lease_id && lease->client->id == service_id ? lease : NULL;
}

static bool slots_reserve(struct assay_scheduler *s)
{
    if (s->free_slots_count > 0)
        return true;
    uint32_t former = s->leases_slots, slots = ASSAY_MAX(64, 2 * former);
    if (slots >> SLOT_BITS)
        return false;
    struct lease **leases = realloc(s->leases, slots * sizeof *leases);
    if (leases)
        s->leases = leases;
    uint32_t *free_slots = leases ? realloc(s->free_slots, slots * sizeof *free_slots) : NULL;
    if (!free_slots)
        return false;
    s->free_slots = free_slots;
    memset(leases + former, 0, (slots - former) * sizeof *leases);
    for (uint32_t slot = slots; slot-- > ASSAY_MAX(former, 1u);)
        s->free_slots[s->free_slots_count++] = slot;
    s->leases_slots = slots;
    return true;
}

static struct client *client_get(struct assay_scheduler *s, uint64_t service_id)
{
    struct client *client = assay_idmap_get(&s->clients, service_id);
    if (client)
        return client;
    client = calloc(1, sizeof *client);
    if (!client || !assay_idmap_put(&s->clients, service_id, client)) {
        free(client);
        return NULL;
    }
    client->id = service_id;
    return client;
}

/* Microseconds of a chunk on this worker, or on any; 0 = not known. */
static double rate_of(const struct client *client, const struct chunk_set *set)
{
    return client->rate_set == set->serial && client->us_per_chunk > 0 ? client->us_per_chunk : set->us_per_chunk;
}

static int64_t clamp_ms(double ms, int64_t min, int64_t max)
{
    return ms < (double)min ? min : ms > (double)max ? max : (int64_t)ms;
}

static int64_t lease_ms_of(const struct lease *lease)
{
    double us = rate_of(lease->client, lease->set);
    return us > 0 ? clamp_ms(DEADLINE_FACTOR * us * (double)lease->count / 1e3, ASSAY_LEASE_MIN_MS, ASSAY_LEASE_MS)
                  : ASSAY_LEASE_MS;
}

/* The worker said something about the lease: its times begin anew. */
static void lease_heard(struct lease *lease, int64_t now_ms)
{
    double us = lease->set->us_per_chunk;
    lease->heard_ms = now_ms;
    lease->in_deadlines.key = now_ms + lease_ms_of(lease);
    lease->in_late.key =
        now_ms + (us > 0 ? clamp_ms(LATE_FACTOR * us * (double)lease->left / 1e3, LATE_MIN_MS, ASSAY_LEASE_MS)
                         : LATE_UNKNOWN_MS);
}

static void lease_link(struct assay_scheduler *s, struct lease *lease)
{
    struct client *client = lease->client;
    struct chunk_set *set = lease->set;
    lease->slot = s->free_slots[--s->free_slots_count];
    lease->id = s->next_serial++ << SLOT_BITS | lease->slot;
    lease->in_deadlines.order = lease->in_late.order = lease->id;
    s->leases[lease->slot] = lease;
    lease->client_next = client->leases;
    if (client->leases)
        client->leases->client_prev = lease;
    client->leases = lease;
    lease->set_next = set->leases;
    if (set->leases)
        set->leases->set_prev = lease;
    set->leases = lease;
    set->queue->leases_open++;
    s->stats.leases_open++;
}

/* A lease without chunks yet, in no heap; NULL when out of memory. */
static struct lease *lease_new(struct assay_scheduler *s, struct client *client, struct chunk_set *set,
                               struct assay_run *run, size_t room)
{
    if (!slots_reserve(s) || !assay_heap_reserve(&s->deadlines, s->stats.leases_open + 1) ||
        !assay_heap_reserve(&set->queue->late, set->queue->leases_open + 1))
        return NULL;
    struct lease *lease = malloc(sizeof *lease + room * sizeof lease->cells[0]);
    if (!lease)
        return NULL;
    *lease = (struct lease){.client = client, .set = set, .run = run};
    lease->charged_us = set->us_per_chunk > 0 ? (int64_t)set->us_per_chunk + 1 : CHUNK_US_AT_FIRST;
    lease_link(s, lease);
    return lease;
}

static void lease_hold(struct lease *lease, uint32_t cell)
{
    struct cell *c = &lease->set->cells[cell];
    c->leases[c->leases[0] != 0] = lease->slot;
    lease->cells[lease->count++] = cell;
    lease->left++;
}

static void lease_begin(struct assay_scheduler *s, struct lease *lease, int64_t now_ms)
{
    lease->copy_end = lease->count;
    lease_heard(lease, now_ms);
    assay_heap_push(&s->deadlines, &lease->in_deadlines);
    assay_heap_push(&lease->set->queue->late, &lease->in_late);
    s->stats.leases++;
    s->stats.leases_copied += lease->is_copy;
    s->stats.chunks_leased += lease->count;
    if (lease->run && !lease->is_copy)
        assay_turn_charge(lease->run->flow, lease->charged_us * (int64_t)lease->count);
}

void assay_lease_end(struct assay_scheduler *s, struct lease *lease, enum lease_end how)
{
    uint64_t *const counts[] = {
        [LEASE_COMPLETED] = &s->stats.leases_completed, [LEASE_RETURNED] = &s->stats.leases_returned,
        [LEASE_EXPIRED] = &s->stats.leases_expired,     [LEASE_DROPPED] = &s->stats.leases_dropped,
        [LEASE_OUTRUN] = &s->stats.leases_outrun,       [LEASE_REMOVED] = &s->stats.leases_removed,
    };
    if (lease->count > 0)
        ++*counts[how];
    for (size_t i = 0; i < lease->count && lease->left > 0; i++) {
        struct cell *cell = &lease->set->cells[lease->cells[i]];
        for (int k = 0; k < 2; k++) {
            if (cell->leases[k] == lease->slot) {
                cell->leases[k] = 0;
                lease->left--;
                s->stats.chunks_on_loan -= cell->leases[!k] == 0;
            }
        }
    }
    assay_heap_remove(&s->deadlines, &lease->in_deadlines);
    assay_heap_remove(&lease->set->queue->late, &lease->in_late);
    *(lease->client_prev ? &lease->client_prev->client_next : &lease->client->leases) = lease->client_next;
    if (lease->client_next)
        lease->client_next->client_prev = lease->client_prev;
    *(lease->set_prev ? &lease->set_prev->set_next : &lease->set->leases) = lease->set_next;
    if (lease->set_next)
        lease->set_next->set_prev = lease->set_prev;
    s->leases[lease->slot] = NULL;
    s->free_slots[s->free_slots_count++] = lease->slot;
    lease->set->queue->leases_open--;
    s->stats.leases_open--;
    free(lease);
}

void assay_cell_release(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, struct lease *keep,
                        enum lease_end how)
{
    struct cell *c = &set->cells[cell];
    s->stats.chunks_on_loan -= c->leases[0] || c->leases[1];
    for (int k = 0; k < 2; k++) {
        struct lease *lease = c->leases[k] ? s->leases[c->leases[k]] : NULL;
        c->leases[k] = 0;
        if (lease && --lease->left == 0 && lease != keep)
            assay_lease_end(s, lease, how);
    }
}

/* --- granting --- */

/* How many chunks to lend: what takes about the target, whole batches, a fair part of what is left. */
static size_t lease_length(const struct assay_ask *ask, const struct client *client, const struct assay_run *run)
{
    double us = rate_of(client, run->set);
    size_t batch = ask->batch_chunks, length = batch ? 2 * batch : CHUNKS_AT_FIRST;
    if (us > 0)
        length = (size_t)ASSAY_MIN(ASSAY_LEASE_TARGET_MS * 1e3 / us, (double)ASSAY_LEASE_CHUNKS_MAX);
    size_t pending = run->pending.members, workers = ask->workers;
    size_t share = workers > 1 ? (pending + 2 * workers - 1) / (2 * workers) : pending;
    length = ASSAY_MIN(ASSAY_MAX(ASSAY_MIN(length, share), ASSAY_MIN(batch, pending)), ask->chunks_max);
    if (batch > 0 && length > batch)
        length -= length % batch;
    return ASSAY_MIN(ASSAY_MAX(length, 1), ASSAY_LEASE_CHUNKS_MAX);
}

/* The first pending chunks of the run. Those that came back before go with few others, in the end alone: so a chunk
 * that takes workers down is found, and does not take the rest of its lease along. */
static size_t take_pending(struct assay_scheduler *s, struct assay_run *run, size_t length, struct lease *lease)
{
    struct chunk_set *set = run->set;
    uint8_t attempts = set->cells[run->cells[assay_bits_first(&run->pending)]].attempts;
    length = ASSAY_MAX(length >> 3 * attempts, 1);
    while (lease->count < length) {
        size_t index = assay_bits_first(&run->pending);
        s->steps += run->pending.depth;
        if (index == SIZE_MAX || set->cells[run->cells[index]].attempts != attempts)
            break;
        s->chunks[lease->count] = index;
        assay_cell_set_leased(s, set, run->cells[index]);
        lease_hold(lease, run->cells[index]);
    }
    return lease->count;
}

/* Chunks that `late` still holds alone, from its end: its worker goes from the beginning. */
static size_t take_late(struct assay_scheduler *s, struct lease *late, const struct assay_run *run, size_t length,
                        struct lease *lease)
{
    struct chunk_set *set = late->set;
    while (lease->count < length && late->copy_end > 0) {
        uint32_t cell = late->cells[--late->copy_end];
        const struct cell *c = &set->cells[cell];
        bool alone = (c->leases[0] == late->slot && !c->leases[1]) || (c->leases[1] == late->slot && !c->leases[0]);
        size_t index = alone ? assay_cell_index(s, set, cell, run) : SIZE_MAX;
        s->steps++;
        if (index == SIZE_MAX)
            continue;
        s->chunks[lease->count] = index;
        lease_hold(lease, cell);
    }
    return lease->count;
}

static void fill(const struct assay_scheduler *s, const struct lease *lease, struct assay_run *run,
                 struct assay_lease *ret)
{
    *ret = (struct assay_lease){.id = lease->id,
                                .run = run,
                                .chunks = s->chunks,
                                .count = lease->count,
                                .lease_ms = lease_ms_of(lease),
                                .is_copy = lease->is_copy};
}

/* A lease that is late and held by another worker: the first of the heap, or one of the two behind it. */
static struct lease *find_late(const struct queue *queue, const struct client *client, int64_t now_ms)
{
    for (size_t i = 1; queue && i <= 3 && i <= queue->late.count; i++) {
        struct lease *lease = ASSAY_HEAP_OWNER(queue->late.at[i], struct lease, in_late);
        if (lease->in_late.key <= now_ms && lease->client != client &&
            !assay_client_refusal(client, &lease->set->variant))
            return lease;
    }
    return NULL;
}

/* A run of the set that may be lent from. */
static struct assay_run *run_for_copy(const struct lease *late)
{
    if (late->run && !late->run->paused)
        return late->run;
    for (size_t i = 0; i < late->set->runs_slots; i++)
        if (late->set->runs[i] && !late->set->runs[i]->paused)
            return late->set->runs[i];
    return NULL;
}

static bool copy_late(struct assay_scheduler *s, const struct assay_ask *ask, struct client *client, int64_t now_ms,
                      struct assay_lease *ret)
{
    enum { TRIES = 4 };
    const struct queue *queue = assay_queue_find(s, ask->precision, ask->numerics_id);
    for (int i = 0; i < TRIES; i++) {
        struct lease *late = find_late(queue, client, now_ms);
        struct assay_run *run = late ? run_for_copy(late) : NULL;
        if (late && !run) {
            late->in_late.key = now_ms + LATE_MIN_MS;
            assay_heap_moved(&late->set->queue->late, &late->in_late);
            continue;
        }
        size_t length = late ? ASSAY_MIN(ASSAY_MIN(late->left, ask->chunks_max), ASSAY_LEASE_CHUNKS_MAX) : 0;
        struct lease *lease = late ? lease_new(s, client, late->set, run, ASSAY_MAX(length, 1)) : NULL;
        if (!lease)
            return false;
        lease->is_copy = true;
        size_t taken = take_late(s, late, run, length, lease);
        if (late->copy_end == 0)
            assay_heap_remove(&late->set->queue->late, &late->in_late);
        if (taken > 0) {
            lease_begin(s, lease, now_ms);
            fill(s, lease, run, ret);
            return true;
        }
        assay_lease_end(s, lease, LEASE_OUTRUN);
    }
    return false;
}

bool assay_scheduler_lease(struct assay_scheduler *scheduler, const struct assay_ask *ask, int64_t now_ms,
                           struct assay_lease *ret, struct assay_err *err)
{
    scheduler->stats.decisions++;
    if (ask->chunks_max == 0)
        return false;
    struct assay_run *run = assay_turn_choose(scheduler, ask);
    if (!run && !assay_scheduler_has_work(scheduler, ask->precision, ask->numerics_id, now_ms))
        return false;
    struct client *client = client_get(scheduler, ask->service_id);
    if (client && !run)
        return copy_late(scheduler, ask, client, now_ms, ret);
    struct chunk_set *set = run ? run->set : NULL;
    bool fixed = client && (set->queue->numerics[0] || assay_turn_fix(scheduler, set, ask->numerics_id));
    size_t length = fixed ? lease_length(ask, client, run) : 0;
    struct lease *lease = fixed ? lease_new(scheduler, client, set, run, length) : NULL;
    if (!lease) {
        assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a lease of %zu chunks", length);
        return false;
    }
    take_pending(scheduler, run, length, lease);
    lease_begin(scheduler, lease, now_ms);
    fill(scheduler, lease, run, ret);
    return true;
}

/* --- taking back --- */

static void note_rate(struct lease *lease, size_t count, uint64_t compute_us, int64_t now_ms)
{
    if (count == 0)
        return;
    double us = (double)(compute_us ? compute_us : (uint64_t)(now_ms - lease->heard_ms) * 1000) / (double)count;
    us = ASSAY_MAX(us, 1);
    struct client *client = lease->client;
    struct chunk_set *set = lease->set;
    if (client->rate_set != set->serial)
        client->us_per_chunk = 0;
    client->rate_set = set->serial;
    client->us_per_chunk += (client->us_per_chunk > 0 ? RATE_WEIGHT : 1) * (us - client->us_per_chunk);
    set->us_per_chunk += (set->us_per_chunk > 0 ? RATE_WEIGHT : 1) * (us - set->us_per_chunk);
}

bool assay_scheduler_complete(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                              const struct assay_chunk_key *keys, size_t count, uint64_t compute_us, int64_t now_ms,
                              struct assay_run **ret_run, size_t *ret_newly)
{
    struct lease *lease = lease_find(scheduler, service_id, lease_id);
    if (!lease)
        return false;
    struct chunk_set *set = lease->set;
    size_t newly = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t cell = assay_cell_find(scheduler, set, &keys[i]);
        const struct cell *c = &set->cells[cell];
        if (!cell || c->state != CELL_LEASED || (c->leases[0] != lease->slot && c->leases[1] != lease->slot))
            continue;
        assay_cell_release(scheduler, set, cell, lease, LEASE_OUTRUN);
        assay_cell_set_done(scheduler, set, cell, lease->run);
        newly++;
    }
    scheduler->stats.chunks_done += newly;
    note_rate(lease, count, compute_us, now_ms);
    *ret_run = lease->run;
    *ret_newly = newly;
    if (lease->left == 0) {
        assay_lease_end(scheduler, lease, LEASE_COMPLETED);
        return true;
    }
    lease_heard(lease, now_ms);
    assay_heap_moved(&scheduler->deadlines, &lease->in_deadlines);
    if (lease->in_late.place)
        assay_heap_moved(&set->queue->late, &lease->in_late);
    return true;
}

/* Another worker alone holds what both held: if it is late, a third one may help. */
static void now_alone(struct assay_scheduler *s, uint32_t slot)
{
    struct lease *other = s->leases[slot];
    other->copy_end = other->count;
    if (other->in_late.place == 0)
        assay_heap_push(&other->set->queue->late, &other->in_late);
}

/* The chunks of a lease that nobody else holds become pending, or dead when they came back too often. Ends the lease.
 */
static void return_lease(struct assay_scheduler *s, struct lease *lease, bool counts, const char *reason,
                         enum lease_end how)
{
    struct chunk_set *set = lease->set;
    size_t returned = 0;
    for (size_t i = 0; i < lease->count && lease->left > 0; i++) {
        uint32_t cell = lease->cells[i];
        struct cell *c = &set->cells[cell];
        int k = c->leases[1] == lease->slot;
        if (c->leases[k] != lease->slot)
            continue;
        c->leases[k] = 0;
        lease->left--;
        c->attempts = (uint8_t)ASSAY_MIN(c->attempts + counts, ASSAY_CHUNK_ATTEMPTS_MAX);
        if (c->leases[!k]) {
            now_alone(s, c->leases[!k]);
            continue;
        }
        s->stats.chunks_on_loan--;
        returned++;
        if (c->attempts >= ASSAY_CHUNK_ATTEMPTS_MAX)
            assay_cell_set_dead(s, set, cell, reason);
        else
            assay_cell_set_pending(s, set, cell);
    }
    s->stats.chunks_retried += returned;
    if (lease->run && !lease->is_copy)
        assay_turn_charge(lease->run->flow, -lease->charged_us * (int64_t)returned);
    assay_lease_end(s, lease, how);
}

bool assay_scheduler_return(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id, bool counts,
                            const char *reason)
{
    struct lease *lease = lease_find(scheduler, service_id, lease_id);
    if (!lease)
        return false;
    return_lease(scheduler, lease, counts, reason, LEASE_RETURNED);
    return true;
}

const char *assay_client_refusal(const struct client *client, const struct assay_variant_id *variant)
{
    for (size_t i = 0; i < client->refusals_count; i++)
        if (assay_digest_equal(&client->refusals[i].variant.digest, &variant->digest))
            return client->refusals[i].reason;
    return NULL;
}

/* False: out of memory. */
static bool note_refusal(struct client *client, const struct assay_variant_id *variant, const char *reason)
{
    if (client->refusals_count < REFUSALS_MAX) {
        struct refusal *grown = realloc(client->refusals, (client->refusals_count + 1) * sizeof *grown);
        if (!grown)
            return false;
        client->refusals = grown;
    } else {
        memmove(client->refusals, client->refusals + 1, --client->refusals_count * sizeof *client->refusals);
    }
    struct refusal *refusal = &client->refusals[client->refusals_count++];
    refusal->variant = *variant;
    snprintf(refusal->reason, sizeof refusal->reason, "%s", reason);
    return true;
}

bool assay_scheduler_refuse(struct assay_scheduler *scheduler, uint64_t service_id, uint64_t lease_id,
                            const char *reason)
{
    struct lease *lease = lease_find(scheduler, service_id, lease_id);
    if (!lease)
        return false;
    bool noted = note_refusal(lease->client, &lease->set->variant, reason);
    return_lease(scheduler, lease, !noted, reason, LEASE_RETURNED);
    return true;
}

size_t assay_scheduler_keep_leases(struct assay_scheduler *scheduler, uint64_t service_id, const uint64_t *held,
                                   size_t count)
{
    const struct client *client = assay_idmap_get(&scheduler->clients, service_id);
    size_t returned = 0;
    for (struct lease *lease = client ? client->leases : NULL, *next; lease; lease = next) {
        bool is_held = false;
        next = lease->client_next;
        for (size_t i = 0; i < count && !is_held; i++)
            is_held = held[i] == lease->id;
        if (is_held)
            continue;
        return_lease(scheduler, lease, false, "its worker does not have it", LEASE_RETURNED);
        returned++;
    }
    return returned;
}

size_t assay_scheduler_drop_service(struct assay_scheduler *scheduler, uint64_t service_id)
{
    struct client *client = assay_idmap_get(&scheduler->clients, service_id);
    size_t dropped = 0;
    if (!client)
        return 0;
    for (; client->leases; dropped++)
        return_lease(scheduler, client->leases, true, "its worker fell silent", LEASE_DROPPED);
    assay_idmap_remove(&scheduler->clients, service_id);
    free(client->refusals);
    free(client);
    return dropped;
}

size_t assay_scheduler_expire(struct assay_scheduler *scheduler, int64_t now_ms)
{
    size_t expired = 0;
    for (struct assay_heap_node *first; (first = assay_heap_first(&scheduler->deadlines)); expired++) {
        if (first->key > now_ms)
            break;
        return_lease(scheduler, ASSAY_HEAP_OWNER(first, struct lease, in_deadlines), true,
                     "no progress before the lease ended", LEASE_EXPIRED);
    }
    return expired;
}

bool assay_scheduler_has_lease(const struct assay_scheduler *scheduler, uint64_t service_id)
{
    const struct client *client = assay_idmap_get(&scheduler->clients, service_id);
    return client && client->leases;
}
