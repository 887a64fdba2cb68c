#include "services/evaluator/serve.h"

#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"
#include "services/evaluator/serve_internal.h"

bool serve_record_dtype(bool has, Assay__V1__Dtype dtype, enum assay_record_dtype *ret)
{
    static_assert(sizeof(float) == sizeof(int32_t), "the dtypes that are served have 2 or 4 bytes");
    if (has && dtype != ASSAY__V1__DTYPE__DTYPE_F32 && dtype != ASSAY__V1__DTYPE__DTYPE_F16)
        return false;
    *ret = has && dtype == ASSAY__V1__DTYPE__DTYPE_F16 ? ASSAY_RECORD_F16 : ASSAY_RECORD_F32;
    return true;
}

enum assay_status serve_tensor(const struct assay_call *call, const Assay__V1__Tensor *tensor, Assay__V1__Dtype dtype,
                               size_t dims, const char *what, uint64_t *shape, struct assay_bytes *ret,
                               struct assay_err *err)
{
    bool half = dtype == ASSAY__V1__DTYPE__DTYPE_F16;
    size_t width = half ? sizeof(uint16_t) : sizeof(float);
    if (!tensor || tensor->dtype != dtype || tensor->n_shape != dims)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a tensor of %zu dimensions and dtype %s", what,
                             dims,
                             half                                   ? "F16"
                             : dtype == ASSAY__V1__DTYPE__DTYPE_F32 ? "F32"
                                                                    : "I32");
    if (!tensor->has_attachment || tensor->attachment >= assay_call_attachments(call))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s names an attachment that the message does not have",
                             what);
    struct assay_bytes bytes = assay_call_attachment(call, tensor->attachment);
    uint64_t elements = 1;
    bool fits = bytes.bytes % width == 0;
    for (size_t i = 0; i < dims; i++) {
        shape[i] = tensor->shape[i];
        fits = fits && !__builtin_mul_overflow(elements, shape[i], &elements);
    }
    if (!fits || elements != bytes.bytes / width)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the shape does not fit its attachment of %zu bytes",
                             what, bytes.bytes);
    *ret = bytes;
    return ASSAY_OK;
}

static void free_parts(struct assay_evaluator *evaluator)
{
    assay_writer_free(evaluator->writer);
    assay_heads_free(evaluator->heads);
    pthread_cond_destroy(&evaluator->ended);
    pthread_mutex_destroy(&evaluator->lock);
    pthread_mutex_destroy(&evaluator->taking);
    free(evaluator);
}

enum assay_status assay_evaluator_new(struct assay_loop *loop, struct assay_server *server,
                                      struct assay_records *records, struct assay_shards *shards,
                                      struct assay_pool *pool, const char *artifacts_dir, struct assay_evaluator **ret,
                                      struct assay_err *err)
{
    static const assay_method_fn record_methods[] = {serve_put, serve_have};
    static const assay_method_fn evaluator_methods[] = {serve_score};
    static const assay_method_fn cache_methods[] = {serve_cache_stat, serve_cache_list, serve_cache_verify,
                                                    serve_cache_prune};
    static const assay_method_fn shard_methods[] = {serve_shard_list, serve_shard_fetch, serve_shard_release};
    struct assay_evaluator *evaluator = calloc(1, sizeof *evaluator);
    if (!evaluator)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the evaluator");
    evaluator->loop = loop;
    evaluator->server = server;
    evaluator->records = records;
    evaluator->shards = shards;
    evaluator->pool = pool;
    evaluator->artifacts_dir = artifacts_dir;
    pthread_mutex_init(&evaluator->lock, NULL);
    pthread_mutex_init(&evaluator->taking, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&evaluator->ended, &attr);
    pthread_condattr_destroy(&attr);
    evaluator->heads = assay_heads_new(pool);
    enum assay_status status = evaluator->heads
                                   ? assay_writer_new(records, &evaluator->writer, err)
                                   : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the evaluator");
    if (status != ASSAY_OK) {
        free_parts(evaluator);
        return status;
    }
    assay_server_add(server, &assay__v1__records__descriptor, record_methods, evaluator);
    assay_server_add(server, &assay__v1__evaluator__descriptor, evaluator_methods, evaluator);
    assay_server_add(server, &assay__v1__cache__descriptor, cache_methods, evaluator);
    assay_server_add(server, &assay__v1__shards__descriptor, shard_methods, evaluator);
    *ret = evaluator;
    return ASSAY_OK;
}

static void stop_serving(void *arg)
{
    assay_server_set_serving(arg, false);
}

static void nothing(void *arg)
{
    (void)arg;
}

void assay_evaluator_drain(struct assay_evaluator *evaluator, int64_t wait_ms)
{
    assay_loop_call(evaluator->loop, stop_serving, evaluator->server);
    atomic_store(&evaluator->stopping, true);
    assay_writer_stop(evaluator->writer);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    pthread_mutex_lock(&evaluator->lock);
    while (serve_scores_running(evaluator))
        if (pthread_cond_timedwait(&evaluator->ended, &evaluator->lock, &until) != 0)
            break;
    pthread_mutex_unlock(&evaluator->lock);
    /* Answers are sent on the loop's thread, in order: they have left when this comes back. */
    assay_loop_call(evaluator->loop, nothing, NULL);
}

void assay_evaluator_free(struct assay_evaluator *evaluator)
{
    if (!evaluator)
        return;
    atomic_store(&evaluator->stopping, true);
    serve_reap(evaluator, true);
    serve_reap_cache(evaluator, true);
    free_parts(evaluator);
}

void assay_evaluator_count(void *arg, Assay__V1__ServiceCounters *counters)
{
    struct assay_evaluator *evaluator = arg;
    counters->has_chunks_run = counters->has_tokens_run = counters->has_compute_us = counters->has_models_loaded = true;
    counters->chunks_run = atomic_load(&evaluator->chunks_scored);
    counters->tokens_run = atomic_load(&evaluator->tokens_scored);
    counters->compute_us = atomic_load(&evaluator->compute_us);
    counters->models_loaded = assay_heads_count(evaluator->heads);
}
