/* Which jobs run. A job that is under way either has a thread, or waits in the queue for one, or is paused without one
 * (after a restart, or before its turn came). */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "services/coordinator/driver.h"

static bool is_paused(const struct assay_job *job)
{
    return job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED;
}

/* Locked. */
static void note_ended(const struct assay_job *job)
{
    const char *state = job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED ? "completed"
                        : job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_FAILED  ? "failed"
                                                                                        : "cancelled";
    if (assay_job_is_over(job))
        assay_counter_add(assay_metric_series(job->coordinator->metrics.jobs_ended, &state), 1);
}

/* The state with its commit; on failure the state is what it was. */
static enum assay_status enter(struct assay_job *job, Assay__V1__JobState state, const char *text,
                               struct assay_err *err)
{
    char hex[2 * ASSAY_JOB_ID_BYTES + 1];
    Assay__V1__JobState former = job->record->state;
    job->record->state = state;
    enum assay_status status = assay_job_commit(job, job->coordinator->store, NULL, 0, text, err);
    if (status != ASSAY_OK)
        job->record->state = former;
    else
        assay_log(ASSAY_LOG_INFO, "%s job=%s", text, assay_job_hex(job, hex));
    if (status == ASSAY_OK)
        note_ended(job);
    assay_coordinator_changed(job->coordinator);
    return status;
}

void assay_job_enter(struct assay_job *job, Assay__V1__JobState state, const char *text)
{
    struct assay_err err = ASSAY_ERR_INIT;
    char hex[2 * ASSAY_JOB_ID_BYTES + 1];
    if (enter(job, state, text, &err) == ASSAY_OK)
        return;
    job->record->state = state;
    assay_log(ASSAY_LOG_ERROR, "cannot store a job job=%s state=\"%s\" reason=\"%s\"", assay_job_hex(job, hex), text,
              err.text);
    note_ended(job);
}

/* --- threads --- */

/* On the loop's thread, which packs answers that point into plans without the lock. */
static void release_plan(void *arg)
{
    struct assay_job *job = arg;
    pthread_mutex_lock(&job->coordinator->lock);
    assay_plan_release(&job->plan);
    pthread_mutex_unlock(&job->coordinator->lock);
}

static void *job_main(void *arg)
{
    struct assay_job *job = arg;
    struct assay_coordinator *c = job->coordinator;
    pthread_setname_np(pthread_self(), "assay-job");
    pthread_mutex_lock(&c->lock);
    if (!job->record->has_started_wall_ms) {
        job->record->has_started_wall_ms = true;
        job->record->started_wall_ms = (uint64_t)assay_wall_ms();
    }
    if (!atomic_load(&job->cancel) && !c->stopping && !is_paused(job)) /* it may be, since the thread was started */
        assay_job_enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING, "job running");
    pthread_mutex_unlock(&c->lock);
    assay_driver_run(job);
    assay_loop_call(c->loop, release_plan, job); /* the record has what is asked for later; token ids are many */
    pthread_mutex_lock(&c->lock);
    struct assay_job **at = &c->active;
    while (*at != job)
        at = &(*at)->next_active;
    *at = job->next_active;
    job->thread_over = true;
    assay_jobs_dispatch(c);
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* The thread takes no lock any more. */
static void join_thread(struct assay_job *job)
{
    if (job->has_thread)
        pthread_join(job->thread, NULL);
    job->has_thread = job->thread_over = false;
}

/* Whether the job may have a thread beside those that have one. */
static bool has_turn(const struct assay_coordinator *c, const struct assay_job *job)
{
    size_t threads = 0, ahead = 0;
    for (const struct assay_job *other = c->active; other; other = other->next_active) {
        threads++;
        ahead += !is_paused(other) && assay_job_priority(other) >= assay_job_priority(job);
    }
    return ahead < ASSAY_JOBS_RUNNING_MAX && threads < ASSAY_JOBS_THREADS_MAX;
}

void assay_jobs_dispatch(struct assay_coordinator *c)
{
    struct assay_heap_node *first;
    while (!c->stopping && (first = assay_heap_first(&c->queue))) {
        struct assay_job *job = ASSAY_HEAP_OWNER(first, struct assay_job, in_queue);
        if (!has_turn(c, job))
            return;
        join_thread(job);
        if (pthread_create(&job->thread, NULL, job_main, job) != 0) {
            assay_log(ASSAY_LOG_ERROR, "cannot start the thread of a job, trying on");
            return;
        }
        assay_heap_remove(&c->queue, first);
        job->has_thread = true;
        job->next_active = c->active;
        c->active = job;
    }
}

void assay_jobs_enqueue(struct assay_job *job)
{
    job->in_queue.key = -assay_job_priority(job);
    job->in_queue.order = job->record->submitted_wall_ms;
    assay_heap_push(&job->coordinator->queue, &job->in_queue);
}

void assay_jobs_join(struct assay_coordinator *c)
{
    for (struct assay_job *job = c->jobs; job; job = job->next)
        if (job->has_thread)
            pthread_join(job->thread, NULL);
    pthread_mutex_lock(&c->lock);
    while (c->plans || c->jobs_accepting)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

/* --- accepting --- */

struct acceptance {
    struct assay_job *job;
    struct assay_call *call;
    char *corpus;
    size_t corpus_bytes;
};

static void *accept_main(void *arg)
{
    struct acceptance *acceptance = arg;
    struct assay_job *job = acceptance->job;
    struct assay_coordinator *c = job->coordinator;
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__SubmitJobReply reply = ASSAY__V1__SUBMIT_JOB_REPLY__INIT;
    pthread_mutex_lock(&c->lock);
    enum assay_status status =
        assay_job_commit(job, c->store, acceptance->corpus, acceptance->corpus_bytes, "job accepted", &err);
    reply.has_job_id = true;
    reply.job_id = job->record->job_id;
    job->accepting = false;
    if (status == ASSAY_OK) {
        assay_call_reply(acceptance->call, &reply.base, NULL, 0);
        assay_jobs_enqueue(job);
        assay_jobs_dispatch(c);
    } else {
        job->record->state = ASSAY__V1__JOB_STATE__JOB_STATE_FAILED;
        job->record->request->has_request_id = false; /* whoever asks again asks for another job */
        assay_job_set_string(&job->record->failure, err.text);
        assay_call_fail(acceptance->call, &err);
    }
    c->jobs_accepting--;
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
    free(acceptance->corpus);
    free(acceptance);
    return NULL;
}

enum assay_status assay_jobs_accept(struct assay_job *job, struct assay_call *call, char *corpus, size_t corpus_bytes,
                                    struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    struct acceptance *acceptance = malloc(sizeof *acceptance);
    pthread_t thread;
    pthread_mutex_lock(&c->lock);
    c->jobs_accepting++;
    pthread_mutex_unlock(&c->lock);
    if (acceptance) {
        *acceptance = (struct acceptance){job, call, corpus, corpus_bytes};
        if (pthread_create(&thread, NULL, accept_main, acceptance) == 0) {
            pthread_detach(thread);
            return ASSAY_OK;
        }
    }
    pthread_mutex_lock(&c->lock);
    c->jobs_accepting--;
    pthread_mutex_unlock(&c->lock);
    free(acceptance);
    free(corpus);
    assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot start the thread that stores a job");
    assay_call_fail(call, err);
    return ASSAY_RESOURCE_EXHAUSTED;
}

/* --- control --- */

static void pause_runs(struct assay_job *job, bool paused)
{
    for (size_t i = 0; i < job->plan.variants_count; i++)
        if (job->runs[i].run)
            assay_run_set_paused(job->runs[i].run, paused);
}

static enum assay_status refuse(const struct assay_job *job, const char *what, const char *wanted,
                                struct assay_err *err)
{
    const ProtobufCEnumValue *state =
        protobuf_c_enum_descriptor_get_value(&assay__v1__job_state__descriptor, (int)job->record->state);
    return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "cannot %s a job in state %s, wanted %s", what,
                         state ? state->name : "?", wanted);
}

enum assay_status assay_jobs_pause(struct assay_job *job, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    if (is_paused(job))
        return ASSAY_OK;
    if (assay_job_is_over(job) || job->ending || atomic_load(&job->cancel))
        return refuse(job, "pause", "one that is under way", err);
    enum assay_status status = enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED, "job paused", err);
    if (status != ASSAY_OK)
        return status;
    assay_heap_remove(&c->queue, &job->in_queue);
    pause_runs(job, true);
    assay_jobs_dispatch(c);
    return ASSAY_OK;
}

enum assay_status assay_jobs_resume(struct assay_job *job, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    bool runs = job->has_thread && !job->thread_over;
    if (assay_job_is_over(job))
        return refuse(job, "resume", "a paused one", err);
    if (!is_paused(job))
        return ASSAY_OK;
    enum assay_status status = runs ? enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_RUNNING, "job resumed", err)
                                    : enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED, "job queued again", err);
    if (status != ASSAY_OK)
        return status;
    pause_runs(job, false);
    if (!runs)
        assay_jobs_enqueue(job);
    assay_jobs_dispatch(c);
    return ASSAY_OK;
}

void assay_jobs_cancel(struct assay_job *job, bool keep_partial)
{
    struct assay_coordinator *c = job->coordinator;
    if (assay_job_is_over(job))
        return;
    job->keeps_partial = keep_partial;
    atomic_store(&job->cancel, true);
    if (!job->has_thread || job->thread_over) {
        assay_heap_remove(&c->queue, &job->in_queue);
        job->record->has_finished_wall_ms = true;
        job->record->finished_wall_ms = (uint64_t)assay_wall_ms();
        assay_job_enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED, "job cancelled");
    }
    assay_coordinator_changed(c);
}

enum assay_status assay_jobs_retry(struct assay_job *job, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    bool ended_badly = job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_FAILED ||
                       job->record->state == ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED;
    if (!ended_badly)
        return refuse(job, "retry", "one that failed or was cancelled", err);
    if (job->has_thread && !job->thread_over)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the job is just ending, try again");
    join_thread(job);
    assay_job_reset(job);
    enum assay_status status = enter(job, ASSAY__V1__JOB_STATE__JOB_STATE_QUEUED, "job queued again", err);
    if (status != ASSAY_OK)
        return status;
    assay_jobs_enqueue(job);
    assay_jobs_dispatch(c);
    return ASSAY_OK;
}

enum assay_status assay_jobs_remove(struct assay_job *job, struct assay_err *err)
{
    struct assay_coordinator *c = job->coordinator;
    if (!assay_job_is_over(job))
        return refuse(job, "remove", "one that is over (cancel it first)", err);
    if (job->has_thread && !job->thread_over)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the job is just ending, try again");
    enum assay_status status = assay_job_erase(job, c->store, err);
    if (status != ASSAY_OK)
        return status;
    join_thread(job);
    struct assay_job **at = &c->jobs;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    c->jobs_count--;
    return ASSAY_OK;
}
