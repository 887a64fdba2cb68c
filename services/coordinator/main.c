/* assay-coordinator: plans jobs, leases chunks, keeps jobs and their events. */
#include <malloc.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/wire/service.h"
#include "services/coordinator/coordinator.h"

/* Of memory that was freed, an arena keeps so much, and what is larger has a mapping of its own: a job is planned with
 * tens of megabytes, which are left to whoever needs them next. */
#define KEPT_FREE_BYTES (1 << 20)

struct load_state {
    struct assay_coordinator *coordinator;
    struct assay_job *jobs;
    size_t damaged;
};

static bool load_job(void *arg, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct load_state *state = arg;
    (void)key, (void)key_bytes;
    struct assay_job *job = assay_job_load(state->coordinator, value, value_bytes);
    if (!job) {
        state->damaged++;
        return true;
    }
    job->next = state->jobs;
    state->jobs = job;
    return true;
}

/* By time of submission, newest first. */
static void insert_by_time(struct assay_job **list, struct assay_job *job)
{
    while (*list && (*list)->record->submitted_wall_ms > job->record->submitted_wall_ms)
        list = &(*list)->next;
    job->next = *list;
    *list = job;
}

/* Reads the jobs of the store; those that were under way go on. */
static enum assay_status resume_jobs(struct assay_coordinator *c, struct assay_err *err)
{
    struct load_state state = {c, NULL, 0};
    enum assay_status status = assay_store_visit(c->store, "jobs", "", 0, true, load_job, &state, err);
    while (state.jobs) {
        struct assay_job *job = state.jobs;
        state.jobs = job->next;
        if (status == ASSAY_OK)
            status = assay_job_load_events(job, c->store, err);
        insert_by_time(&c->jobs, job);
    }
    if (state.damaged)
        assay_log(ASSAY_LOG_ERROR, "stored jobs could not be read count=%zu", state.damaged);
    for (struct assay_job *job = c->jobs; job; job = job->next)
        c->jobs_count++;
    if (status == ASSAY_OK && !assay_heap_reserve(&c->queue, c->jobs_count))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu jobs", c->jobs_count);
    if (status != ASSAY_OK)
        return status;
    pthread_mutex_lock(&c->lock);
    for (struct assay_job *job = c->jobs; job; job = job->next)
        if (!assay_job_is_over(job) && job->record->state != ASSAY__V1__JOB_STATE__JOB_STATE_PAUSED)
            assay_jobs_enqueue(job);
    assay_jobs_dispatch(c);
    pthread_mutex_unlock(&c->lock);
    return ASSAY_OK;
}

static enum assay_status open_store(struct assay_service_process *service, struct assay_err *err)
{
    static const char *const tables[] = {"jobs", "events", "corpora", "digests", "rates", "shards", NULL};
    struct assay_coordinator *c = service->arg;
    char dir[ASSAY_PATH_MAX];
    strcpy(c->data_dir, service->data_dir);
    c->loop = service->loop;
    enum assay_status status = assay_path_join(dir, c->data_dir, ASSAY_COORDINATOR_DIR, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_store_options options = {dir, tables, true};
    status = assay_store_open(&options, &c->store, err);
    return status == ASSAY_OK ? assay_coordinator_load_shards(c, err) : status;
}

static enum assay_status prepare(struct assay_service_process *service, struct assay_err *err)
{
    struct assay_coordinator *c = service->arg;
    c->server = service->server;
    c->started_ms = assay_now_ms();
    c->scheduler = assay_scheduler_new();
    if (!c->scheduler)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    return assay_serve_new(c, err);
}

static void measure(struct assay_service_process *service, struct assay_metrics *metrics)
{
    assay_coordinator_measure(service->arg, metrics);
}

static enum assay_status start(struct assay_service_process *service, struct assay_err *err)
{
    struct assay_coordinator *c = service->arg;
    pthread_mutex_lock(&c->lock);
    c->http = assay_observe_url(service->observe);
    pthread_mutex_unlock(&c->lock);
    return resume_jobs(service->arg, err);
}

/* Job threads end at their next look; jobs under way stay as they are on disk and go on at the next start. */
static void drain(struct assay_service_process *service)
{
    struct assay_coordinator *c = service->arg;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    assay_jobs_join(c);
}

static void end(struct assay_service_process *service)
{
    struct assay_coordinator *c = service->arg;
    assay_serve_free(c->serve);
    assay_scheduler_free(c->scheduler);
    while (c->jobs) {
        struct assay_job *next = c->jobs->next;
        assay_job_free(c->jobs);
        c->jobs = next;
    }
    assay_heap_release(&c->queue);
    assay_registry_release(&c->registry);
    assay_store_close(c->store);
}

static void init_lock(struct assay_coordinator *c)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

int main(int argc, char **argv)
{
    static struct assay_coordinator coordinator;
    const struct assay_setting rows[] = {
        {.name = "models",
         .type = ASSAY_SETTING_STRING,
         .target = &coordinator.models_root,
         .argument = "DIR",
         .help = "models that jobs over tcp may name lie below"},
    };
    const struct assay_service_program service = {
        .name = "coordinator",
        .usage = "assay-coordinator [--data DIR] [--listen ENDPOINT]",
        .summary = "Plans jobs, leases chunks to workers, keeps jobs and their events.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
        .is_coordinator = true,
        .open = open_store,
        .prepare = prepare,
        .measure = measure,
        .start = start,
        .drain = drain,
        .close = end,
    };
    mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
    mallopt(M_MMAP_THRESHOLD, KEPT_FREE_BYTES);
    init_lock(&coordinator);
    int code = assay_service_main(&service, argc, argv, &coordinator);
    pthread_cond_destroy(&coordinator.changed);
    pthread_mutex_destroy(&coordinator.lock);
    return code;
}
