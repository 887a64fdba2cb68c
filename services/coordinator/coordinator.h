/* The state of the coordinator. One lock guards the registry, the scheduler and the jobs; the loop's thread serves
 * calls, and each running job has a thread that goes through its steps in order. */
#pragma once

#include <pthread.h>

#include "common/store/store.h"
#include "common/wire/client.h"
#include "common/wire/server.h"
#include "services/coordinator/job.h"
#include "services/coordinator/metrics.h"
#include "services/coordinator/registry.h"
#include "services/coordinator/scheduler.h"
#include "services/coordinator/shards.h"

/* Jobs that run at once; others wait, by priority, then in order of submission. A job does not wait for those of lower
 * priority, up to a ceiling of threads. Paused ones do not count. */
#define ASSAY_JOBS_RUNNING_MAX 4
#define ASSAY_JOBS_THREADS_MAX 16
/* Jobs kept in the store and listed. */
#define ASSAY_JOBS_MAX 10000

struct assay_coordinator {
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_store *store;
    char data_dir[ASSAY_PATH_MAX];
    const char *models_root; /* NULL = none; where models may lie that jobs over tcp name */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* CLOCK_MONOTONIC; broadcast when members, runs or jobs changed */
    struct assay_registry registry;
    struct assay_shards shards; /* as on disk; only the loop's thread changes it */
    struct assay_scheduler *scheduler;
    struct assay_job *jobs;   /* newest first */
    struct assay_job *active; /* that have a thread */
    struct assay_heap queue;  /* jobs that wait for one */
    size_t jobs_count, jobs_accepting;
    size_t plans; /* PlanJob calls in the making */
    bool stopping;
    bool wake_posted;
    size_t calls_parked; /* Lease calls that wait for work */

    struct assay_serve *serve; /* the loop thread's own */
    struct assay_coordinator_metrics metrics;
    const char *http;   /* where the pages are, "" = nowhere; NULL before they are */
    int64_t started_ms; /* monotonic */
};

/* Locked: says that members, runs or jobs changed, so that waiting calls and job threads look again. */
void assay_coordinator_changed(struct assay_coordinator *coordinator);

/* --- jobs.c: which jobs run. Locked, unless it says otherwise. --- */

/* No lock. Puts a listed job on disk, answers its SubmitJob and lets it wait for its turn, on a thread of its own.
 * `call` and `corpus` (malloc) are taken over, whatever the outcome. */
enum assay_status assay_jobs_accept(struct assay_job *job, struct assay_call *call, char *corpus, size_t corpus_bytes,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* A job that is not over and has no thread waits for its turn. */
void assay_jobs_enqueue(struct assay_job *job);
/* Gives threads to those whose turn it is. */
void assay_jobs_dispatch(struct assay_coordinator *coordinator);
/* FAILED_PRECONDITION: the job's state does not allow it. A job that is cancelled without a thread is over at once. */
enum assay_status assay_jobs_pause(struct assay_job *job, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_jobs_resume(struct assay_job *job, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_jobs_retry(struct assay_job *job, struct assay_err *err) ASSAY_MUST_USE;
void assay_jobs_cancel(struct assay_job *job, bool keep_partial);
/* Erases the job and takes it out of the list; the caller ends its watchers and frees it. */
enum assay_status assay_jobs_remove(struct assay_job *job, struct assay_err *err) ASSAY_MUST_USE;
/* No lock: waits for all threads. The coordinator is stopping. */
void assay_jobs_join(struct assay_coordinator *coordinator);
/* The job enters a state: on disk, then told. Without a commit it stays as it was on disk, and the log says so. */
void assay_job_enter(struct assay_job *job, Assay__V1__JobState state, const char *text);

/* --- serve.c, serve_work.c, serve_jobs.c: the loop's thread --- */

enum assay_status assay_serve_new(struct assay_coordinator *coordinator, struct assay_err *err) ASSAY_MUST_USE;
void assay_serve_free(struct assay_serve *serve);

/* --- serve_shards.c --- */

/* Reads the map of before from the store; before anything is served. */
enum assay_status assay_coordinator_load_shards(struct assay_coordinator *coordinator,
                                                struct assay_err *err) ASSAY_MUST_USE;
/* Locked: brings the map of evaluators up to date, keeps it and says so when it changed. */
void assay_coordinator_update_shards(struct assay_coordinator *coordinator);

/* --- report.c --- */

/* Fills the record's results, criteria and verdicts from the scores. Locked or before others see the record. False: out
 * of memory. */
bool assay_report_fill(Assay__V1__Job *record);
