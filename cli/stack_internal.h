/* What stack.c (life of a stack) and stack_supervise.c (its thread) share. */
#pragma once

#include <pthread.h>

#include "cli/child.h"
#include "cli/remote.h"
#include "cli/stack.h"
#include "cli/stack_keys.h"
#include "cli/stack_plan.h"

/* Services besides the workers. */
#define ASSAY_STACK_SERVICES (2 + ASSAY_STACK_EVALUATORS_MAX)
#define ASSAY_STACK_MEMBERS_MAX (ASSAY_STACK_SERVICES + ASSAY_STACK_WORKERS_MAX)
#define ASSAY_STACK_EVENTS_MAX 64

/* Stopped from the last to the first. */
enum assay_stack_rank { ASSAY_RANK_COORDINATOR, ASSAY_RANK_SERVICE, ASSAY_RANK_WORKER };

struct assay_stack_member {
    struct assay_child child;
    enum assay_stack_rank rank;
    char precision[ASSAY_PRECISION_MAX]; /* of a worker */
    size_t evaluator;                    /* its number from 1; 0 = it is none */
    bool on_demand;
    bool ended; /* a worker on demand that ended well: may be asked for again */
    struct assay_restarts restarts;
    int64_t due_ms; /* when to start it, if it does not run */
};

enum assay_stack_phase { ASSAY_STACK_STARTING, ASSAY_STACK_READY, ASSAY_STACK_ENDED };

struct assay_stack {
    char data_dir[ASSAY_PATH_MAX], log_dir[ASSAY_PATH_MAX], program_dir[ASSAY_PATH_MAX], endpoint[ASSAY_PATH_MAX];
    char listen[ASSAY_PATH_MAX], cpus[ASSAY_CPU_LIST_MAX]; /* "" = not given */
    char external[ASSAY_EXTERNAL_MAX], public_endpoint[ASSAY_ADDRESS_BYTES_MAX];
    struct assay_worker_plan plans[ASSAY_STACK_WORKERS_MAX];
    size_t plans_count, evaluators_count;
    struct assay_stack_http http;
    struct assay_stack_keys keys;
    int lock_fd;
    pthread_t supervisor, watcher;
    bool supervisor_runs, watcher_runs;
    struct assay_remote remote;

    /* The supervisor's own. */
    struct assay_stack_member members[ASSAY_STACK_MEMBERS_MAX];
    size_t members_count;
    bool services_started;
    int64_t start_deadline_ms;

    /* Shared. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stop;
    enum assay_stack_phase phase;
    struct assay_err err; /* why it ended */
    char wanted[ASSAY_STACK_WORKERS_MAX][ASSAY_PRECISION_MAX];
    size_t wanted_count;
    char events[ASSAY_STACK_EVENTS_MAX][ASSAY_STACK_EVENT_MAX]; /* the newest replaces the oldest */
    size_t events_written, events_read;
};

/* Thread functions; the argument is the stack. */
void *assay_stack_supervise(void *stack);
void *assay_stack_watch_demand(void *stack);
