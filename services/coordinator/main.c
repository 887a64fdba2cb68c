#include <sodium/core.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/base/settings.h"
#include "common/wire/member.h"
#include "services/coordinator/coordinator.h"

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
    for (struct assay_job *job = c->jobs; job && status == ASSAY_OK; job = job->next) {
        if (assay_job_is_over(job))
            continue;
        void *corpus = NULL;
        size_t bytes;
        status =
            assay_store_get(c->store, "corpora", job->record->job_id.data, ASSAY_JOB_ID_BYTES, &corpus, &bytes, err);
        if (status == ASSAY_OK)
            status = assay_driver_start(job, NULL, corpus, bytes, err);
    }
    return status;
}

static enum assay_status open_store(struct assay_coordinator *c, struct assay_err *err)
{
    static const char *const tables[] = {"jobs", "events", "corpora", "digests", "rates", NULL};
    char dir[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(dir, c->data_dir, ASSAY_COORDINATOR_DIR, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_store_options options = {dir, tables, true};
    return assay_store_open(&options, &c->store, err);
}

static enum assay_status open_server(struct assay_coordinator *c, const char *listen, struct assay_err *err)
{
    char endpoint[ASSAY_PATH_MAX], run_dir[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(run_dir, c->data_dir, ASSAY_RUN_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(run_dir, 0700, err);
    if (status == ASSAY_OK && !listen) {
        status = assay_ipc_endpoint(c->data_dir, ASSAY_COORDINATOR_SOCKET, endpoint, err);
        listen = endpoint;
    }
    if (status == ASSAY_OK)
        status = assay_loop_new(&c->loop, err);
    if (status == ASSAY_OK)
        status = assay_server_new(c->loop, listen, &c->server, err);
    c->local = listen && strncmp(listen, "ipc://", 6) == 0;
    return status;
}

static enum assay_status start(struct assay_coordinator *c, const char *data, const char *listen, struct assay_err *err)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    enum assay_status status = assay_data_dir(data, c->data_dir, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(c->data_dir, 0700, err);
    if (status == ASSAY_OK)
        status = open_store(c, err);
    if (status == ASSAY_OK)
        status = open_server(c, listen, err);
    c->scheduler = assay_scheduler_new();
    if (status == ASSAY_OK && !c->scheduler)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    if (status == ASSAY_OK)
        status = assay_serve_new(c, err);
    if (status == ASSAY_OK)
        status = assay_loop_start(c->loop, err);
    return status == ASSAY_OK ? resume_jobs(c, err) : status;
}

/* Job threads end at their next look; jobs under way stay as they are on disk and go on at the next start. */
static void stop(struct assay_coordinator *c)
{
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    for (struct assay_job *job = c->jobs; job; job = job->next)
        if (job->thread_started)
            pthread_join(job->thread, NULL);
    pthread_mutex_lock(&c->lock);
    while (c->plans)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
    if (c->loop)
        assay_loop_stop_join(c->loop);
    assay_server_free(c->server);
    assay_serve_free(c->serve);
    assay_scheduler_free(c->scheduler);
    while (c->jobs) {
        struct assay_job *next = c->jobs->next;
        assay_job_free(c->jobs);
        c->jobs = next;
    }
    assay_registry_release(&c->registry);
    assay_loop_free(c->loop);
    assay_store_close(c->store);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
}

int main(int argc, char **argv)
{
    const char *data = NULL, *listen = NULL, *models = NULL;
    const struct assay_setting settings[] = {
        {"data", ASSAY_SETTING_STRING, &data, 0, 0, "DIR", "data directory", false},
        {"listen", ASSAY_SETTING_STRING, &listen, 0, 0, "ENDPOINT", "ipc://PATH or tcp://127.0.0.1:PORT", false},
        {"models", ASSAY_SETTING_STRING, &models, 0, 0, "DIR", "models that jobs over tcp may name lie below", false},
    };
    const struct assay_command command = {"assay-coordinator [--data DIR] [--listen ENDPOINT]",
                                          "Plans jobs, leases chunks to workers, keeps jobs and their events.",
                                          settings,
                                          ASSAY_COUNT(settings),
                                          NULL,
                                          0,
                                          0};
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_settings_outcome outcome;
    if (assay_settings_parse(&command, argc, argv, &outcome, &err) != ASSAY_OK) {
        fprintf(stderr, "assay-coordinator: %s\n", err.text);
        return ASSAY_EXIT_USAGE;
    }
    if (outcome == ASSAY_SETTINGS_DONE)
        return ASSAY_EXIT_PASS;
    if (sodium_init() < 0)
        return ASSAY_EXIT_INTERNAL;
    assay_shutdown_prepare();
    assay_log_init("coordinator", ASSAY_LOG_INFO);
    struct assay_coordinator coordinator = {.models_root = models};
    enum assay_status status = start(&coordinator, data, listen, &err);
    if (status == ASSAY_OK) {
        assay_log(ASSAY_LOG_INFO, "ready endpoint=%s", assay_server_endpoint(coordinator.server));
        assay_shutdown_wait();
        assay_log(ASSAY_LOG_INFO, "shutting down");
    } else {
        fprintf(stderr, "assay-coordinator: %s\n", err.text);
    }
    stop(&coordinator);
    return assay_exit_code(status);
}
