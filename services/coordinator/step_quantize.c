#include "services/coordinator/driver.h"

#include "common/base/log.h"
#include "proto/variant.pb-c.h"

enum { METHOD_QUANTIZE = 0 };

static void note_progress(struct assay_job *job, size_t index, const Assay__V1__QuantizeReply *reply)
{
    struct assay_coordinator *c = job->coordinator;
    bool cached = reply->summary && reply->summary->was_cached;
    uint64_t total = reply->tensors_total;
    pthread_mutex_lock(&c->lock);
    uint64_t done = reply->summary ? total : ASSAY_MIN(reply->tensors_done, total);
    assay_job_advance(job, index, done, cached ? total : 0, total);
    assay_coordinator_changed(c);
    pthread_mutex_unlock(&c->lock);
}

/* Reads the stream to its end. */
static enum assay_status follow(struct assay_job *job, size_t index, struct assay_stream *stream, struct assay_err *err)
{
    bool summarized = false;
    for (;;) {
        struct assay_reply *reply = NULL;
        enum assay_status status = assay_stream_next(stream, 200, &reply, err);
        if (assay_driver_must_stop(job)) {
            assay_reply_free(reply);
            return assay_err_set(err, ASSAY_CANCELLED, "the job was cancelled");
        }
        if (status == ASSAY_DEADLINE_EXCEEDED && err->text[0] == '\0')
            continue;
        if (status != ASSAY_OK)
            return status;
        if (!reply)
            return summarized
                       ? ASSAY_OK
                       : assay_err_set(err, ASSAY_INTERNAL, "the quantizer ended without the artifact's summary");
        const Assay__V1__QuantizeReply *message = assay_reply_message(reply);
        if (message->summary) {
            status = assay_driver_keep_summary(job, index, message->summary, err);
            summarized = true;
        }
        note_progress(job, index, message);
        assay_reply_free(reply);
        if (status != ASSAY_OK)
            return status;
    }
}

static enum assay_status quantize_once(struct assay_job *job, size_t index, struct assay_err *err)
{
    char endpoint[ASSAY_SHARD_ENDPOINT_MAX];
    enum assay_status status = assay_driver_wait_service(job, ASSAY_SERVICE_QUANTIZER, endpoint, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_client *client = NULL;
    status = assay_client_new(job->coordinator->loop, endpoint, &client, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_variant_message variant;
    assay_variant_message_fill(&job->plan, &job->plan.variants[index], &variant);
    Assay__V1__QuantizeRequest request = ASSAY__V1__QUANTIZE_REQUEST__INIT;
    request.variant = &variant.variant;
    request.model_dir = job->record->request->model_dir;
    struct assay_stream *stream = NULL;
    status = assay_stream_open(client, &assay__v1__quantizer__descriptor, METHOD_QUANTIZE, &request.base, NULL, 16,
                               &stream, err);
    if (status == ASSAY_OK)
        status = follow(job, index, stream, err);
    assay_stream_close(stream);
    assay_client_free(client);
    return status;
}

enum assay_status assay_step_quantize(struct assay_job *job, size_t index, struct assay_err *err)
{
    /* In all a bit more than a minute: time to start the quantizer again, or to make room on a disk that is full. */
    enum { PAUSE_FIRST_MS = 500, PAUSE_MAX_MS = 4000, TRIES_MAX = 20 };
    int64_t pause_ms = PAUSE_FIRST_MS;
    for (int attempt = 1;; attempt++) {
        struct assay_err failure = ASSAY_ERR_INIT;
        enum assay_status status = quantize_once(job, index, &failure);
        bool again = status == ASSAY_UNAVAILABLE || status == ASSAY_ABORTED || status == ASSAY_RESOURCE_EXHAUSTED;
        if (status == ASSAY_OK || !again || attempt == TRIES_MAX) {
            *err = failure;
            return status;
        }
        assay_log(ASSAY_LOG_WARN, "quantizing is tried again variant=%s attempt=%d reason=\"%s\"",
                  job->plan.variants[index].label, attempt, failure.text);
        assay_driver_pause(job, pause_ms);
        pause_ms = ASSAY_MIN(2 * pause_ms, (int64_t)PAUSE_MAX_MS);
    }
}
