#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "services/coordinator/serve.h"

#define REQUEST_ID_BYTES 16

struct assay_job *assay_serve_find_job(struct assay_coordinator *coordinator, ProtobufCBinaryData id,
                                       struct assay_err *err)
{
    if (id.len != ASSAY_JOB_ID_BYTES) {
        assay_err_set(err, ASSAY_INVALID_ARGUMENT, "job_id: has %d bytes, found %zu", ASSAY_JOB_ID_BYTES, id.len);
        return NULL;
    }
    for (struct assay_job *job = coordinator->jobs; job; job = job->next)
        if (!job->accepting && assay_job_has_id(job, id.data, id.len))
            return job;
    assay_err_set(err, ASSAY_NOT_FOUND, "there is no such job");
    return NULL;
}

/* Over tcp a path of the coordinator's machine is the caller's only below --models. */
static enum assay_status check_model_dir(const struct assay_coordinator *c, const struct assay_call *call,
                                         const char *dir, struct assay_err *err)
{
    if (assay_call_is_local(call))
        return ASSAY_OK;
    char root[PATH_MAX], real[PATH_MAX];
    size_t len = 0;
    bool inside = c->models_root && realpath(c->models_root, root) && realpath(dir, real);
    if (inside) {
        len = strlen(root);
        inside = strncmp(real, root, len) == 0 && (real[len] == '/' || real[len] == '\0');
    }
    return inside ? ASSAY_OK
                  : assay_err_set(err, ASSAY_PERMISSION_DENIED,
                                  "over tcp a model must lie below the coordinator's --models directory, found %.200s",
                                  dir);
}

enum assay_status assay_serve_check_submit(struct assay_call *call, const struct assay_coordinator *c,
                                           struct assay_bytes *ret_corpus, struct assay_err *err)
{
    const Assay__V1__SubmitJobRequest *request = assay_call_request(call);
    enum assay_status status = assay_plan_check(request, err);
    if (status == ASSAY_OK)
        status = check_model_dir(c, call, request->model_dir, err);
    if (status == ASSAY_OK && request->has_request_id && request->request_id.len != REQUEST_ID_BYTES)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "request_id has %d bytes, found %zu", REQUEST_ID_BYTES,
                               request->request_id.len);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__Tensor *corpus = request->corpus;
    if (!corpus || corpus->dtype != ASSAY__V1__DTYPE__DTYPE_U8 || corpus->attachment >= assay_call_attachments(call))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "corpus: a U8 tensor in an attachment is wanted");
    struct assay_bytes text = assay_call_attachment(call, corpus->attachment);
    if (text.bytes == 0 || text.bytes > ASSAY_CORPUS_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a corpus has 1 to %u bytes, found %zu",
                             ASSAY_CORPUS_BYTES_MAX, text.bytes);
    *ret_corpus = text;
    return ASSAY_OK;
}

/* Locked: adds the job to the list. */
static enum assay_status list_job(struct assay_coordinator *c, struct assay_job *job, struct assay_err *err)
{
    if (c->stopping)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the coordinator is shutting down");
    if (c->jobs_count >= ASSAY_JOBS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "%zu jobs are kept, the most is %d; assay rm removes those that are over", c->jobs_count,
                             ASSAY_JOBS_MAX);
    if (!assay_heap_reserve(&c->queue, c->jobs_count + 1))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu jobs", c->jobs_count + 1);
    job->accepting = true;
    job->next = c->jobs;
    c->jobs = job;
    c->jobs_count++;
    return ASSAY_OK;
}

static bool is_request(const struct assay_job *job, const ProtobufCBinaryData *id)
{
    const Assay__V1__SubmitJobRequest *request = job->record->request;
    return request->has_request_id && request->request_id.len == id->len &&
           memcmp(request->request_id.data, id->data, id->len) == 0;
}

/* A client that lost the answer asks again. True: this call is answered. */
static bool answer_again(struct assay_coordinator *c, struct assay_call *call)
{
    const Assay__V1__SubmitJobRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__SubmitJobReply reply = ASSAY__V1__SUBMIT_JOB_REPLY__INIT;
    bool accepting = false;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = request->has_request_id ? c->jobs : NULL;
    while (job && !is_request(job, &request->request_id))
        job = job->next;
    if (job) {
        accepting = job->accepting;
        reply.has_job_id = true;
        reply.job_id = job->record->job_id;
    }
    if (job && !accepting)
        assay_call_reply(call, &reply.base, NULL, 0);
    pthread_mutex_unlock(&c->lock);
    if (accepting) {
        assay_err_set(&err, ASSAY_UNAVAILABLE, "the job of this request_id is being accepted; ask again");
        assay_call_fail(call, &err);
    }
    return job != NULL;
}

void assay_serve_submit_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_bytes text = {0};
    enum assay_status status = assay_serve_check_submit(call, c, &text, &err);
    if (status == ASSAY_OK && answer_again(c, call))
        return;
    char *corpus = NULL;
    struct assay_job *job = NULL;
    if (status == ASSAY_OK) {
        corpus = malloc(text.bytes);
        job = assay_job_new(c, assay_call_request(call));
        if (!corpus || !job)
            status = assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job of %zu bytes", text.bytes);
    }
    if (status == ASSAY_OK) {
        memcpy(corpus, text.data, text.bytes);
        pthread_mutex_lock(&c->lock);
        status = list_job(c, job, &err);
        pthread_mutex_unlock(&c->lock);
    }
    if (status != ASSAY_OK) {
        free(corpus);
        assay_job_free(job);
        assay_call_fail(call, &err);
        return;
    }
    if (assay_jobs_accept(job, call, corpus, text.bytes, &err) != ASSAY_OK) {
        pthread_mutex_lock(&c->lock);
        c->jobs = job->next;
        c->jobs_count--;
        pthread_mutex_unlock(&c->lock);
        assay_job_free(job);
    }
}

void assay_serve_get_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__GetJobRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = assay_serve_find_job(c, request->job_id, &err);
    if (job)
        assay_call_reply(call, &job->record->base, NULL, 0);
    pthread_mutex_unlock(&c->lock);
    if (!job)
        assay_call_fail(call, &err);
}

/* Locked: a shallow copy without results, with how far it is. */
static Assay__V1__Job summary_of(const struct assay_job *job)
{
    Assay__V1__Job summary = *job->record;
    summary.n_results = 0;
    summary.results = NULL;
    for (size_t i = 0; i < job->plan.variants_count && job->phases_count > 0 && !assay_job_is_over(job); i++) {
        const struct assay_phase *phase = &job->phases[job->runs[i].phase];
        summary.has_chunks_done = summary.has_chunks_planned = true;
        summary.chunks_done += phase->done;
        summary.chunks_planned += phase->total;
    }
    return summary;
}

void assay_serve_list_jobs(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&c->lock);
    size_t count = c->jobs_count;
    Assay__V1__Job *summaries = calloc(ASSAY_MAX(count, 1), sizeof *summaries);
    Assay__V1__Job **pointers = calloc(ASSAY_MAX(count, 1), sizeof *pointers);
    bool filled = summaries && pointers;
    size_t i = 0;
    for (struct assay_job *job = c->jobs; filled && job; job = job->next, i++) {
        summaries[i] = summary_of(job);
        pointers[i] = &summaries[i];
    }
    if (filled) {
        Assay__V1__ListJobsReply reply = ASSAY__V1__LIST_JOBS_REPLY__INIT;
        reply.n_jobs = count;
        reply.jobs = pointers;
        assay_call_reply(call, &reply.base, NULL, 0);
    }
    pthread_mutex_unlock(&c->lock);
    if (!filled) {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu jobs", count);
        assay_call_fail(call, &err);
    }
    free(summaries);
    free(pointers);
}

/* Answers with the job's state, or why there is none. */
static void reply_state(struct assay_call *call, const ProtobufCMessage *reply, enum assay_status status,
                        const struct assay_err *err)
{
    if (status == ASSAY_OK)
        assay_call_reply(call, reply, NULL, 0);
    else
        assay_call_fail(call, err);
}

void assay_serve_cancel_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__CancelJobRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__CancelJobReply reply = ASSAY__V1__CANCEL_JOB_REPLY__INIT;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = assay_serve_find_job(c, request->job_id, &err);
    if (job) {
        assay_jobs_cancel(job, !request->discard);
        reply.has_state = true;
        reply.state = job->record->state;
    }
    pthread_mutex_unlock(&c->lock);
    reply_state(call, &reply.base, err.status, &err);
}

static void control(struct assay_call *call, struct assay_coordinator *c,
                    enum assay_status (*fn)(struct assay_job *, struct assay_err *))
{
    const Assay__V1__JobRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__JobStateReply reply = ASSAY__V1__JOB_STATE_REPLY__INIT;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = assay_serve_find_job(c, request->job_id, &err);
    enum assay_status status = job ? fn(job, &err) : ASSAY_NOT_FOUND;
    reply.has_state = status == ASSAY_OK;
    reply.state = status == ASSAY_OK ? job->record->state : ASSAY__V1__JOB_STATE__JOB_STATE_UNSPECIFIED;
    pthread_mutex_unlock(&c->lock);
    if (status == ASSAY_OK && fn == assay_jobs_remove) {
        assay_serve_unwatch(c->serve, job);
        assay_job_free(job);
    }
    reply_state(call, &reply.base, status, &err);
}

void assay_serve_pause_job(struct assay_call *call, void *service)
{
    control(call, service, assay_jobs_pause);
}

void assay_serve_resume_job(struct assay_call *call, void *service)
{
    control(call, service, assay_jobs_resume);
}

void assay_serve_retry_job(struct assay_call *call, void *service)
{
    control(call, service, assay_jobs_retry);
}

void assay_serve_remove_job(struct assay_call *call, void *service)
{
    control(call, service, assay_jobs_remove);
}
