/* A job: what was submitted, how far it is, its event log. All functions need the coordinator's lock unless they say
 * otherwise.
 *
 *   queued <--> running --> completed | failed | cancelled --retry--> queued (not from completed)
 *      ^          ^
 *      '-> paused <'
 *
 * Submission and every change of state are on disk before anybody is told. Progress events live in memory only: after a
 * restart their sequence numbers leave a gap, never go back. Each of them says all, so that old ones make room. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/limits.h"
#include "common/store/store.h"
#include "proto/control.pb-c.h"
#include "services/coordinator/heap.h"
#include "services/coordinator/plan.h"
#include "services/coordinator/scheduler.h"

#define ASSAY_JOB_ID_BYTES 16
/* quantize and run for each variant and the reference, and score. */
#define ASSAY_JOB_PHASES_MAX (2 * (ASSAY_JOB_VARIANTS_MAX + 1) + 1)

struct assay_phase {
    char name[ASSAY_SPEC_TEXT_MAX + 16];
    const char *unit;
    uint64_t done, cached, total;
    int64_t started_ms, finished_ms; /* monotonic, 0 = not yet */
};

struct assay_job_event {
    uint64_t sequence;
    bool stored;
    uint8_t *packed;
    size_t bytes;
};

/* What workers reported for one variant of the job. */
struct assay_job_run {
    struct assay_run *run; /* NULL while not in the scheduler */
    char numerics[64];     /* once its run is over */
    struct assay_job *job;
    size_t phase;
    uint64_t epoch; /* of the evaluators that were asked last what they have */
    uint64_t tokens_run, compute_us;
    struct assay_err failure; /* a failure that no retry mends */
};

struct assay_coordinator;

struct assay_job {
    struct assay_job *next;
    struct assay_coordinator *coordinator;
    uint64_t number;        /* of this process: what the scheduler knows it by */
    Assay__V1__Job *record; /* all members on the heap; what is stored and sent */
    pthread_t thread;
    bool accepting;                /* not on disk yet: nobody may know it */
    bool has_thread, thread_over;  /* over: it takes no lock any more and can be joined */
    struct assay_job *next_active; /* has_thread */
    struct assay_heap_node in_queue;
    atomic_bool cancel;
    bool ending;        /* its runs are over */
    bool keeps_partial; /* cancelled: what is there is scored */
    struct assay_phase phases[ASSAY_JOB_PHASES_MAX];
    size_t phases_count;
    bool progressed; /* since the last event */
    struct assay_job_event *events;
    size_t events_count, events_capacity;
    uint64_t next_sequence;
    struct assay_plan plan; /* the job thread's own; empty when it is over */
    struct assay_job_run runs[ASSAY_JOB_VARIANTS_MAX + 1];
};

/* A queued job of this request (copied, without the corpus attachment). NULL when out of memory. No lock. */
struct assay_job *assay_job_new(struct assay_coordinator *coordinator, const Assay__V1__SubmitJobRequest *request);
/* A job from its stored bytes; NULL when they do not unpack. No lock. */
struct assay_job *assay_job_load(struct assay_coordinator *coordinator, const void *bytes, size_t len);
void assay_job_free(struct assay_job *job); /* the thread has ended; NULL is fine */

bool assay_job_has_id(const struct assay_job *job, const void *id, size_t bytes);
/* 32 hexadecimal digits. */
char *assay_job_hex(const struct assay_job *job, char hex[2 * ASSAY_JOB_ID_BYTES + 1]);
bool assay_job_is_over(const struct assay_job *job);
int assay_job_priority(const struct assay_job *job);

/* Writes the record (and corpus, unless NULL) and a durable event. */
enum assay_status assay_job_commit(struct assay_job *job, struct assay_store *store, const void *corpus,
                                   size_t corpus_bytes, const char *text, struct assay_err *err) ASSAY_MUST_USE;
/* Removes the job with its events and its corpus from the store. */
enum assay_status assay_job_erase(struct assay_job *job, struct assay_store *store,
                                  struct assay_err *err) ASSAY_MUST_USE;
/* As it was submitted: without plan, phases, results, failure. Its thread has ended. */
void assay_job_reset(struct assay_job *job);
/* Reads the events that are stored; part of a load. No lock. */
enum assay_status assay_job_load_events(struct assay_job *job, struct assay_store *store,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* The counts of a run that is in the scheduler go into its phase and into the record. What another job ran for both
 * counts as cached. */
void assay_job_note_run(struct assay_job_run *run);
/* Appends a progress event in memory when something changed since the last one. */
void assay_job_note_progress(struct assay_job *job);
/* The first event with a sequence of at least `from`; NULL when there is none yet. Valid while locked. */
const struct assay_job_event *assay_job_event_from(const struct assay_job *job, uint64_t from);

/* Phases are made in order; the index. */
size_t assay_job_add_phase(struct assay_job *job, const char *verb, const char *label, const char *unit,
                           uint64_t total);
void assay_job_advance(struct assay_job *job, size_t phase, uint64_t done, uint64_t cached, uint64_t total);

/* A phase as a message that points into it. */
void assay_job_fill_phase(const struct assay_phase *phase, int64_t now_ms, Assay__V1__Phase *ret);

/* Sets *string to a copy of text (NULL when out of memory), freeing what was there. For records on the heap. */
void assay_job_set_string(char **string, const char *text);
