/* The scheduler's inside: scheduler.c keeps runs and chunks, scheduler_turns.c says whose turn it is,
 * scheduler_lease.c lends. */
#pragma once

#include "services/coordinator/bits.h"
#include "services/coordinator/heap.h"
#include "services/coordinator/idmap.h"
#include "services/coordinator/scheduler.h"

enum cell_state { CELL_FREE, CELL_PENDING, CELL_LEASED, CELL_DONE, CELL_DEAD };

/* One chunk of one set. */
struct cell {
    uint32_t link;      /* the first run that wants it, as an index into links; 0 = none. CELL_FREE: the next free */
    uint32_t leases[2]; /* slots of the leases that hold it, 0 = none */
    uint8_t state;
    uint8_t attempts;
};

/* chunks[index] of runs[run] is this cell. */
struct link {
    uint32_t run, index, next;
};

/* Chunks whose records are the same for all runs that want them: one variant, dtype of records and numerics id. */
struct chunk_set {
    struct chunk_set *next; /* same bucket of the scheduler's map */
    uint64_t serial;
    struct assay_variant_id variant;
    bool f16;
    struct queue *queue; /* says precision and numerics id */
    struct cell *cells;  /* [0] is not used */
    struct assay_chunk_key *keys;
    uint32_t cells_count, cells_capacity, free_cell;
    uint32_t *table; /* by key, open addressing: cells; 0 = free */
    size_t table_size, in_table;
    struct link *links; /* [0] is not used */
    uint32_t links_count, links_capacity, free_link;
    struct assay_run **runs; /* by slot, NULL = free */
    size_t runs_slots, runs_count;
    struct assay_heap ready; /* runs with pending chunks, the oldest first */
    struct lease *leases;
    double us_per_chunk; /* of all workers lately; 0 = not known */
};

struct assay_run {
    struct assay_run *next_changed;
    struct assay_scheduler *scheduler;
    struct chunk_set *set;
    struct flow *flow;
    uint32_t slot; /* in its set */
    uint64_t serial;
    char dead_reason[256];
    void *owner;
    size_t total, done, ran;
    uint32_t *cells; /* by chunk */
    struct assay_bits pending;
    struct assay_heap_node in_flow, in_set;
    bool paused, changed;
};

/* Runs of one job in one queue. */
struct flow {
    struct queue *queue;
    uint64_t job;
    int priority;
    int64_t served_us;      /* work so far / weight: its virtual time */
    size_t runs_count;      /* freed with the last one */
    struct assay_heap runs; /* with pending chunks, the oldest first */
    struct assay_heap_node in_queue;
};

/* What workers of one precision and numerics id can be lent; numerics "" is for runs that have none yet. */
struct queue {
    struct queue *next; /* in its group */
    struct group *group;
    char numerics[64];
    struct assay_idmap flows; /* by job */
    struct assay_heap turns;  /* flows with pending chunks, by served_us */
    struct assay_heap late;   /* leases, by when they are late */
    size_t leases_open;
};

/* One precision. */
struct group {
    struct group *next;
    char precision[32];
    int64_t clock_us; /* virtual time: served_us of the flow that was served last */
    struct queue *queues;
};

/* A model that does not fit into a worker. */
struct refusal {
    struct assay_variant_id variant;
    char reason[256];
};

/* A worker, as far as it has or had leases. */
struct client {
    uint64_t id;
    struct lease *leases;
    uint64_t rate_set; /* serial of the set that us_per_chunk is about */
    double us_per_chunk;
    struct refusal *refusals;
    size_t refusals_count;
};

struct lease {
    struct lease *client_prev, *client_next, *set_prev, *set_next;
    uint64_t id;
    uint32_t slot;
    struct client *client;
    struct chunk_set *set;
    struct assay_run *run; /* for which it was given; NULL when that was removed */
    int64_t heard_ms;      /* of the grant or the last progress */
    int64_t charged_us;    /* to the run's flow, for a chunk */
    bool is_copy;
    struct assay_heap_node in_deadlines, in_late;
    size_t count, left; /* left: chunks that it still holds */
    size_t copy_end;    /* cells from here on are lent twice, or not held any more */
    uint32_t cells[];
};

struct assay_scheduler {
    struct group *groups;
    struct assay_idmap sets, clients;
    struct lease **leases; /* by slot; [0] is not used */
    uint32_t leases_slots, *free_slots;
    size_t free_slots_count;
    struct assay_heap deadlines;
    struct assay_run *changed;
    uint64_t next_serial;
    size_t chunks[ASSAY_LEASE_CHUNKS_MAX]; /* what assay_lease.chunks points to */
    uint64_t steps;
    struct assay_scheduler_stats stats;
};

/* --- scheduler.c --- */

void assay_cell_set_pending(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell);
void assay_cell_set_leased(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell);
void assay_cell_set_done(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, struct assay_run *by);
void assay_cell_set_dead(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, const char *reason);
/* 0 when the set has no such chunk. */
uint32_t assay_cell_find(struct assay_scheduler *s, const struct chunk_set *set, const struct assay_chunk_key *key);
/* The index of the cell in the run; SIZE_MAX when the run does not want it. */
size_t assay_cell_index(struct assay_scheduler *s, const struct chunk_set *set, uint32_t cell,
                        const struct assay_run *run);
void assay_run_note(struct assay_run *run);

/* --- scheduler_turns.c --- */

/* NULL when out of memory. */
struct queue *assay_queue_get(struct assay_scheduler *s, const char *precision, const char *numerics);
const struct queue *assay_queue_find(const struct assay_scheduler *s, const char *precision, const char *numerics);
void assay_queues_free(struct assay_scheduler *s);
/* Puts the run into the flow of its job, making it if need be. False: out of memory. */
bool assay_turn_join(struct assay_run *run, struct queue *queue, uint64_t job, int priority);
void assay_turn_leave(struct assay_run *run);
/* The run has pending chunks and is not paused, or no longer so. */
void assay_turn_refresh(struct assay_run *run);
/* Whose turn it is for this worker; NULL when nobody's. */
struct assay_run *assay_turn_choose(struct assay_scheduler *s, const struct assay_ask *ask);
/* Work was lent to the flow, or (negative) came back. */
void assay_turn_charge(struct flow *flow, int64_t us);
/* The first lease of a set fixes its numerics id. False: out of memory. */
bool assay_turn_fix(struct assay_scheduler *s, struct chunk_set *set, const char *numerics);

/* --- scheduler_lease.c --- */

/* NULL, or why. */
const char *assay_client_refusal(const struct client *client, const struct assay_variant_id *variant);

/* How a lease ends. */
enum lease_end { LEASE_COMPLETED, LEASE_RETURNED, LEASE_EXPIRED, LEASE_DROPPED, LEASE_OUTRUN, LEASE_REMOVED };
void assay_lease_end(struct assay_scheduler *s, struct lease *lease, enum lease_end how);
/* The cell leaves the leases that hold it; those that hold nothing else end. */
void assay_cell_release(struct assay_scheduler *s, struct chunk_set *set, uint32_t cell, struct lease *keep,
                        enum lease_end how);
