/* One thread runs a loop: sockets, timers, functions posted from other threads. */
#pragma once

#include "common/base/status.h"

struct assay_loop;

enum assay_status assay_loop_new(struct assay_loop **ret, struct assay_err *err) ASSAY_MUST_USE;
/* After the loop's thread has ended; servers and clients on it are freed before. NULL is fine. */
void assay_loop_free(struct assay_loop *loop);

/* Runs on the calling thread until assay_loop_stop and until what was posted before has run. */
void assay_loop_run(struct assay_loop *loop);
/* Runs on a thread of its own; assay_loop_stop_join ends it. */
enum assay_status assay_loop_start(struct assay_loop *loop, struct assay_err *err) ASSAY_MUST_USE;
void assay_loop_stop_join(struct assay_loop *loop);

/* Any thread, and from a signal-handling thread; not from a signal handler. */
void assay_loop_stop(struct assay_loop *loop);

typedef void (*assay_loop_fn)(void *arg);
/* Any thread: runs fn(arg) on the loop's thread, in order of posting. What is posted while the loop does not run waits
 * until it does; assay_loop_free drops it. */
void assay_loop_post(struct assay_loop *loop, assay_loop_fn fn, void *arg);
/* Like post, and returns when fn has run. Runs it at once on the loop's thread, and while the loop does not run. */
void assay_loop_call(struct assay_loop *loop, assay_loop_fn fn, void *arg);
bool assay_loop_on_thread(const struct assay_loop *loop);

/* Loop thread (or before it runs). period_ms 0 = once. Never early. The id is 0 only when memory is out: then there is
 * no timer. Cancelling an id that has run, or 0, does nothing. */
uint64_t assay_loop_timer(struct assay_loop *loop, int64_t delay_ms, int64_t period_ms, assay_loop_fn fn, void *arg);
void assay_loop_timer_cancel(struct assay_loop *loop, uint64_t id);
