#include "services/inference/serve.h"

#include <stdlib.h>

#include "common/nn/model.h"
#include "common/wire/server.h"

/* One long poll. */
#define LEASE_WAIT_MS 20000
/* A supervisor kills after 10 s. */
#define STOP_GRACE_MS 3000

struct assay_inference {
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_link *link;
    struct assay_worker *worker;
    struct assay_member *member;
    bool loop_runs;
};

static void fill_counters(void *arg, Assay__V1__ServiceCounters *counters)
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

static enum assay_status connect_all(struct assay_inference *inference, const struct assay_inference_options *options,
                                     struct assay_err *err)
{
    enum assay_status status = assay_loop_new(&inference->loop, err);
    if (status == ASSAY_OK)
        status = assay_server_new(inference->loop, options->listen, &inference->server, err);
    if (status == ASSAY_OK)
        status = assay_link_new(inference->loop, options->coordinator, &inference->link, err);
    if (status == ASSAY_OK)
        status = assay_loop_start(inference->loop, err);
    inference->loop_runs = status == ASSAY_OK;
    return status;
}

static enum assay_status join_stack(struct assay_inference *inference, const struct assay_inference_options *options,
                                    struct assay_err *err)
{
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    registration.has_kind = true;
    registration.kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE;
    registration.endpoint = (char *)(uintptr_t)assay_server_endpoint(inference->server);
    registration.precision = (char *)(uintptr_t)options->precision;
    registration.device = (char *)(uintptr_t)options->device;
    registration.numerics_id = (char *)(uintptr_t)assay_numerics_id();
    registration.has_threads = true;
    registration.threads = (uint32_t)assay_pool_threads(options->pool);
    return assay_member_start(assay_link_coordinator(inference->link), &registration, fill_counters, inference,
                              &inference->member, err);
}

enum assay_status assay_inference_start(const struct assay_inference_options *options, struct assay_inference **ret,
                                        struct assay_err *err)
{
    struct assay_inference *inference = calloc(1, sizeof *inference);
    if (!inference)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting");
    enum assay_status status = connect_all(inference, options, err);
    const struct assay_worker_options worker = {
        .link = inference->link,
        .pool = options->pool,
        .precision = options->precision,
        .batch_tokens = options->batch_tokens,
        .lease_wait_ms = LEASE_WAIT_MS,
        .outbox = ASSAY_OUTBOX_OPTIONS_DEFAULT,
    };
    if (status == ASSAY_OK)
        status = assay_worker_new(&worker, &inference->worker, err);
    if (status == ASSAY_OK)
        status = join_stack(inference, options, err);
    if (status == ASSAY_OK)
        status = assay_worker_start(inference->worker, inference->member, err);
    if (status == ASSAY_OK)
        *ret = inference;
    else
        assay_inference_stop(inference);
    return status;
}

const char *assay_inference_endpoint(const struct assay_inference *inference)
{
    return assay_server_endpoint(inference->server);
}

static void stop_serving(void *arg)
{
    struct assay_inference *inference = arg;
    assay_server_set_serving(inference->server, false);
}

struct assay_worker_counts assay_inference_stop(struct assay_inference *inference)
{
    struct assay_worker_counts counts = {0};
    if (!inference)
        return counts;
    if (inference->loop_runs)
        assay_loop_call(inference->loop, stop_serving, inference);
    assay_worker_stop(inference->worker, STOP_GRACE_MS);
    assay_member_stop(inference->member);
    if (inference->worker)
        counts = assay_worker_counts(inference->worker);
    assay_worker_free(inference->worker);
    assay_link_free(inference->link);
    if (inference->loop_runs)
        assay_loop_stop_join(inference->loop);
    assay_server_free(inference->server);
    assay_loop_free(inference->loop);
    free(inference);
    return counts;
}
