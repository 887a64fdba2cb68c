/* One pool of threads a process. Work is claimed index by index. A thread without work sleeps; while waits
 * are short or runs are in quick succession, and where each thread has a CPU, it looks for more for a tenth of a
 * millisecond first. */
#pragma once

#include "common/base/status.h"

struct assay_pool;

/* Called once for each index in [0, count), from any of the pool's threads. `thread` < assay_pool_threads(). */
typedef void (*assay_pool_fn)(void *arg, size_t index, size_t thread);

/* threads >= 1 counts the caller of assay_pool_run, which works too. `cpus` is a list as "0-3,8", or NULL for no
 * pinning (the caller's own thread is not pinned). INVALID_ARGUMENT for a bad list or an impossible count. */
enum assay_status assay_pool_new(size_t threads, const char *cpus, struct assay_pool **ret,
                                 struct assay_err *err) ASSAY_MUST_USE;
void assay_pool_free(struct assay_pool *pool); /* NULL is fine; no run may be under way */

size_t assay_pool_threads(const struct assay_pool *pool);

/* Runs fn for all indices and returns when all are done. One run at a time: concurrent callers have their
 * turns in the order in which they came.
 * Not from inside fn. */
void assay_pool_run(struct assay_pool *pool, size_t count, assay_pool_fn fn, void *arg);

/* Between them the caller's runs are in quick succession, of some ten microseconds each: what a step of a decode is
 * made of. Any thread; they may nest. */
void assay_pool_quick_begin(struct assay_pool *pool);
void assay_pool_quick_end(struct assay_pool *pool);

/* CPUs this process may run on (sched_getaffinity), at least 1. */
size_t assay_cpu_count(void);
