#include "services/inference/serve.h"

#include <stdlib.h>

#include "common/base/memory.h"
#include "services/inference/metrics.h"

/* One long poll. */
#define LEASE_WAIT_MS 20000
/* A supervisor kills after 10 s. */
#define STOP_GRACE_MS 3000
/* Of the machine's memory, for models that are not in use, unless the settings say how much: several workers share it.
 */
#define MEMORY_SHARE 8

struct assay_inference {
    const char *precision, *device;
    struct assay_models *models;
    struct assay_link *link;
    struct assay_worker *worker;
};

static struct assay_models *new_models(const struct assay_inference_options *options)
{
    const struct assay_models_options models = {
        .pool = options->pool,
        .bytes_max = options->memory_bytes ? options->memory_bytes : assay_memory_bytes() / MEMORY_SHARE,
        .is_soft = options->memory_bytes == 0,
    };
    return assay_models_new(&models);
}

enum assay_status assay_inference_new(struct assay_loop *loop, const struct assay_inference_options *options,
                                      struct assay_inference **ret, struct assay_err *err)
{
    struct assay_inference *inference = calloc(1, sizeof *inference);
    if (!inference)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    inference->precision = options->precision;
    inference->device = options->device;
    inference->models = new_models(options);
    enum assay_status status = ASSAY_OK;
    if (!inference->models)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    if (status == ASSAY_OK)
        status = assay_link_new(loop, options->coordinator, &inference->link, err);
    const struct assay_worker_options worker = {
        .link = inference->link,
        .pool = options->pool,
        .models = inference->models,
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
    registration->memory_bytes = assay_models_stats(inference->models).bytes_max;
    registration->has_memory_bytes = registration->memory_bytes > 0;
}

struct assay_models *assay_inference_models(struct assay_inference *inference)
{
    return inference->models;
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
    counters->models_loaded = counts.models.loads;
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

static size_t list_loaded(void *arg, struct assay_digest ids[ASSAY_MEMBER_LOADED_MAX])
{
    const struct assay_inference *inference = arg;
    return assay_models_list(inference->models, ids, ASSAY_MEMBER_LOADED_MAX);
}

enum assay_status assay_inference_start(struct assay_inference *inference, struct assay_member *member,
                                        struct assay_err *err)
{
    assay_member_tell_loaded(member, list_loaded, inference);
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
    assay_models_free(inference->models);
    assay_link_free(inference->link);
    free(inference);
}
