#include "services/quantizer/serve.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/artifact/job.h"
#include "common/artifact/kept_digests.h"
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/obs/spans.h"
#include "common/wire/spec_message.h"
#include "proto/variant.pb-c.h"

/* A job has at most 65 variants; a queue for several jobs at once. */
#define QUEUE_MAX 256
/* Progress is for humans. */
#define PROGRESS_PERIOD_MS 200

struct assay_quantizer {
    struct assay_loop *loop;
    struct assay_pool *pool;
    char artifacts_dir[ASSAY_PATH_MAX], digests_dir[ASSAY_PATH_MAX];
    pthread_t thread;
    atomic_bool stopping;
    pthread_mutex_t lock; /* guards the queue */
    pthread_cond_t filled;
    struct assay_call *queue[QUEUE_MAX]; /* a ring */
    size_t first, count;
    struct assay_metric *artifacts, *artifact_bytes, *waiting;
};

/* A call under way, on the thread that makes artifacts. */
struct under_way {
    struct assay_quantizer *quantizer;
    struct assay_call *call;
    int64_t progress_due_ms;
    Assay__V1__QuantizeReply *progress;
};

/* --- messages --- */

static enum assay_status job_from_message(const Assay__V1__QuantizeRequest *request, struct assay_quantize_job *job,
                                          struct assay_err *err)
{
    const Assay__V1__Variant *variant = request->variant;
    if (!variant || !variant->artifact_dir || !request->model_dir)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "variant, variant.artifact_dir and model_dir are wanted");
    job->wanted_dir = variant->artifact_dir;
    job->model_dir = request->model_dir;
    enum assay_status status = assay_digest_from(variant->variant_id.data, variant->variant_id.len, "variant_id",
                                                 &job->variant_id.digest, err);
    if (status == ASSAY_OK)
        status =
            assay_digest_from(variant->model_id.data, variant->model_id.len, "model_id", &job->model_id.digest, err);
    if (status == ASSAY_OK && (!variant->spec || !variant->spec->scheme))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "variant.spec.scheme is missing");
    return status == ASSAY_OK ? assay_spec_of_message(variant->spec, &job->spec, err) : status;
}

static void error_to_message(const struct assay_tensor_error *error, Assay__V1__LayerError *ret)
{
    assay__v1__layer_error__init(ret);
    ret->tensor = (char *)error->tensor;
    ret->has_layer = true;
    ret->layer = error->layer;
    ret->has_cosine = !isnan(error->cosine);
    ret->cosine = error->cosine;
    ret->has_relative_frobenius = !isnan(error->relative_frobenius);
    ret->relative_frobenius = error->relative_frobenius;
    ret->has_max_abs = !isnan(error->max_abs);
    ret->max_abs = error->max_abs;
    ret->has_elements = true;
    ret->elements = error->elements;
}

static void summary_to_message(const struct assay_manifest *manifest, bool was_cached, Assay__V1__ArtifactSummary *ret)
{
    assay__v1__artifact_summary__init(ret);
    ret->has_source_bytes = ret->has_artifact_bytes = ret->has_code_bytes = ret->has_scale_bytes = true;
    ret->has_kept_bytes = ret->has_parameters = ret->has_was_cached = ret->has_wall_us = ret->has_fp16_bytes = true;
    ret->source_bytes = manifest->source_bytes;
    ret->artifact_bytes = manifest->artifact_bytes;
    ret->code_bytes = manifest->code_bytes;
    ret->scale_bytes = manifest->scale_bytes;
    ret->kept_bytes = manifest->kept_bytes;
    ret->parameters = manifest->parameters;
    ret->was_cached = was_cached;
    ret->wall_us = was_cached ? 0 : manifest->wall_us;
    ret->fp16_bytes = 2 * manifest->parameters;
}

/* --- the thread that makes artifacts --- */

static bool is_unwanted(void *arg)
{
    const struct under_way *way = arg;
    return atomic_load(&way->quantizer->stopping) || assay_call_cancelled(way->call);
}

/* Loop thread. Without credit the message is not sent: the next one says more. */
static void send_progress(void *arg)
{
    struct under_way *way = arg;
    if (assay_call_credit(way->call) > 0) {
        enum assay_status ignored = assay_call_send(way->call, &way->progress->base, NULL, 0);
        (void)ignored;
    }
}

static void on_progress(void *arg, size_t done, size_t total)
{
    struct under_way *way = arg;
    int64_t now_ms = assay_now_ms();
    if (now_ms < way->progress_due_ms)
        return;
    way->progress_due_ms = now_ms + PROGRESS_PERIOD_MS;
    Assay__V1__QuantizeReply reply = ASSAY__V1__QUANTIZE_REPLY__INIT;
    reply.has_tensors_done = reply.has_tensors_total = true;
    reply.tensors_done = done;
    reply.tensors_total = total;
    way->progress = &reply;
    assay_loop_call(way->quantizer->loop, send_progress, way);
    way->progress = NULL;
}

static enum assay_status send_summary(struct assay_call *call, const struct assay_manifest *manifest, bool was_cached,
                                      struct assay_err *err)
{
    size_t count = manifest->errors_count;
    Assay__V1__LayerError *errors = calloc(count + 1, sizeof *errors);
    Assay__V1__LayerError **pointers = calloc(count + 1, sizeof(Assay__V1__LayerError *));
    Assay__V1__ArtifactSummary summary;
    Assay__V1__QuantizeReply reply = ASSAY__V1__QUANTIZE_REPLY__INIT;
    enum assay_status status;
    if (!errors || !pointers) {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while answering");
    } else {
        summary_to_message(manifest, was_cached, &summary);
        for (size_t i = 0; i < count; i++) {
            error_to_message(&manifest->errors[i], &errors[i]);
            pointers[i] = &errors[i];
        }
        summary.n_layer_errors = count;
        summary.layer_errors = pointers;
        reply.summary = &summary;
        reply.has_tensors_done = reply.has_tensors_total = true;
        reply.tensors_done = reply.tensors_total = manifest->tensors;
        status = assay_call_send(call, &reply.base, NULL, 0);
        if (status != ASSAY_OK)
            assay_err_set(err, status, "the summary could not be sent");
    }
    free(errors);
    free(pointers);
    return status;
}

static void on_remade(void *arg, const char *why)
{
    (void)arg;
    assay_log(ASSAY_LOG_WARN, "artifact is made again reason=\"%s\"", why);
}

static void note_artifact(const struct assay_quantizer *quantizer, const char *outcome, uint64_t bytes)
{
    assay_counter_add(assay_metric_series(quantizer->artifacts, &outcome), 1);
    assay_counter_add(assay_metric_only(quantizer->artifact_bytes), bytes);
}

static enum assay_status run_job(struct assay_quantizer *quantizer, struct assay_call *call, struct assay_err *err)
{
    struct under_way way = {.quantizer = quantizer, .call = call};
    struct assay_quantize_job job = {
        .artifacts_dir = quantizer->artifacts_dir,
        .digests_dir = quantizer->digests_dir,
        .pool = quantizer->pool,
        .cancelled = is_unwanted,
        .progress = on_progress,
        .remade = on_remade,
        .arg = &way,
    };
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    bool was_cached = false;
    enum assay_status status = job_from_message(assay_call_request(call), &job, err);
    if (status == ASSAY_OK)
        status = assay_quantize(&job, &manifest, &was_cached, err);
    if (status != ASSAY_OK) {
        note_artifact(quantizer, "failed", 0);
        return status;
    }
    char hex[ASSAY_DIGEST_HEX];
    assay_log(ASSAY_LOG_INFO, "artifact ready variant=%.16s spec=%s cached=%s bytes=%llu wall_ms=%llu",
              assay_digest_hex(&job.variant_id.digest, hex), manifest.spec, was_cached ? "true" : "false",
              (unsigned long long)manifest.artifact_bytes,
              was_cached ? 0ull : (unsigned long long)manifest.wall_us / 1000);
    note_artifact(quantizer, was_cached ? "cached" : "made", was_cached ? 0 : manifest.artifact_bytes);
    status = send_summary(call, &manifest, was_cached, err);
    assay_manifest_release(&manifest);
    return status;
}

static void run_call(struct assay_quantizer *quantizer, struct assay_call *call)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (!atomic_load(&quantizer->stopping) && run_job(quantizer, call, &err) == ASSAY_OK) {
        assay_call_end(call);
        return;
    }
    if (atomic_load(&quantizer->stopping))
        assay_err_set(&err, ASSAY_UNAVAILABLE, "the quantizer is shutting down");
    assay_log(ASSAY_LOG_WARN, "quantize failed status=%s reason=\"%s\"", assay_status_name(err.status), err.text);
    assay_call_fail(call, &err);
}

/* The call is gone when it has been answered. */
static void trace_call(struct assay_quantizer *quantizer, struct assay_call *call)
{
    const Assay__V1__QuantizeRequest *request = assay_call_request(call);
    struct assay_span span;
    assay_trace_set(assay_call_trace_id(call));
    assay_span_begin(&span, "quantize", NULL);
    if (request->variant && request->variant->label)
        assay_span_text(&span, "variant", request->variant->label);
    run_call(quantizer, call);
    assay_span_end(&span);
    assay_trace_set(NULL);
}

static void *make_artifacts(void *arg)
{
    struct assay_quantizer *quantizer = arg;
    pthread_setname_np(pthread_self(), "assay-quantize");
    pthread_mutex_lock(&quantizer->lock);
    for (;;) {
        while (quantizer->count == 0 && !atomic_load(&quantizer->stopping))
            pthread_cond_wait(&quantizer->filled, &quantizer->lock);
        if (quantizer->count == 0)
            break;
        struct assay_call *call = quantizer->queue[quantizer->first];
        quantizer->first = (quantizer->first + 1) % QUEUE_MAX;
        quantizer->count--;
        pthread_mutex_unlock(&quantizer->lock);
        trace_call(quantizer, call);
        pthread_mutex_lock(&quantizer->lock);
    }
    pthread_mutex_unlock(&quantizer->lock);
    return NULL;
}

/* --- the service --- */

/* Loop thread. */
static void on_quantize(struct assay_call *call, void *service)
{
    struct assay_quantizer *quantizer = service;
    struct assay_err err = ASSAY_ERR_INIT;
    pthread_mutex_lock(&quantizer->lock);
    if (atomic_load(&quantizer->stopping)) {
        assay_err_set(&err, ASSAY_UNAVAILABLE, "the quantizer is shutting down");
    } else if (quantizer->count == QUEUE_MAX) {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "%d calls wait already", QUEUE_MAX);
    } else {
        quantizer->queue[(quantizer->first + quantizer->count++) % QUEUE_MAX] = call;
        pthread_cond_signal(&quantizer->filled);
    }
    pthread_mutex_unlock(&quantizer->lock);
    if (err.status != ASSAY_OK)
        assay_call_fail(call, &err);
}

enum assay_status assay_quantizer_start(struct assay_loop *loop, struct assay_server *server, const char *artifacts_dir,
                                        struct assay_pool *pool, struct assay_quantizer **ret, struct assay_err *err)
{
    static const assay_method_fn handlers[] = {on_quantize};
    struct assay_quantizer *quantizer = calloc(1, sizeof *quantizer);
    if (!quantizer)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting the quantizer");
    enum assay_status status = assay_path_join(quantizer->digests_dir, artifacts_dir, ASSAY_KEPT_DIGESTS_DIR, err);
    if (status != ASSAY_OK) {
        free(quantizer);
        return status;
    }
    strcpy(quantizer->artifacts_dir, artifacts_dir);
    quantizer->loop = loop;
    quantizer->pool = pool;
    pthread_mutex_init(&quantizer->lock, NULL);
    pthread_cond_init(&quantizer->filled, NULL);
    int failed = pthread_create(&quantizer->thread, NULL, make_artifacts, quantizer);
    if (failed) {
        assay_quantizer_free(quantizer);
        return assay_err_errno(err, failed, "cannot start a thread");
    }
    assay_server_add(server, &assay__v1__quantizer__descriptor, handlers, quantizer);
    *ret = quantizer;
    return ASSAY_OK;
}

static void collect(void *arg)
{
    struct assay_quantizer *quantizer = arg;
    pthread_mutex_lock(&quantizer->lock);
    size_t waiting = quantizer->count;
    pthread_mutex_unlock(&quantizer->lock);
    assay_gauge_set(assay_metric_only(quantizer->waiting), (double)waiting);
}

void assay_quantizer_measure(struct assay_quantizer *quantizer, struct assay_metrics *metrics)
{
    static const struct assay_metric_row artifacts = {
        .name = "assay_artifacts_total",
        .help = "Requests for artifacts, by outcome: made, cached (it was there), failed.",
        .type = ASSAY_METRIC_COUNTER,
        .labels = {"outcome"}};
    static const struct assay_metric_row bytes = {
        .name = "assay_artifact_bytes_total", .help = "Bytes of the artifacts made.", .type = ASSAY_METRIC_COUNTER};
    static const struct assay_metric_row waiting = {.name = "assay_quantizer_waiting",
                                                    .help = "Requests that wait for the one under way.",
                                                    .type = ASSAY_METRIC_GAUGE};
    quantizer->artifacts = assay_metrics_add(metrics, &artifacts);
    quantizer->artifact_bytes = assay_metrics_add(metrics, &bytes);
    quantizer->waiting = assay_metrics_add(metrics, &waiting);
    assay_metrics_collect(metrics, collect, quantizer);
}

void assay_quantizer_stop(struct assay_quantizer *quantizer)
{
    if (!quantizer || atomic_load(&quantizer->stopping))
        return;
    pthread_mutex_lock(&quantizer->lock);
    atomic_store(&quantizer->stopping, true);
    pthread_cond_signal(&quantizer->filled);
    pthread_mutex_unlock(&quantizer->lock);
    pthread_join(quantizer->thread, NULL);
}

void assay_quantizer_free(struct assay_quantizer *quantizer)
{
    if (!quantizer)
        return;
    pthread_cond_destroy(&quantizer->filled);
    pthread_mutex_destroy(&quantizer->lock);
    free(quantizer);
}
