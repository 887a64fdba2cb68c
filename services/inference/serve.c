#include "services/inference/serve.h"

#include <stdlib.h>

#include "common/nn/model.h"
#include "services/inference/metrics.h"

/* One long poll. */
#define LEASE_WAIT_MS 20000
/* A supervisor kills after 10 s. */
#define STOP_GRACE_MS 3000

struct assay_inference {
    const char *precision, *device;
    struct assay_link *link;
    struct assay_worker *worker;
};

enum assay_status assay_inference_new(struct assay_loop *loop, const struct assay_inference_options *options,
                                      struct assay_inference **ret, struct assay_err *err)
{
    struct assay_inference *inference = calloc(1, sizeof *inference);
    if (!inference)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    inference->precision = options->precision;
    inference->device = options->device;
    enum assay_status status = assay_link_new(loop, options->coordinator, &inference->link, err);
    const struct assay_worker_options worker = {
        .link = inference->link,
        .pool = options->pool,
        .loop = loop,
        .cache_dir = options->cache_dir,
        .precision = options->precision,
        .batch_tokens = options->batch_tokens,
        .lease_wait_ms = LEASE_WAIT_MS,
        .outbox = ASSAY_OUTBOX_OPTIONS_DEFAULT,
    };
    if (status == ASSAY_OK)
        status = assay_worker_new(&worker, &inference->worker, err);
    if (status == ASSAY_OK)
        *ret = inference;
    else
        assay_inference_free(inference);
    return status;
}

void assay_inference_describe(const struct assay_inference *inference, Assay__V1__RegisterRequest *registration)
{
    registration->precision = (char *)(uintptr_t)inference->precision;
    registration->device = (char *)(uintptr_t)inference->device;
    registration->numerics_id = (char *)(uintptr_t)assay_numerics_id();
}

void assay_inference_count(void *arg, Assay__V1__ServiceCounters *counters)
{
    const struct assay_inference *inference = arg;
    struct assay_worker_counts counts = assay_worker_counts(inference->worker);
    counters->has_chunks_run = counters->has_tokens_run = counters->has_records_sent = true;
    counters->has_compute_us = counters->has_models_loaded = true;
    counters->chunks_run = counts.chunks_run;
    counters->tokens_run = counts.tokens_run;
    counters->records_sent = counts.records_sent;
    counters->compute_us = counts.compute_us;
    counters->models_loaded = counts.models_loaded;
}

static void look(void *arg, struct assay_worker_counts *ret)
{
    const struct assay_inference *inference = arg;
    *ret = assay_worker_counts(inference->worker);
}

void assay_inference_measure(struct assay_inference *inference, struct assay_metrics *metrics)
{
    assay_worker_measure(metrics, look, inference);
}

enum assay_status assay_inference_start(struct assay_inference *inference, struct assay_member *member,
                                        struct assay_err *err)
{
    return assay_worker_start(inference->worker, member, err);
}

void assay_inference_stop(struct assay_inference *inference)
{
    if (inference)
        assay_worker_stop(inference->worker, STOP_GRACE_MS);
}

struct assay_worker_counts assay_inference_counts(const struct assay_inference *inference)
{
    return assay_worker_counts(inference->worker);
}

void assay_inference_free(struct assay_inference *inference)
{
    if (!inference)
        return;
    assay_worker_free(inference->worker);
    assay_link_free(inference->link);
    free(inference);
}
