#include "cli/eval_job.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cli/interrupt.h"
#include "cli/words.h"
#include "common/base/clock.h"
#include "common/wire/spec_message.h"

/* The coordinator digests the model and cuts the corpus before it answers: minutes for the largest. */
#define SUBMIT_MS 1800000
#define SUBMIT_AGAIN_MS 500
#define REQUEST_ID_BYTES 16
#define CALL_MS 30000
#define CANCEL_MS 5000
#define TURN_MS 100
#define WATCH_CREDIT 64

/* --- submit --- */

struct submission {
    struct assay_remote *remote;
    enum assay_coordinator_method method;
    const Assay__V1__SubmitJobRequest *request;
    struct assay_attachment corpus;
    struct assay_reply *reply;
    enum assay_status status;
    struct assay_err err;
    atomic_bool done;
};

static void *submit_thread(void *arg)
{
    struct submission *submission = arg;
    struct assay_call_options options = {
        .deadline_ms = SUBMIT_MS, .attachments = &submission->corpus, .attachments_count = 1};
    submission->status =
        assay_call_unary(submission->remote->client, &assay__v1__coordinator__descriptor, submission->method,
                         &submission->request->base, &options, &submission->reply, &submission->err);
    atomic_store(&submission->done, true);
    return NULL;
}

/* The call blocks its thread; this one waits for it and for an interrupt. */
static enum assay_status send_request(struct assay_eval_job *job, enum assay_coordinator_method method,
                                      const Assay__V1__SubmitJobRequest *request, struct assay_attachment corpus,
                                      struct assay_reply **ret, struct assay_err *err)
{
    struct submission submission = {.remote = job->remote, .method = method, .request = request, .corpus = corpus};
    pthread_t thread;
    bool interrupted = false;
    if (pthread_create(&thread, NULL, submit_thread, &submission) != 0) {
        corpus.release((void *)corpus.data, corpus.hint);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot start a thread");
    }
    while (!atomic_load(&submission.done)) {
        if (!interrupted && assay_interrupt_wait(TURN_MS)) {
            interrupted = true;
            assay_client_cancel_all(job->remote->client);
        } else if (interrupted) {
            break;
        }
    }
    pthread_join(thread, NULL);
    enum assay_status status = submission.status;
    if (interrupted && status != ASSAY_OK)
        status = assay_err_set(err, ASSAY_CANCELLED, "interrupted before the job was accepted");
    else if (status != ASSAY_OK && err)
        *err = submission.err;
    if (status == ASSAY_OK)
        *ret = submission.reply;
    return status;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static enum assay_status read_corpus(const char *path, struct assay_attachment *ret, struct assay_err *err)
{
    char *text = NULL;
    size_t bytes = 0;
    enum assay_status status = assay_file_read(path, ASSAY_CORPUS_BYTES_MAX, &text, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    if (bytes == 0) {
        free(text);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "corpus %s: the file is empty", path);
    }
    *ret = (struct assay_attachment){.data = text, .bytes = bytes, .release = assay_attachment_free};
    return ASSAY_OK;
}

/* SubmitJob and PlanJob take the same request. */
static enum assay_status ask(struct assay_eval_job *job, const struct assay_eval_options *options,
                             enum assay_coordinator_method method, uint8_t request_id[REQUEST_ID_BYTES],
                             struct assay_reply **ret, struct assay_err *err)
{
    struct assay_attachment corpus = {0};
    enum assay_status status = read_corpus(options->corpus_path, &corpus, err);
    if (status != ASSAY_OK)
        return status;
    size_t count = options->variants_count + 1;
    struct assay_spec_message *specs = calloc(count, sizeof *specs);
    Assay__V1__VariantSpec **variants = calloc(count, sizeof *variants);
    Assay__V1__SubmitJobRequest request = ASSAY__V1__SUBMIT_JOB_REQUEST__INIT;
    Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
    Assay__V1__Thresholds thresholds = ASSAY__V1__THRESHOLDS__INIT;
    uint64_t shape = corpus.bytes;
    if (!specs || !variants) {
        free(specs);
        free(variants);
        corpus.release((void *)corpus.data, corpus.hint);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    }
    assay_spec_message_fill(&specs[0], options->reference);
    for (size_t i = 1; i < count; i++) {
        assay_spec_message_fill(&specs[i], options->variants[i - 1]);
        variants[i - 1] = &specs[i].spec;
    }
    tensor.has_dtype = tensor.has_attachment = true;
    tensor.dtype = ASSAY__V1__DTYPE__DTYPE_U8;
    tensor.n_shape = 1;
    tensor.shape = &shape;
    thresholds.has_perplexity_increase_percent = thresholds.has_kl_mean_nats = true;
    thresholds.perplexity_increase_percent = options->perplexity_increase_percent_max;
    thresholds.kl_mean_nats = options->kl_mean_nats_max;
    request.model_dir = (char *)options->model_dir;
    request.reference = &specs[0].spec;
    request.n_variants = options->variants_count;
    request.variants = variants;
    request.corpus_name = (char *)base_name(options->corpus_path);
    request.corpus = &tensor;
    request.protocol = (char *)options->protocol;
    request.has_chunks_max = true;
    request.chunks_max = (uint64_t)options->chunks_max;
    request.thresholds = &thresholds;
    request.name = (char *)options->name;
    request.has_request_id = request_id != NULL;
    request.request_id = (ProtobufCBinaryData){REQUEST_ID_BYTES, request_id};
    request.has_priority = true;
    request.priority = (int32_t)options->priority;
    request.has_record_dtype = true;
    request.record_dtype =
        strcmp(options->record_dtype, "f16") == 0 ? ASSAY__V1__DTYPE__DTYPE_F16 : ASSAY__V1__DTYPE__DTYPE_F32;
    status = send_request(job, method, &request, corpus, ret, err);
    free(specs);
    free(variants);
    return status;
}

/* A coordinator that goes away may have the job already; the id of the request keeps it from having it twice. */
static enum assay_status submit(struct assay_eval_job *job, const struct assay_eval_options *options,
                                struct assay_reply **ret, struct assay_err *err)
{
    uint8_t request_id[REQUEST_ID_BYTES];
    int64_t until_ms = assay_now_ms() + job->away_ms;
    if (getrandom(request_id, sizeof request_id, 0) != sizeof request_id)
        return assay_err_set(err, ASSAY_INTERNAL, "the system gives no random numbers");
    for (;;) {
        struct assay_err why = ASSAY_ERR_INIT;
        enum assay_status status = ask(job, options, ASSAY_COORDINATOR_SUBMIT_JOB, request_id, ret, &why);
        if (status == ASSAY_UNAVAILABLE && assay_now_ms() < until_ms &&
            (!job->stack || assay_stack_state(job->stack, NULL) == ASSAY_OK)) {
            if (!assay_interrupt_wait(SUBMIT_AGAIN_MS))
                continue;
            assay_err_set(&why, ASSAY_CANCELLED, "interrupted before the job was accepted");
        }
        *err = why;
        return why.status;
    }
}

enum assay_status assay_eval_job_submit(struct assay_eval_job *job, const struct assay_eval_options *options,
                                        struct assay_err *err)
{
    struct assay_reply *reply = NULL;
    enum assay_status status = submit(job, options, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__SubmitJobReply *message = assay_reply_message(reply);
    if (message->job_id.len != sizeof job->job_id)
        status = assay_err_set(err, ASSAY_INTERNAL, "SubmitJob: a job id has %zu bytes, found %zu", sizeof job->job_id,
                               message->job_id.len);
    else
        memcpy(job->job_id, message->job_id.data, sizeof job->job_id);
    assay_reply_free(reply);
    return status;
}

enum assay_status assay_eval_job_plan(struct assay_eval_job *job, const struct assay_eval_options *options,
                                      struct assay_reply **ret, struct assay_err *err)
{
    return ask(job, options, ASSAY_COORDINATOR_PLAN_JOB, NULL, ret, err);
}

/* --- watch --- */

static enum assay_status cancel_job(struct assay_eval_job *job, struct assay_err *err)
{
    Assay__V1__CancelJobRequest request = ASSAY__V1__CANCEL_JOB_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    char hex[2 * ASSAY_EVAL_JOB_ID_BYTES + 1];
    char note[200];
    struct assay_err why = ASSAY_ERR_INIT;
    request.has_job_id = true;
    request.job_id = (ProtobufCBinaryData){sizeof job->job_id, job->job_id};
    assay_word_hex(request.job_id, sizeof job->job_id, hex);
    enum assay_status status =
        assay_remote_call(job->remote, ASSAY_COORDINATOR_CANCEL_JOB, &request.base, CANCEL_MS, &reply, &why);
    assay_reply_free(reply);
    if (status != ASSAY_OK)
        return assay_err_set(err, ASSAY_CANCELLED, "interrupted; job %s could not be cancelled: %s", hex, why.text);
    snprintf(note, sizeof note,
             "cancelling job %s; what it has finished stays in the cache, and what is scored will be shown (interrupt "
             "again to leave at once)",
             hex);
    assay_display_note(job->display, note);
    return ASSAY_OK;
}

static void tell_stack_events(struct assay_eval_job *job)
{
    char text[ASSAY_STACK_EVENT_MAX];
    while (job->stack && assay_stack_next_event(job->stack, text))
        assay_display_note(job->display, text);
}

struct watch {
    struct assay_stream *stream;
    int64_t lost_ms;  /* since when the coordinator is away; 0 = it is not known to be */
    int64_t event_ms; /* when last_event came */
    uint64_t next_sequence;
    bool ended; /* the coordinator ends the stream when the job is over */
};

static enum assay_status open_stream(struct assay_eval_job *job, struct watch *watch, struct assay_err *err)
{
    Assay__V1__WatchEventsRequest request = ASSAY__V1__WATCH_EVENTS_REQUEST__INIT;
    request.has_job_id = request.has_from_sequence = true;
    request.job_id = (ProtobufCBinaryData){sizeof job->job_id, job->job_id};
    request.from_sequence = watch->next_sequence;
    return assay_stream_open(job->remote->client, &assay__v1__coordinator__descriptor, ASSAY_COORDINATOR_WATCH_EVENTS,
                             &request.base, NULL, WATCH_CREDIT, &watch->stream, err);
}

static void take_event(struct assay_eval_job *job, struct watch *watch, struct assay_reply *reply)
{
    const Assay__V1__Event *event = assay_reply_message(reply);
    watch->event_ms = assay_now_ms();
    watch->lost_ms = 0;
    watch->next_sequence = event->sequence + 1;
    if (job->on_event)
        job->on_event(event);
    else if (event->text && event->text[0])
        assay_display_note(job->display, event->text);
    assay_reply_free(job->last_event);
    job->last_event = reply;
}

/* One look at the stream. A stream that ended early is opened again while the coordinator may come back. */
static enum assay_status watch_turn(struct assay_eval_job *job, struct watch *watch, struct assay_err *err)
{
    struct assay_err why = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status = watch->stream ? ASSAY_OK : open_stream(job, watch, &why);
    if (status == ASSAY_OK)
        status = assay_stream_next(watch->stream, TURN_MS, &reply, &why);
    if (status == ASSAY_OK && reply) {
        take_event(job, watch, reply);
        return ASSAY_OK;
    }
    if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0])
        return ASSAY_OK;
    assay_stream_close(watch->stream);
    watch->stream = NULL;
    watch->ended = status == ASSAY_OK;
    if (watch->ended)
        return ASSAY_OK;
    bool passing = status == ASSAY_UNAVAILABLE;
    if (passing && !watch->lost_ms)
        watch->lost_ms = assay_now_ms();
    if (passing && assay_now_ms() - watch->lost_ms < job->away_ms)
        return ASSAY_OK;
    if (passing)
        return assay_err_set(err, ASSAY_UNAVAILABLE,
                             "the coordinator has been away for %" PRId64
                             " s; the job goes on where it was when one serves it again: 'assay jobs' lists it",
                             job->away_ms / 1000);
    *err = why;
    return status;
}

enum assay_status assay_eval_job_watch(struct assay_eval_job *job, struct assay_err *err)
{
    struct watch watch = {.next_sequence = ASSAY_MAX(job->from_sequence, 1)};
    bool cancelled = false;
    enum assay_status status = ASSAY_OK;
    while (!watch.ended) {
        status = watch_turn(job, &watch, err);
        tell_stack_events(job);
        if (status == ASSAY_OK && job->stack)
            status = assay_stack_state(job->stack, err);
        if (status == ASSAY_OK && !cancelled && assay_interrupt_wait(watch.stream ? 0 : TURN_MS)) {
            status = cancel_job(job, err);
            cancelled = true;
        }
        if (status == ASSAY_OK && cancelled && assay_interrupt_again())
            status = assay_err_set(err, ASSAY_CANCELLED, "left; the job ends by itself");
        if (status != ASSAY_OK)
            break;
        const Assay__V1__Event *event = job->last_event ? assay_reply_message(job->last_event) : NULL;
        if (!job->on_event)
            assay_display_show(job->display, event, event ? assay_now_ms() - watch.event_ms : 0);
    }
    assay_display_end(job->display);
    assay_stream_close(watch.stream);
    return status;
}

enum assay_status assay_eval_job_fetch(struct assay_eval_job *job, struct assay_reply **ret, struct assay_err *err)
{
    Assay__V1__GetJobRequest request = ASSAY__V1__GET_JOB_REQUEST__INIT;
    request.has_job_id = true;
    request.job_id = (ProtobufCBinaryData){sizeof job->job_id, job->job_id};
    return assay_remote_call(job->remote, ASSAY_COORDINATOR_GET_JOB, &request.base, CALL_MS, ret, err);
}

void assay_eval_job_release(struct assay_eval_job *job)
{
    assay_reply_free(job->last_event);
    job->last_event = NULL;
}
