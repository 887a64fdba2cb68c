#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "services/coordinator/serve.h"

struct assay_job *assay_serve_find_job(struct assay_coordinator *coordinator, ProtobufCBinaryData id,
                                       struct assay_err *err)
{
    if (id.len != ASSAY_JOB_ID_BYTES) {
        assay_err_set(err, ASSAY_INVALID_ARGUMENT, "job_id: has %d bytes, found %zu", ASSAY_JOB_ID_BYTES, id.len);
        return NULL;
    }
    for (struct assay_job *job = coordinator->jobs; job; job = job->next)
        if (assay_job_has_id(job, id.data, id.len))
            return job;
    assay_err_set(err, ASSAY_NOT_FOUND, "there is no such job");
    return NULL;
}

/* Over tcp a path of the coordinator's machine is the caller's only below --models. */
static enum assay_status check_model_dir(const struct assay_coordinator *c, const char *dir, struct assay_err *err)
{
    if (c->local)
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
        status = check_model_dir(c, request->model_dir, err);
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
    size_t count = 0;
    for (struct assay_job *other = c->jobs; other; other = other->next)
        count++;
    if (c->stopping)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the coordinator is shutting down");
    if (count >= ASSAY_JOBS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu jobs are kept, the most is %d", count, ASSAY_JOBS_MAX);
    job->next = c->jobs;
    c->jobs = job;
    return ASSAY_OK;
}

void assay_serve_submit_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_bytes text = {0};
    enum assay_status status = assay_serve_check_submit(call, c, &text, &err);
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
    if (assay_driver_start(job, call, corpus, text.bytes, &err) != ASSAY_OK) {
        pthread_mutex_lock(&c->lock);
        c->jobs = job->next;
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

/* A shallow copy without results. */
static Assay__V1__Job summary_of(const Assay__V1__Job *record)
{
    Assay__V1__Job summary = *record;
    summary.n_results = 0;
    summary.results = NULL;
    return summary;
}

void assay_serve_list_jobs(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    struct assay_err err = ASSAY_ERR_INIT;
    size_t count = 0;
    pthread_mutex_lock(&c->lock);
    for (struct assay_job *job = c->jobs; job; job = job->next)
        count++;
    Assay__V1__Job *summaries = calloc(ASSAY_MAX(count, 1), sizeof *summaries);
    Assay__V1__Job **pointers = calloc(ASSAY_MAX(count, 1), sizeof *pointers);
    bool filled = summaries && pointers;
    size_t i = 0;
    for (struct assay_job *job = c->jobs; filled && job; job = job->next, i++) {
        summaries[i] = summary_of(job->record);
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

void assay_serve_cancel_job(struct assay_call *call, void *service)
{
    struct assay_coordinator *c = service;
    const Assay__V1__CancelJobRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    Assay__V1__CancelJobReply reply = ASSAY__V1__CANCEL_JOB_REPLY__INIT;
    pthread_mutex_lock(&c->lock);
    struct assay_job *job = assay_serve_find_job(c, request->job_id, &err);
    if (job) {
        if (!assay_job_is_over(job))
            atomic_store(&job->cancel, true);
        reply.has_state = true;
        reply.state = job->record->state;
        assay_coordinator_changed(c);
    }
    pthread_mutex_unlock(&c->lock);
    if (job)
        assay_call_reply(call, &reply.base, NULL, 0);
    else
        assay_call_fail(call, &err);
}
