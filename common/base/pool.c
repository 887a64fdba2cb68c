#include "common/base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"

/* How long a thread looks for what it waits for before it sleeps: waking it takes longer than a small product does. It
 * does so while waits are short, and while runs are in quick succession: where products are large, or others have the
 * CPU, it would only take time from them. */
#define SPIN_US 100
#define SHORT_WAIT_US 200

struct assay_pool {
    size_t threads;
    size_t started; /* helper threads, threads - 1 when complete */
    pthread_t *helpers;
    bool spins;           /* there is a CPU for each thread */
    pthread_mutex_t lock; /* guards turns, and the changes that sleepers wait for */
    pthread_cond_t turn_changed;
    uint64_t turns_taken, turns_over; /* callers of runs, in the order in which they came */
    pthread_cond_t work_ready;
    pthread_cond_t work_done;
    atomic_uint_fast64_t generation; /* counts runs; what follows is of the current one */
    atomic_size_t busy;              /* helpers still in it */
    atomic_size_t quick;             /* callers whose runs are in quick succession */
    atomic_bool stop;
    assay_pool_fn fn;
    void *arg;
    size_t count;
    atomic_size_t next;
    int64_t waited_us; /* for the helpers, by the last caller */
};

struct helper_start {
    struct assay_pool *pool;
    size_t thread;
};

static void claim_all(struct assay_pool *pool, size_t thread)
{
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count)
            return;
        pool->fn(pool->arg, index, thread);
    }
}

static bool has_work(const struct assay_pool *pool, uint64_t seen)
{
    return atomic_load(&pool->stop) || atomic_load(&pool->generation) != seen;
}

static bool is_done(const struct assay_pool *pool, uint64_t unused)
{
    (void)unused;
    return atomic_load(&pool->busy) == 0;
}

/* Tells the CPU that a thread waits for another. */
static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool spin(const struct assay_pool *pool, bool (*holds)(const struct assay_pool *pool, uint64_t seen),
                 uint64_t seen, int64_t until_us)
{
    while (!holds(pool, seen)) {
        if (assay_now_us() >= until_us)
            return false;
        relax();
    }
    return true;
}

/* Waits until `holds`; who makes it hold signals `changed`, with the lock held, behind it. *waited_us is what it took
 * the last time, and becomes what it took now. */
static void await(struct assay_pool *pool, bool (*holds)(const struct assay_pool *pool, uint64_t seen), uint64_t seen,
                  pthread_cond_t *changed, int64_t *waited_us)
{
    int64_t begin_us = assay_now_us();
    bool looks = pool->spins && (*waited_us < SHORT_WAIT_US || atomic_load(&pool->quick) > 0);
    if (!looks || !spin(pool, holds, seen, begin_us + SPIN_US)) {
        pthread_mutex_lock(&pool->lock);
        while (!holds(pool, seen))
            pthread_cond_wait(changed, &pool->lock);
        pthread_mutex_unlock(&pool->lock);
    }
    *waited_us = assay_now_us() - begin_us;
}

static void *helper_main(void *arg)
{
    struct helper_start start = *(struct helper_start *)arg;
    free(arg);
    struct assay_pool *pool = start.pool;
    int64_t waited_us = 0;
    for (uint64_t seen = 0;; seen++) {
        await(pool, has_work, seen, &pool->work_ready, &waited_us);
        if (atomic_load(&pool->stop))
            return NULL;
        claim_all(pool, start.thread);
        if (atomic_fetch_sub(&pool->busy, 1) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->work_done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* "0-3,8" -> set. */
static enum assay_status parse_cpus(const char *text, cpu_set_t *set, struct assay_err *err)
{
    CPU_ZERO(set);
    const char *p = text;
    while (*p) {
        char *end;
        errno = 0;
        unsigned long first = strtoul(p, &end, 10), last = first;
        bool valid = end != p && *p != '-' && *p != '+' && *p != ' ';
        if (valid && *end == '-') {
            p = end + 1;
            last = strtoul(p, &end, 10);
            valid = end != p && *p != '-' && *p != '+' && *p != ' ';
        }
        if (!valid || last < first || last >= CPU_SETSIZE || (*end != ',' && *end != '\0'))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a CPU list looks like 0-3,8, found '%s'", text);
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, set);
        p = *end == ',' ? end + 1 : end;
    }
    return ASSAY_OK;
}

static enum assay_status start_helpers(struct assay_pool *pool, const cpu_set_t *set, struct assay_err *err)
{
    for (size_t i = 0; i + 1 < pool->threads; i++) {
        struct helper_start *start = malloc(sizeof *start);
        if (!start)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a pool of %zu threads",
                                 pool->threads);
        *start = (struct helper_start){pool, i + 1};
        int failed = pthread_create(&pool->helpers[i], NULL, helper_main, start);
        if (failed) {
            free(start);
            return assay_err_errno(err, failed, "cannot start thread %zu of %zu", i + 1, pool->threads);
        }
        pool->started++;
        if (set) {
            int refused = pthread_setaffinity_np(pool->helpers[i], sizeof *set, set);
            if (refused)
                return assay_err_errno(err, refused, "cannot pin a thread to the CPUs given");
        }
    }
    return ASSAY_OK;
}

enum assay_status assay_pool_new(size_t threads, const char *cpus, struct assay_pool **ret, struct assay_err *err)
{
    if (threads < 1 || threads > ASSAY_POOL_THREADS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a pool has 1 to %d threads, found %zu",
                             ASSAY_POOL_THREADS_MAX, threads);
    cpu_set_t set;
    if (cpus) {
        enum assay_status status = parse_cpus(cpus, &set, err);
        if (status != ASSAY_OK)
            return status;
    }
    struct assay_pool *pool = calloc(1, sizeof *pool);
    pthread_t *helpers = calloc(threads, sizeof *helpers);
    if (!pool || !helpers) {
        free(pool);
        free(helpers);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a pool of %zu threads", threads);
    }
    pool->threads = threads;
    pool->helpers = helpers;
    pool->spins = threads <= assay_cpu_count();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->turn_changed, NULL);
    pthread_cond_init(&pool->work_ready, NULL);
    pthread_cond_init(&pool->work_done, NULL);
    enum assay_status status = start_helpers(pool, cpus ? &set : NULL, err);
    if (status != ASSAY_OK) {
        assay_pool_free(pool);
        return status;
    }
    *ret = pool;
    return ASSAY_OK;
}

void assay_pool_free(struct assay_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->work_ready);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->started; i++)
        pthread_join(pool->helpers[i], NULL);
    pthread_cond_destroy(&pool->work_done);
    pthread_cond_destroy(&pool->work_ready);
    pthread_cond_destroy(&pool->turn_changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool->helpers);
    free(pool);
}

size_t assay_pool_threads(const struct assay_pool *pool)
{
    return pool->threads;
}

void assay_pool_run(struct assay_pool *pool, size_t count, assay_pool_fn fn, void *arg)
{
    pthread_mutex_lock(&pool->lock);
    /* A mutex would let a caller that runs again and again keep the others waiting. */
    uint64_t turn = pool->turns_taken++;
    while (pool->turns_over != turn)
        pthread_cond_wait(&pool->turn_changed, &pool->lock);
    bool shared = count > 1 && pool->started > 0;
    pool->fn = fn;
    pool->arg = arg;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    if (shared) {
        atomic_store(&pool->busy, pool->started);
        atomic_fetch_add(&pool->generation, 1);
        pthread_cond_broadcast(&pool->work_ready);
    }
    pthread_mutex_unlock(&pool->lock);
    claim_all(pool, 0);
    if (shared)
        await(pool, is_done, 0, &pool->work_done, &pool->waited_us);
    pthread_mutex_lock(&pool->lock);
    pool->turns_over++;
    if (pool->turns_over != pool->turns_taken)
        pthread_cond_broadcast(&pool->turn_changed);
    pthread_mutex_unlock(&pool->lock);
}

void assay_pool_quick_begin(struct assay_pool *pool)
{
    atomic_fetch_add(&pool->quick, 1);
}

void assay_pool_quick_end(struct assay_pool *pool)
{
    atomic_fetch_sub(&pool->quick, 1);
}

size_t assay_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (size_t)ASSAY_MAX(CPU_COUNT(&set), 1);
}
