#include "services/coordinator/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/coordinator/scheduler_internal.h"

/* --- cells --- */

static size_t home_of(const struct chunk_set *set, const struct assay_chunk_key *key)
{
    uint64_t word;
    memcpy(&word, key->digest.bytes, sizeof word);
    return (size_t)((word * 0x9e3779b97f4a7c15u) >> 20) & (set->table_size - 1);
}

/* Where the key stands in the table, or the free place where it would. */
static size_t place_of(struct assay_scheduler *s, const struct chunk_set *set, const struct assay_chunk_key *key)
{
    size_t at = home_of(set, key);
    while (set->table[at] && !assay_digest_equal(&set->keys[set->table[at]].digest, &key->digest)) {
        at = (at + 1) & (set->table_size - 1);
        s->steps++;
    }
    s->steps++;
    return at;
}

uint32_t assay_cell_find(struct assay_scheduler *s, const struct chunk_set *set, const struct assay_chunk_key *key)
{
    return set->table[place_of(s, set, key)];
}

/* Room for `count` more chunks that one more run wants. */
static bool set_reserve(struct chunk_set *set, size_t count)
{
    size_t cells = (size_t)set->cells_count + count + 1, links = (size_t)set->links_count + count + 1;
    if (cells > UINT32_MAX / 2 || links > UINT32_MAX / 2)
        return false;
    if (cells > set->cells_capacity) {
        struct cell *grown = realloc(set->cells, cells * sizeof *grown);
        if (grown)
            set->cells = grown;
        struct assay_chunk_key *keys = grown ? realloc(set->keys, cells * sizeof *keys) : NULL;
        if (!keys)
            return false;
        set->keys = keys;
        set->cells_capacity = (uint32_t)cells;
    }
    if (links > set->links_capacity) {
        struct link *grown = realloc(set->links, links * sizeof *grown);
        if (!grown)
            return false;
        set->links = grown;
        set->links_capacity = (uint32_t)links;
    }
    return true;
}

static bool table_reserve(struct assay_scheduler *s, struct chunk_set *set, size_t count)
{
    size_t size = ASSAY_MAX(set->table_size, 16);
    while (4 * (set->in_table + count) > 3 * size)
        size *= 2;
    if (size == set->table_size)
        return true;
    uint32_t *former = set->table, *table = calloc(size, sizeof *table);
    size_t former_size = set->table_size;
    if (!table)
        return false;
    set->table = table;
    set->table_size = size;
    for (size_t i = 0; i < former_size; i++)
        if (former[i])
            table[place_of(s, set, &set->keys[former[i]])] = former[i];
    free(former);
    return true;
}

/* The cell of the key, made when there is none: pending, wanted by nobody. Room was reserved. */
static uint32_t cell_get(struct assay_scheduler *s, struct chunk_set *set, const struct assay_chunk_key *key)
{
    size_t at = place_of(s, set, key);
    uint32_t cell = set->table[at];
    if (cell)
        return cell;
    cell = set->free_cell;
    if (cell)
        set->free_cell = set->cells[cell].link;
    else
        cell = ++set->cells_count;
    set->cells[cell] = (struct cell){.state = CELL_PENDING};
    set->keys[cell] = *key;
    set->table[at] = cell;
    set->in_table++;
    s->stats.chunks_pending++;
    return cell;
}

/* Nobody wants the cell any more, and no lease holds it. */
static void cell_free(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell)
{
    size_t mask = set->table_size - 1, hole = place_of(s, set, &set->keys[cell]);
    set->table[hole] = 0;
    set->in_table--;
    for (size_t at = (hole + 1) & mask; set->table[at]; at = (at + 1) & mask) {
        size_t wanted = home_of(set, &set->keys[set->table[at]]);
        if (((at - wanted) & mask) >= ((at - hole) & mask)) {
            set->table[hole] = set->table[at];
            set->table[at] = 0;
            hole = at;
        }
    }
    s->stats.chunks_pending -= set->cells[cell].state == CELL_PENDING;
    set->cells[cell] = (struct cell){.state = CELL_FREE, .link = set->free_cell};
    set->free_cell = cell;
}

static void link_add(struct chunk_set *set, uint32_t cell, uint32_t run, size_t index)
{
    uint32_t link = set->free_link;
    if (link)
        set->free_link = set->links[link].next;
    else
        link = ++set->links_count;
    set->links[link] = (struct link){run, (uint32_t)index, set->cells[cell].link};
    set->cells[cell].link = link;
}

static void link_remove(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, uint32_t run, size_t index)
{
    uint32_t *at = &set->cells[cell].link;
    for (; set->links[*at].run != run || set->links[*at].index != index; at = &set->links[*at].next)
        s->steps++;
    uint32_t link = *at;
    *at = set->links[link].next;
    set->links[link].next = set->free_link;
    set->free_link = link;
}

size_t assay_cell_index(struct assay_scheduler *s, const struct chunk_set *set, uint32_t cell,
                        const struct assay_run *run)
{
    for (uint32_t link = set->cells[cell].link; link; link = set->links[link].next) {
        s->steps++;
        if (set->links[link].run == run->slot)
            return set->links[link].index;
    }
    return SIZE_MAX;
}

void assay_run_note(struct assay_run *run)
{
    if (run->changed)
        return;
    run->changed = true;
    run->next_changed = run->scheduler->changed;
    run->scheduler->changed = run;
}

void assay_cell_set_pending(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell)
{
    struct cell *c = &set->cells[cell];
    s->stats.chunks_pending++;
    for (uint32_t link = c->link; link; link = set->links[link].next) {
        struct assay_run *run = set->runs[set->links[link].run];
        s->steps += run->pending.depth;
        run->done -= c->state == CELL_DONE;
        assay_bits_add(&run->pending, set->links[link].index);
        assay_turn_refresh(run);
        assay_run_note(run);
    }
    c->state = CELL_PENDING;
}

/* The cell is pending no more. */
static void leave_pending(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell)
{
    s->stats.chunks_pending--;
    for (uint32_t link = set->cells[cell].link; link; link = set->links[link].next) {
        struct assay_run *run = set->runs[set->links[link].run];
        s->steps += run->pending.depth;
        assay_bits_remove(&run->pending, set->links[link].index);
        assay_turn_refresh(run);
    }
}

void assay_cell_set_leased(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell)
{
    leave_pending(s, set, cell);
    set->cells[cell].state = CELL_LEASED;
    s->stats.chunks_on_loan++;
}

void assay_cell_set_done(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, struct assay_run *by)
{
    struct cell *c = &set->cells[cell];
    if (c->state == CELL_PENDING)
        leave_pending(s, set, cell);
    c->state = CELL_DONE;
    c->attempts = 0;
    for (uint32_t link = c->link; link; link = set->links[link].next) {
        struct assay_run *run = set->runs[set->links[link].run];
        s->steps++;
        run->done++;
        run->ran += run == by;
        assay_run_note(run);
    }
}

void assay_cell_set_dead(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, const char *reason)
{
    struct cell *c = &set->cells[cell];
    c->state = CELL_DEAD;
    s->stats.chunks_dead++;
    for (uint32_t link = c->link; link; link = set->links[link].next) {
        struct assay_run *run = set->runs[set->links[link].run];
        snprintf(run->dead_reason, sizeof run->dead_reason, "chunk %u of precision %s failed %d times: %s",
                 set->links[link].index, set->queue->group->precision, ASSAY_CHUNK_ATTEMPTS_MAX, reason);
        assay_run_note(run);
    }
}

/* --- sets --- */

static uint64_t bucket_of(const struct assay_variant_id *variant)
{
    uint64_t word;
    memcpy(&word, variant->digest.bytes, sizeof word);
    return word;
}

/* A set that a run of these options may join: its numerics id is the same, or one of the two is not fixed. */
static struct chunk_set *set_find(const struct assay_scheduler *s, const struct assay_run_options *o)
{
    struct chunk_set *open = NULL;
    for (struct chunk_set *set = assay_idmap_get(&s->sets, bucket_of(&o->variant)); set; set = set->next) {
        if (set->f16 != o->f16 || !assay_digest_equal(&set->variant.digest, &o->variant.digest) ||
            strcmp(set->queue->group->precision, o->precision) != 0)
            continue;
        if (strcmp(set->queue->numerics, o->numerics) == 0)
            return set;
        if (o->numerics[0] == '\0' || set->queue->numerics[0] == '\0')
            open = set;
    }
    return open;
}

static void set_free(struct assay_scheduler *s, struct chunk_set *set)
{
    uint64_t bucket = bucket_of(&set->variant);
    struct chunk_set *head = assay_idmap_get(&s->sets, bucket);
    struct chunk_set **at = &head;
    while (*at && *at != set)
        at = &(*at)->next;
    if (*at) {
        *at = set->next;
        /* The id is there already, so that no memory is asked for. */
        if (!head)
            assay_idmap_remove(&s->sets, bucket);
        else if (!assay_idmap_put(&s->sets, bucket, head))
            ASSAY_BUG("a set's place in the map is gone");
    }
    assay_heap_release(&set->ready);
    free(set->cells);
    free(set->keys);
    free(set->table);
    free(set->links);
    free(set->runs);
    free(set);
}

static struct chunk_set *set_new(struct assay_scheduler *s, const struct assay_run_options *o)
{
    struct chunk_set *set = calloc(1, sizeof *set);
    struct queue *queue = assay_queue_get(s, o->precision, o->numerics);
    uint64_t bucket = bucket_of(&o->variant);
    if (set) {
        set->variant = o->variant;
        set->f16 = o->f16;
        set->queue = queue;
        set->serial = s->next_serial++;
        set->next = assay_idmap_get(&s->sets, bucket);
        set->ready.steps = &s->steps;
    }
    if (set && queue && assay_idmap_put(&s->sets, bucket, set))
        return set;
    free(set);
    return NULL;
}

/* A free slot for one more run; false when out of memory. */
static bool slot_take(struct chunk_set *set, struct assay_run *run)
{
    size_t slot = 0;
    while (slot < set->runs_slots && set->runs[slot])
        slot++;
    if (slot == set->runs_slots) {
        struct assay_run **grown = realloc(set->runs, (slot + 4) * sizeof *grown);
        if (!grown)
            return false;
        memset(grown + slot, 0, 4 * sizeof *grown);
        set->runs = grown;
        set->runs_slots = slot + 4;
    }
    if (!assay_heap_reserve(&set->ready, set->runs_count + 1))
        return false;
    set->runs[slot] = run;
    set->runs_count++;
    run->slot = (uint32_t)slot;
    run->set = set;
    return true;
}

/* --- runs --- */

static void run_free(struct assay_run *run)
{
    free(run->cells);
    assay_bits_release(&run->pending);
    free(run);
}

/* One chunk of a new run joins what is known of it. */
static void chunk_join(struct assay_run *run, size_t index, const struct assay_chunk_key *key, bool have)
{
    struct assay_scheduler *s = run->scheduler;
    struct chunk_set *set = run->set;
    uint32_t cell = cell_get(s, set, key);
    if (have && set->cells[cell].state != CELL_DONE && set->cells[cell].state != CELL_LEASED) {
        assay_cell_set_done(s, set, cell, NULL);
    } else if (set->cells[cell].state == CELL_DEAD) {
        set->cells[cell].attempts = 0;
        assay_cell_set_pending(s, set, cell);
    }
    link_add(set, cell, run->slot, index);
    run->cells[index] = cell;
    run->done += set->cells[cell].state == CELL_DONE;
    if (set->cells[cell].state == CELL_PENDING)
        assay_bits_add(&run->pending, index);
}

static struct assay_run *run_new(struct assay_scheduler *s, const struct assay_run_options *o)
{
    struct assay_run *run = calloc(1, sizeof *run);
    if (!run)
        return NULL;
    run->cells = malloc(ASSAY_MAX(o->count, 1) * sizeof *run->cells);
    if (!run->cells || !assay_bits_init(&run->pending, o->count)) {
        run_free(run);
        return NULL;
    }
    run->scheduler = s;
    run->serial = s->next_serial++;
    run->owner = o->owner;
    run->paused = o->paused;
    run->total = o->count;
    return run;
}

static bool run_join(struct assay_run *run, struct chunk_set *set, const struct assay_run_options *o)
{
    struct assay_scheduler *s = run->scheduler;
    if (o->numerics[0] && !set->queue->numerics[0] && !assay_turn_fix(s, set, o->numerics))
        return false;
    if (!set_reserve(set, o->count) || !table_reserve(s, set, o->count) || !slot_take(set, run))
        return false;
    if (!assay_turn_join(run, set->queue, o->job, o->priority)) {
        set->runs[run->slot] = NULL;
        set->runs_count--;
        return false;
    }
    return true;
}

enum assay_status assay_scheduler_add(struct assay_scheduler *scheduler, const struct assay_run_options *options,
                                      struct assay_run **ret, struct assay_err *err)
{
    struct assay_run *run = run_new(scheduler, options);
    struct chunk_set *set = run ? set_find(scheduler, options) : NULL;
    bool fresh = run && !set;
    if (fresh)
        set = set_new(scheduler, options);
    if (!set || !run_join(run, set, options)) {
        if (fresh && set)
            set_free(scheduler, set);
        if (run)
            run_free(run);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a run of %zu chunks", options->count);
    }
    for (size_t i = 0; i < options->count; i++)
        chunk_join(run, i, &options->keys[i], options->have[i]);
    assay_turn_refresh(run);
    scheduler->stats.runs++;
    *ret = run;
    return ASSAY_OK;
}

static void unlist_changed(struct assay_run *run)
{
    struct assay_run **at = &run->scheduler->changed;
    while (run->changed && *at != run)
        at = &(*at)->next_changed;
    if (run->changed)
        *at = run->next_changed;
}

/* The run wants the chunk no more; without anybody who does, it leaves its leases and is forgotten. */
static void chunk_leave(struct assay_run *run, size_t index)
{
    struct assay_scheduler *s = run->scheduler;
    struct chunk_set *set = run->set;
    uint32_t cell = run->cells[index];
    link_remove(s, set, cell, run->slot, index);
    if (set->cells[cell].link)
        return;
    if (set->cells[cell].state == CELL_LEASED)
        assay_cell_release(s, set, cell, NULL, LEASE_REMOVED);
    cell_free(s, set, cell);
}

void assay_scheduler_remove(struct assay_scheduler *scheduler, struct assay_run *run)
{
    struct chunk_set *set = run->set;
    for (struct lease *lease = set->leases; lease; lease = lease->set_next)
        if (lease->run == run)
            lease->run = NULL;
    if (set->runs_count == 1) {
        while (set->leases)
            assay_lease_end(scheduler, set->leases, LEASE_REMOVED);
        scheduler->stats.chunks_pending -= run->pending.members;
    } else {
        for (size_t i = 0; i < run->total; i++)
            chunk_leave(run, i);
    }
    assay_turn_leave(run);
    unlist_changed(run);
    set->runs[run->slot] = NULL;
    if (--set->runs_count == 0)
        set_free(scheduler, set);
    run_free(run);
    scheduler->stats.runs--;
}

void assay_run_reconcile(struct assay_run *run, const uint8_t *have)
{
    struct chunk_set *set = run->set;
    for (size_t i = 0; i < run->total; i++) {
        uint32_t cell = run->cells[i];
        if (set->cells[cell].state == CELL_DONE && !have[i])
            assay_cell_set_pending(run->scheduler, set, cell);
        else if (set->cells[cell].state == CELL_PENDING && have[i])
            assay_cell_set_done(run->scheduler, set, cell, NULL);
    }
}

void assay_run_set_paused(struct assay_run *run, bool paused)
{
    run->paused = paused;
    assay_turn_refresh(run);
}

void assay_run_set_priority(struct assay_run *run, int priority)
{
    run->flow->priority = priority;
}

/* --- the whole --- */

struct assay_scheduler *assay_scheduler_new(void)
{
    struct assay_scheduler *scheduler = calloc(1, sizeof *scheduler);
    if (!scheduler)
        return NULL;
    scheduler->next_serial = 1;
    scheduler->deadlines.steps = &scheduler->steps;
    return scheduler;
}

void assay_scheduler_free(struct assay_scheduler *scheduler)
{
    if (!scheduler)
        return;
    for (size_t i = 0; i < scheduler->sets.capacity; i++) {
        struct chunk_set *set;
        while ((set = scheduler->sets.slots[i].value)) {
            size_t slot = 0;
            while (!set->runs[slot])
                slot++;
            assay_scheduler_remove(scheduler, set->runs[slot]);
        }
    }
    for (size_t i = 0; i < scheduler->clients.capacity; i++) {
        struct client *client = scheduler->clients.slots[i].value;
        if (client)
            free(client->refusals);
        free(client);
    }
    assay_queues_free(scheduler);
    assay_idmap_release(&scheduler->sets);
    assay_idmap_release(&scheduler->clients);
    assay_heap_release(&scheduler->deadlines);
    free(scheduler->leases);
    free(scheduler->free_slots);
    free(scheduler);
}

struct assay_run *assay_scheduler_next_changed(struct assay_scheduler *scheduler)
{
    struct assay_run *run = scheduler->changed;
    if (run) {
        scheduler->changed = run->next_changed;
        run->changed = false;
    }
    return run;
}

void assay_scheduler_stats(const struct assay_scheduler *scheduler, struct assay_scheduler_stats *ret)
{
    *ret = scheduler->stats;
    ret->steps = scheduler->steps;
}

void *assay_run_owner(const struct assay_run *run)
{
    return run->owner;
}

size_t assay_run_total(const struct assay_run *run)
{
    return run->total;
}

size_t assay_run_done(const struct assay_run *run)
{
    return run->done;
}

size_t assay_run_ran(const struct assay_run *run)
{
    return run->ran;
}

size_t assay_run_pending(const struct assay_run *run)
{
    return run->pending.members;
}

const char *assay_run_precision(const struct assay_run *run)
{
    return run->set->queue->group->precision;
}

const char *assay_run_refusal(const struct assay_run *run, uint64_t service_id)
{
    const struct client *client = assay_idmap_get(&run->scheduler->clients, service_id);
    return client ? assay_client_refusal(client, &run->set->variant) : NULL;
}

bool assay_run_has(const struct assay_run *run, size_t chunk)
{
    return run->set->cells[run->cells[chunk]].state == CELL_DONE;
}

const char *assay_run_numerics(const struct assay_run *run)
{
    return run->set->queue->numerics;
}

const char *assay_run_dead_reason(const struct assay_run *run)
{
    return run->dead_reason[0] ? run->dead_reason : NULL;
}
