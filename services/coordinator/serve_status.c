/* What is going on: ListServices, and GetStatus for those who watch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/obs/process.h"
#include "proto/status.pb-c.h"
#include "services/coordinator/serve.h"

/* Jobs in one answer. */
#define JOBS_MAX 256
/* Precisions in one answer. */
#define QUEUES_MAX 64

/* --- services --- */

struct services {
    struct assay_service_message *messages;
    Assay__V1__ServiceInfo **infos;
    size_t count;
    struct assay_service_message coordinator;
};

/* Locked. The coordinator is in no registry, but it is a process like the others. */
static void fill_coordinator(const struct assay_coordinator *c, struct services *services)
{
    struct assay_service_message *message = &services->coordinator;
    struct assay_service *entry = &message->entry;
    int64_t now_ms = assay_now_ms();
    *entry = (struct assay_service){.pid = (uint32_t)getpid(), .seen_ms = now_ms};
    if (gethostname(entry->host, sizeof entry->host - 1) != 0)
        strcpy(entry->host, "unknown");
    snprintf(entry->endpoint, sizeof entry->endpoint, "%s", assay_server_endpoint(c->server));
    snprintf(entry->http, sizeof entry->http, "%s", c->http ? c->http : "");
    entry->counters.cpu_ms = (uint64_t)assay_cpu_ms();
    entry->counters.rss_bytes = assay_process_rss_bytes();
    entry->counters.uptime_ms = (uint64_t)(now_ms - c->started_ms);
    assay_serve_fill_service(message, false, now_ms);
    message->counters = (Assay__V1__ServiceCounters)ASSAY__V1__SERVICE_COUNTERS__INIT;
    message->counters.has_cpu_ms = message->counters.has_rss_bytes = message->counters.has_uptime_ms = true;
    message->counters.cpu_ms = entry->counters.cpu_ms;
    message->counters.rss_bytes = entry->counters.rss_bytes;
    message->counters.uptime_ms = entry->counters.uptime_ms;
    message->registration.has_kind = false;
    message->info.has_service_id = false;
}

/* Locked. False: out of memory. */
static bool fill_services(const struct assay_coordinator *c, struct services *services)
{
    size_t count = c->registry.count;
    *services = (struct services){.messages = calloc(ASSAY_MAX(count, 1), sizeof *services->messages),
                                  .infos = calloc(ASSAY_MAX(count, 1), sizeof(Assay__V1__ServiceInfo *)),
                                  .count = count};
    if (!services->messages || !services->infos)
        return false;
    size_t filled = 0;
    for (int kind = 1; kind < ASSAY_SERVICE_KINDS; kind++) {
        const struct assay_service *entry = NULL;
        while ((entry = assay_registry_next(&c->registry, (enum assay_service_kind)kind, entry))) {
            struct assay_service_message *message = &services->messages[filled];
            message->entry = *entry;
            assay_serve_fill_service(message, assay_scheduler_has_lease(c->scheduler, entry->id), assay_now_ms());
            services->infos[filled++] = &message->info;
        }
    }
    fill_coordinator(c, services);
    return true;
}

static void release_services(struct services *services)
{
    free(services->messages);
    free(services->infos);
}

static void fail_memory(struct assay_call *call, const char *what)
{
    struct assay_err err;
    assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", what);
    assay_call_fail(call, &err);
}

void assay_serve_list_services(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct services services;
    pthread_mutex_lock(&c->lock);
    bool filled = fill_services(c, &services);
    pthread_mutex_unlock(&c->lock);
    if (filled) {
        Assay__V1__ListServicesReply reply = ASSAY__V1__LIST_SERVICES_REPLY__INIT;
        reply.n_services = services.count;
        reply.services = services.infos;
        reply.coordinator = &services.coordinator.info;
        assay_call_reply(call, &reply.base, NULL, 0);
    } else {
        fail_memory(call, "the list of services");
    }
    release_services(&services);
}

/* --- queues --- */

struct queues {
    Assay__V1__QueueStatus messages[QUEUES_MAX], *pointers[QUEUES_MAX];
    size_t count;
};

static Assay__V1__QueueStatus *queue_of(struct queues *queues, const char *precision)
{
    for (size_t i = 0; i < queues->count; i++)
        if (strcmp(queues->messages[i].precision, precision) == 0)
            return &queues->messages[i];
    if (queues->count == QUEUES_MAX)
        return NULL;
    Assay__V1__QueueStatus *queue = &queues->messages[queues->count];
    assay__v1__queue_status__init(queue);
    queue->precision = (char *)(uintptr_t)precision;
    queue->has_pending = queue->has_leased = true;
    queues->pointers[queues->count++] = queue;
    return queue;
}

/* Locked: chunks of one job. */
static void add_job_to_queues(const struct assay_job *job, struct queues *queues)
{
    for (size_t i = 0; i < job->plan.variants_count; i++) {
        const struct assay_run *run = job->runs[i].run;
        Assay__V1__QueueStatus *queue =
            run ? queue_of(queues, assay_scheme_name(job->plan.variants[i].spec.scheme)) : NULL;
        if (!queue)
            continue;
        queue->pending += assay_run_pending(run);
        queue->leased += assay_run_total(run) - assay_run_done(run) - assay_run_pending(run);
    }
}

/* --- jobs --- */

struct job_message {
    Assay__V1__JobStatus message;
    Assay__V1__Phase phases[ASSAY_JOB_PHASES_MAX], *pointers[ASSAY_JOB_PHASES_MAX];
};

struct status_reply {
    Assay__V1__StackStatus message;
    struct services services;
    struct queues queues;
    struct job_message *jobs;
    Assay__V1__JobStatus *pointers[JOBS_MAX];
    size_t jobs_count;
};

/* Locked: strings point into the job. */
static void fill_job(const struct assay_job *job, struct job_message *ret)
{
    Assay__V1__JobStatus *message = &ret->message;
    const Assay__V1__Job *record = job->record;
    int64_t now_ms = assay_now_ms();
    assay__v1__job_status__init(message);
    message->has_job_id = message->has_state = message->has_submitted_wall_ms = true;
    message->job_id = record->job_id;
    message->state = record->state;
    message->submitted_wall_ms = record->submitted_wall_ms;
    message->name = record->request ? record->request->name : NULL;
    message->model_dir = record->request ? record->request->model_dir : NULL;
    message->failure = record->failure;
    for (size_t i = 0; i < job->phases_count; i++) {
        assay_job_fill_phase(&job->phases[i], now_ms, &ret->phases[i]);
        ret->pointers[i] = &ret->phases[i];
    }
    message->n_phases = job->phases_count;
    message->phases = ret->pointers;
}

/* Locked: jobs of one sort, at most `max` of them, the newest first. */
static void add_jobs(const struct assay_coordinator *c, struct status_reply *reply, bool over, size_t max)
{
    for (const struct assay_job *job = c->jobs; job && max > 0 && reply->jobs_count < JOBS_MAX; job = job->next) {
        if (assay_job_is_over(job) != over)
            continue;
        struct job_message *slot = &reply->jobs[reply->jobs_count];
        fill_job(job, slot);
        reply->pointers[reply->jobs_count++] = &slot->message;
        max--;
    }
}

/* Locked. */
static void fill_status(const struct assay_coordinator *c, size_t ended_max, struct status_reply *reply)
{
    Assay__V1__StackStatus *message = &reply->message;
    assay__v1__stack_status__init(message);
    add_jobs(c, reply, false, JOBS_MAX);
    add_jobs(c, reply, true, ended_max);
    for (const struct assay_job *job = c->jobs; job; job = job->next)
        add_job_to_queues(job, &reply->queues);
    message->has_waiting_workers = true;
    message->waiting_workers = c->calls_parked;
    message->coordinator = &reply->services.coordinator.info;
    message->n_services = reply->services.count;
    message->services = reply->services.infos;
    message->n_queues = reply->queues.count;
    message->queues = reply->queues.pointers;
    message->n_jobs = reply->jobs_count;
    message->jobs = reply->pointers;
}

static void get_status(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__GetStatusRequest *request = assay_call_request(call);
    struct status_reply *reply = calloc(1, sizeof *reply);
    if (reply)
        reply->jobs = calloc(JOBS_MAX, sizeof *reply->jobs);
    pthread_mutex_lock(&c->lock);
    bool filled = reply && reply->jobs && fill_services(c, &reply->services);
    if (filled) {
        fill_status(c, request->jobs_max, reply);
        assay_call_reply(call, &reply->message.base, NULL, 0);
    }
    pthread_mutex_unlock(&c->lock);
    if (!filled)
        fail_memory(call, "the status of the stack");
    if (reply) {
        release_services(&reply->services);
        free(reply->jobs);
    }
    free(reply);
}

const assay_method_fn assay_serve_status_methods[] = {get_status};
