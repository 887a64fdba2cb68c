/* A local stack under one data directory: coordinator, quantizer, evaluator and inference workers as child processes.
 * Workers are started as the coordinator asks for them (WatchDemand), besides those planned. Dead children are started
 * again, within bounds. All functions from the main thread. */
#pragma once

#include "common/base/fs.h"

struct assay_stack_options {
    const char *data_dir; /* absolute */
    const char *listen;   /* the coordinator's endpoint; NULL = its socket under data_dir */
    const char *cpus;     /* list for all children, as "0-3"; NULL = all */
    const char *workers;  /* as assay_worker_plans_parse takes; NULL = on demand only */
    const char *http;     /* where each process serves its pages, as assay_stack_http_parse takes; NULL = nowhere */
    const char *public_endpoint; /* where other hosts reach the coordinator, by keys; NULL = not at all */
    const char *external; /* precisions that get no worker on demand, as assay_external_check takes; NULL = none */
    int64_t evaluators;   /* 0 = 1; each keeps a share of the records */
};
/* Evaluators of one local stack. */
#define ASSAY_STACK_EVALUATORS_MAX 16

struct assay_stack;

/* Makes the directories, starts the children, returns when all of them have registered with the coordinator. Errors:
 * INVALID_ARGUMENT (an option), UNAVAILABLE (a stack runs there already, address in use), PERMISSION_DENIED or another
 * of assay_err_errno (the directory), CANCELLED (assay_interrupt_wait), a child's own last sentence and status,
 * DEADLINE_EXCEEDED. Nothing runs any more after a failure. */
enum assay_status assay_stack_start(const struct assay_stack_options *options, struct assay_stack **ret,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* Stops workers, then quantizer and evaluator, then the coordinator: SIGTERM, 10 s each, SIGKILL. NULL is fine. */
void assay_stack_stop(struct assay_stack *stack);

const char *assay_stack_endpoint(const struct assay_stack *stack); /* of the coordinator */

/* OK as long as the stack runs; else why it ended. */
enum assay_status assay_stack_state(struct assay_stack *stack, struct assay_err *err) ASSAY_MUST_USE;

/* What the supervisor did, oldest first: "started inference-int8". False when there is nothing new. */
#define ASSAY_STACK_EVENT_MAX 512
bool assay_stack_next_event(struct assay_stack *stack, char text[ASSAY_STACK_EVENT_MAX]);

/* Starts "assay up" on the data directory as a process that outlives this one, and waits until its coordinator answers.
 */
enum assay_status assay_stack_detach(const char *data_dir, struct assay_err *err) ASSAY_MUST_USE;
