/* One job of `assay eval`: submitted, watched, cancelled, fetched. Main thread. */
#pragma once

#include "cli/eval_display.h"
#include "cli/eval_options.h"
#include "cli/remote.h"
#include "cli/stack.h"

#define ASSAY_EVAL_JOB_ID_BYTES 16

struct assay_eval_job {
    struct assay_remote *remote;
    struct assay_stack *stack; /* NULL when it is not ours */
    struct assay_display *display;
    int64_t away_ms; /* how long the coordinator may be away */
    uint8_t job_id[ASSAY_EVAL_JOB_ID_BYTES];
    uint64_t from_sequence;                          /* of the events that are watched; 0 = all */
    void (*on_event)(const Assay__V1__Event *event); /* takes each event instead of the display; may be NULL */
    struct assay_reply *last_event;                  /* an Event; NULL before the first */
};

/* Reads the corpus and submits, again while the coordinator is away, at most for away_ms: there is one job all the
 * same. Sets job_id. CANCELLED when interrupted. */
enum assay_status assay_eval_job_submit(struct assay_eval_job *job, const struct assay_eval_options *options,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* A JobPlan of the same request; the caller's to free. Starts nothing. */
enum assay_status assay_eval_job_plan(struct assay_eval_job *job, const struct assay_eval_options *options,
                                      struct assay_reply **ret, struct assay_err *err) ASSAY_MUST_USE;

/* Shows progress until the job is completed, failed or cancelled (all OK). On an interrupt it cancels the job and goes
 * on until that is done; on a second one it leaves at once: CANCELLED. UNAVAILABLE when the coordinator is away for
 * away_ms. Else: why the stack ended. */
enum assay_status assay_eval_job_watch(struct assay_eval_job *job, struct assay_err *err) ASSAY_MUST_USE;

/* A Job; the caller's to free. */
enum assay_status assay_eval_job_fetch(struct assay_eval_job *job, struct assay_reply **ret,
                                       struct assay_err *err) ASSAY_MUST_USE;

void assay_eval_job_release(struct assay_eval_job *job);
