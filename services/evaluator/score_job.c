#include "services/evaluator/score_job.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/obs/spans.h"
#include "services/evaluator/score_internal.h"

/* --- arrivals: from the writer's thread to the job's --- */

static void note_arrival(void *arg, const struct assay_record_key *key, uint32_t numerics)
{
    struct score_job *job = arg;
    struct score_arrival arrival = {.numerics = numerics};
    if (!assay_score_plan_find(&job->plan, key, &arrival.unique, &arrival.source))
        return;
    pthread_mutex_lock(&job->lock);
    if (job->arrivals_count == job->arrivals_capacity) {
        size_t capacity = job->arrivals_capacity ? job->arrivals_capacity * 2 : 64;
        struct score_arrival *arrivals = realloc(job->arrivals, capacity * sizeof *arrivals);
        if (arrivals) {
            job->arrivals = arrivals;
            job->arrivals_capacity = capacity;
        }
    }
    if (job->arrivals_count < job->arrivals_capacity)
        job->arrivals[job->arrivals_count++] = arrival;
    else
        job->arrivals_failed = true;
    pthread_cond_signal(&job->arrived);
    pthread_mutex_unlock(&job->lock);
}

static enum assay_status take_arrivals(struct score_job *job, struct assay_err *err)
{
    pthread_mutex_lock(&job->lock);
    struct score_arrival *arrivals = assay_steal(&job->arrivals);
    size_t count = job->arrivals_count;
    bool failed = job->arrivals_failed;
    job->arrivals_count = job->arrivals_capacity = 0;
    pthread_mutex_unlock(&job->lock);
    if (count > 0)
        job->heard_at_ms = assay_now_ms();
    enum assay_status status = ASSAY_OK;
    if (failed)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the arrivals of a job");
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = assay_join_arrived(job->join, arrivals[i].unique, arrivals[i].source, arrivals[i].numerics, err);
    free(arrivals);
    return status;
}

static void wait_for_arrivals(struct score_job *job)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ASSAY_SCORE_PROGRESS_MS / 2 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&job->lock);
    if (job->arrivals_count == 0)
        pthread_cond_timedwait(&job->arrived, &job->lock, &until);
    pthread_mutex_unlock(&job->lock);
}

/* --- beginning --- */

struct present {
    struct score_job *job;
    size_t unique, source;
    enum assay_status status;
    struct assay_err *err;
};

static void note_present(void *arg, uint32_t numerics)
{
    struct present *present = arg;
    if (present->status == ASSAY_OK)
        present->status =
            assay_join_arrived(present->job->join, present->unique, present->source, numerics, present->err);
}

/* Watches first, then looks: a record that comes in between is seen twice, not missed. */
static enum assay_status look(struct score_job *job, struct assay_err *err)
{
    struct present present = {.job = job, .err = err};
    size_t count = job->plan.uniques_count * job->plan.sources_count;
    enum assay_status status = ASSAY_OK;
    job->watch = (struct assay_records_watch){.fn = note_arrival, .arg = job};
    assay_records_watch(job->deps->records, &job->watch);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        status = assay_records_pin(job->deps->records, &job->plan.record_keys[i], err);
        if (status != ASSAY_OK)
            break;
        job->pinned[i] = 1;
        present.unique = i / job->plan.sources_count;
        present.source = i % job->plan.sources_count;
        assay_records_each(job->deps->records, &job->plan.record_keys[i], note_present, &present);
        status = present.status;
    }
    assay_join_start(job->join);
    return status;
}

/* The sets that the caller wants, by source. */
static enum assay_status want_numerics(struct score_job *job, const struct assay_score_spec *spec,
                                       struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; spec->numerics && i <= spec->variants_count && status == ASSAY_OK; i++) {
        uint32_t number, source = i == 0 ? 0 : job->plan.pair_sources[i - 1];
        if (!spec->numerics[i] || !spec->numerics[i][0])
            continue;
        status = assay_records_numerics_number(job->deps->records, spec->numerics[i], &number, err);
        if (status == ASSAY_OK)
            status = assay_join_want(job->join, source, number, err);
    }
    return status;
}

static enum assay_status allocate(struct score_job *job, struct assay_err *err)
{
    const struct assay_score_plan *plan = &job->plan;
    size_t records = plan->uniques_count * plan->sources_count;
    job->heads = calloc(plan->sources_count, sizeof *job->heads);
    job->wrong = calloc(records, 1);
    job->pinned = calloc(records, 1);
    if (!job->heads || !job->wrong || !job->pinned)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job of %zu records", records);
    return job->sink->samples ? ASSAY_OK : score_figures_init(&job->figures, plan, err);
}

static void init_job(struct score_job *job, const struct assay_score_deps *deps, const struct assay_score_sink *sink)
{
    *job = (struct score_job){.deps = deps,
                              .sink = sink,
                              .batch = 1,
                              .sent_at_ms = INT64_MIN / 2,
                              .heard_at_ms = assay_now_ms(),
                              .news = true};
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->arrived, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&job->lock, NULL);
}

static void release_job(struct score_job *job)
{
    assay_records_unwatch(job->deps->records, &job->watch);
    for (size_t i = 0; job->pinned && i < job->plan.uniques_count * job->plan.sources_count; i++)
        if (job->pinned[i])
            assay_records_unpin(job->deps->records, &job->plan.record_keys[i]);
    for (size_t i = 0; job->heads && i < job->plan.sources_count; i++)
        assay_heads_put(job->deps->heads, job->heads[i]);
    score_figures_release(&job->figures);
    free(job->pinned);
    free(job->wrong);
    free(job->heads);
    free(job->arrivals);
    assay_join_free(job->join);
    assay_score_plan_release(&job->plan);
    pthread_cond_destroy(&job->arrived);
    pthread_mutex_destroy(&job->lock);
}

/* --- messages --- */

static bool is_silent(const struct score_job *job)
{
    int64_t silence_ms = job->deps->silence_ms ? job->deps->silence_ms : ASSAY_SCORE_SILENCE_MS;
    return !assay_join_done(job->join) && assay_now_ms() - job->heard_at_ms >= silence_ms;
}

/* Records to be named as lost: those that were found so; after a long silence those that are missing. */
static size_t take_lost(struct score_job *job, struct assay_join_lost *ret, size_t max)
{
    size_t count = assay_join_take_lost(job->join, ret, max);
    if (count == 0 && is_silent(job)) {
        count = assay_join_missing(job->join, ret, max);
        job->heard_at_ms = assay_now_ms();
    }
    return count;
}

static enum assay_status send(struct score_job *job, const struct assay_score_result *results, size_t results_count,
                              struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_join_lost *lost = calloc(ASSAY_SCORE_LOST_MAX, sizeof *lost);
    assay_auto(assay_free_ptr) struct assay_score_lost *named = calloc(ASSAY_SCORE_LOST_MAX, sizeof *named);
    if (!lost || !named)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of lost records");
    size_t lost_count = take_lost(job, lost, ASSAY_SCORE_LOST_MAX);
    for (size_t i = 0; i < lost_count; i++)
        named[i] =
            (struct assay_score_lost){job->plan.sources[lost[i].source].variant, job->plan.unique_keys[lost[i].chunk]};
    struct assay_score_progress progress = {.chunks_done = job->chunks_done,
                                            .chunks_total = job->plan.occurrences_count,
                                            .chunks_cached = job->chunks_cached,
                                            .tokens_scored = job->tokens_scored,
                                            .compute_us = job->compute_us,
                                            .lost = named,
                                            .lost_count = lost_count,
                                            .results = results,
                                            .results_count = results_count};
    job->news = false;
    enum assay_status status = job->sink->send(job->sink->arg, &progress, err);
    job->sent_at_ms = assay_now_ms();
    return status;
}

static enum assay_status send_if_due(struct score_job *job, struct assay_err *err)
{
    bool news = job->news || assay_join_lost_count(job->join) > 0 || is_silent(job);
    if (!news || assay_now_ms() - job->sent_at_ms < ASSAY_SCORE_PROGRESS_MS)
        return ASSAY_OK;
    return send(job, NULL, 0, err);
}

/* --- the end --- */

static enum assay_status send_figures(void *arg, const struct assay_score_result *results, size_t count,
                                      struct assay_err *err)
{
    return send(arg, results, count, err);
}

/* A share names what it scored. */
static enum assay_status send_share(struct score_job *job, const char *const *numerics, size_t variants_count,
                                    struct assay_err *err)
{
    struct assay_score_result *results = calloc(variants_count + 1, sizeof *results);
    if (!results)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the end of a job");
    for (size_t i = 0; i <= variants_count; i++) {
        uint32_t source = i == 0 ? 0 : job->plan.pair_sources[i - 1];
        results[i] = (struct assay_score_result){.variant = job->plan.sources[source].variant,
                                                 .numerics = numerics[source],
                                                 .is_reference = i == 0,
                                                 .is_share = true,
                                                 .dtype = job->dtype};
    }
    enum assay_status status = send(job, results, variants_count + 1, err);
    free(results);
    return status;
}

static enum assay_status end_job(struct score_job *job, const char **numerics, struct assay_dtype_error *errors,
                                 size_t variants_count, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < job->plan.sources_count; i++)
        numerics[i] = assay_records_numerics(job->deps->records, assay_join_numerics(job->join, i));
    for (size_t i = 0; i < variants_count && job->dtype == ASSAY_RECORD_F16 && status == ASSAY_OK; i++)
        status = score_dtype_measure(job, i, &errors[i], err);
    if (status != ASSAY_OK)
        return status;
    if (job->sink->samples)
        return send_share(job, numerics, variants_count, err);
    const struct score_ending ending = {
        &job->plan,    &job->figures, numerics, job->dtype, job->dtype == ASSAY_RECORD_F16 ? errors : NULL,
        variants_count};
    return score_figures_send(&ending, send_figures, job, err);
}

static enum assay_status send_results(struct score_job *job, size_t variants_count, struct assay_err *err)
{
    const char **numerics = calloc(job->plan.sources_count, sizeof *numerics);
    struct assay_dtype_error *errors = calloc(variants_count + 1, sizeof *errors);
    enum assay_status status = numerics && errors
                                   ? end_job(job, numerics, errors, variants_count, err)
                                   : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the end of a job");
    free(errors);
    free(numerics);
    return status;
}

/* --- the middle --- */

/* Larger products are faster, a long call is deaf. */
static void adapt_batch(struct score_job *job, int64_t took_ms)
{
    if (took_ms > ASSAY_SCORE_BATCH_MS)
        job->batch = ASSAY_MAX(job->batch / 2, (size_t)1);
    else if (took_ms < ASSAY_SCORE_BATCH_MS / 4)
        job->batch = ASSAY_MIN(job->batch * 2, (size_t)ASSAY_SCORE_BATCH_MAX);
}

/* Nothing is complete: lost hopes are settled, then we wait. */
static enum assay_status idle(struct score_job *job, struct assay_err *err)
{
    bool changed = false;
    enum assay_status status = assay_join_settle(job->join, &changed, err);
    if (status != ASSAY_OK)
        return status;
    if (changed) {
        job->chunks_done = job->chunks_cached = job->tokens_scored = 0;
        job->news = true;
        return ASSAY_OK;
    }
    if (!assay_join_done(job->join))
        wait_for_arrivals(job);
    return ASSAY_OK;
}

static enum assay_status step(struct score_job *job, struct assay_err *err)
{
    uint32_t uniques[ASSAY_SCORE_BATCH_MAX];
    enum assay_status status = take_arrivals(job, err);
    if (status != ASSAY_OK)
        return status;
    if (job->sink->cancelled(job->sink->arg))
        return assay_err_set(err, ASSAY_CANCELLED, "scoring was cancelled after %llu of %zu chunks",
                             (unsigned long long)job->chunks_done, job->plan.occurrences_count);
    size_t count = assay_join_next(job->join, uniques, job->batch);
    if (count > 0) {
        struct assay_span span;
        int64_t begin_ms = assay_now_ms();
        assay_span_begin(&span, "score.batch", NULL);
        assay_span_number(&span, "chunks", (int64_t)count);
        status = score_batch(job, uniques, count, err);
        assay_span_end(&span);
        adapt_batch(job, assay_now_ms() - begin_ms);
        job->news = true;
    } else {
        status = idle(job, err);
    }
    return status == ASSAY_OK ? send_if_due(job, err) : status;
}

enum assay_status assay_score_run(const struct assay_score_deps *deps, const struct assay_score_spec *spec,
                                  const struct assay_score_sink *sink, struct assay_err *err)
{
    struct score_job job;
    init_job(&job, deps, sink);
    job.dtype = spec->dtype;
    enum assay_status status = assay_score_plan_make(spec, &job.plan, err);
    if (status == ASSAY_OK)
        status = assay_join_new(job.plan.uniques_count, job.plan.sources_count, &job.join, err);
    if (status == ASSAY_OK)
        status = allocate(&job, err);
    if (status == ASSAY_OK)
        status = want_numerics(&job, spec, err);
    if (status == ASSAY_OK)
        status = look(&job, err);
    while (status == ASSAY_OK && !assay_join_done(job.join))
        status = step(&job, err);
    if (status == ASSAY_OK)
        status = send_results(&job, spec->variants_count, err);
    release_job(&job);
    return status;
}
