#include "services/inference/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/artifact/fetch_remote.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/obs/spans.h"
#include "services/inference/execute.h"
#include "services/inference/narrow.h"

#define CHUNKS_MAX 4096
#define MEAN_TOKENS_AT_FIRST 512
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
/* How long a lease waits for room that others hold. */
#define ROOM_WAIT_MS 10000
/* How often a stopping worker looks whether its threads are done. */
#define STOP_TICK_MS 50

struct assay_worker {
    struct assay_worker_options options;
    struct assay_member *member;
    struct assay_outbox *outbox;
    size_t mean_tokens;
    int64_t backoff_ms; /* 0 while all goes well */
    uint64_t random;
    atomic_uint_fast64_t chunks_run, tokens_run, compute_us;
    atomic_bool stopping;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool finished;
};

size_t assay_worker_chunks_max(size_t batch_tokens, size_t mean_tokens)
{
    size_t chunks = 2 * batch_tokens / ASSAY_MAX(mean_tokens, 1);
    return ASSAY_MIN(ASSAY_MAX(chunks, 1), CHUNKS_MAX);
}

static struct timespec timespec_of(int64_t us)
{
    return (struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
}

/* Waits for ms, or until the worker is to stop. */
static void pause_ms(struct assay_worker *worker, int64_t ms)
{
    int64_t until_us = assay_now_us() + ms * 1000;
    struct timespec until = timespec_of(until_us);
    pthread_mutex_lock(&worker->lock);
    while (!atomic_load(&worker->stopping) && assay_now_us() < until_us)
        pthread_cond_timedwait(&worker->changed, &worker->lock, &until);
    pthread_mutex_unlock(&worker->lock);
}

/* Waits for at most ms; true when the worker's thread has nothing left to do. */
static bool wait_finished(struct assay_worker *worker, int64_t ms)
{
    int64_t until_us = assay_now_us() + ms * 1000;
    struct timespec until = timespec_of(until_us);
    pthread_mutex_lock(&worker->lock);
    while (!worker->finished && assay_now_us() < until_us)
        pthread_cond_timedwait(&worker->changed, &worker->lock, &until);
    bool finished = worker->finished;
    pthread_mutex_unlock(&worker->lock);
    return finished;
}

/* Doubles with each call, +/- 20 %; ends early when the worker stops. */
static void back_off(struct assay_worker *worker)
{
    worker->backoff_ms = worker->backoff_ms ? ASSAY_MIN(2 * worker->backoff_ms, BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    pause_ms(worker, worker->backoff_ms * (800 + (int64_t)(worker->random % 401)) / 1000);
}

/* --- one lease --- */

/* The rest of the lease goes back, after the batches that are on their way. */
static void give_back(struct assay_worker *worker, struct assay_loan *loan, const struct assay_err *failure,
                      bool too_large)
{
    struct assay_batch *batch = assay_batch_new(loan, 0, 0);
    if (!batch)
        return; /* out of memory: the lease ends by itself */
    batch->failure = *failure;
    batch->too_large = too_large;
    assay_outbox_add(worker->outbox, batch);
}

static bool is_stopping(void *arg)
{
    struct assay_worker *worker = arg;
    return atomic_load(&worker->stopping);
}

struct search {
    struct assay_worker *worker;
    const struct assay_worker_lease *lease;
    bool found;
};

static enum assay_status find_artifact(void *arg, char dir[ASSAY_PATH_MAX], struct assay_err *err)
{
    struct search *search = arg;
    const struct assay_artifact_source source = {.loop = search->worker->options.loop,
                                                 .variant = &search->lease->variant,
                                                 .artifact_dir = search->lease->artifact_dir,
                                                 .endpoint = search->lease->artifact_endpoint,
                                                 .cache_dir = search->worker->options.cache_dir,
                                                 .cancelled = is_stopping,
                                                 .arg = search->worker};
    enum assay_status status = assay_artifact_find(&source, dir, err);
    if (status == ASSAY_CANCELLED)
        status = assay_err_set(err, ASSAY_UNAVAILABLE, "the worker is shutting down");
    search->found = status == ASSAY_OK;
    return status;
}

static bool search_is_over(void *arg)
{
    const struct search *search = arg;
    return is_stopping(search->worker);
}

/* *ret_too_large: it is here, and memory has no room for it; a disk without room for it is another matter. */
static enum assay_status get_model(struct assay_worker *worker, const struct assay_worker_lease *lease,
                                   struct assay_resident **ret, bool *ret_too_large, struct assay_err *err)
{
    bool was_there = false;
    char hex[ASSAY_DIGEST_HEX];
    int64_t started_ms = assay_now_ms();
    if (strcmp(lease->scheme, worker->options.precision) != 0)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "this worker runs %s, the lease is of %s",
                             worker->options.precision, lease->scheme);
    struct assay_span span;
    struct search search = {.worker = worker, .lease = lease};
    const struct assay_model_want want = {.part = ASSAY_MODEL_DECODER,
                                          .id = lease->variant.digest,
                                          .dir = lease->artifact_dir,
                                          .find = find_artifact,
                                          .wait_ms = ROOM_WAIT_MS,
                                          .cancelled = search_is_over,
                                          .arg = &search};
    assay_span_begin(&span, "load", NULL);
    enum assay_status status = assay_models_acquire(worker->options.models, &want, ret, &was_there, err);
    *ret_too_large = search.found && status == ASSAY_RESOURCE_EXHAUSTED;
    if (was_there)
        return status;
    assay_span_end(&span);
    if (status == ASSAY_OK)
        assay_log(ASSAY_LOG_INFO, "model loaded variant=%.16s dir=%s bytes=%zu wall_ms=%lld",
                  assay_digest_hex(&lease->variant.digest, hex), lease->artifact_dir,
                  assay_model_bytes(assay_resident_decoder(*ret)), (long long)(assay_now_ms() - started_ms));
    return status;
}

static bool is_measured(const struct assay_worker_lease *lease, const struct assay_leased_chunk *chunk)
{
    return lease->wants_f16 && assay_f16_is_measured(&chunk->key, &lease->first_of_job);
}

/* Room for the records of chunks[begin, end), and the sequences that fill it. A record of f16 takes the place of its
 * f32 rows; that of a measured chunk stands behind them. */
static struct assay_batch *prepare_batch(const struct assay_model *model, struct assay_loan *loan, size_t begin,
                                         size_t end, struct assay_sequence *sequences)
{
    const struct assay_worker_lease *lease = assay_loan_lease(loan);
    size_t width = assay_model_config(model)->hidden, floats = 0, records = end - begin;
    for (size_t i = begin; i < end; i++) {
        size_t values = (lease->chunks[i].end - lease->chunks[i].begin) * width;
        bool measured = is_measured(lease, &lease->chunks[i]);
        floats += values + (measured ? (values + 1) / 2 : 0);
        records += measured;
    }
    struct assay_batch *batch = assay_batch_new(loan, records, floats);
    if (!batch)
        return NULL;
    float *hidden = assay_batch_memory_floats(batch->memory);
    size_t at = 0;
    for (size_t i = begin; i < end; i++) {
        const struct assay_leased_chunk *chunk = &lease->chunks[i];
        size_t rows = chunk->end - chunk->begin;
        struct assay_outgoing record = {.key = chunk->key, .hidden = hidden, .rows = rows, .width = width};
        sequences[i - begin] =
            (struct assay_sequence){chunk->ids, chunk->tokens, chunk->begin, chunk->end, hidden, NULL};
        hidden += rows * width;
        if (is_measured(lease, chunk)) {
            record.is_extra = true;
            batch->records[at++] = record;
            record.is_extra = false;
            record.hidden = hidden;
            hidden += (rows * width + 1) / 2;
        }
        record.is_f16 = lease->wants_f16;
        batch->tokens[at] = chunk->tokens;
        batch->records[at++] = record;
    }
    return batch;
}

/* Fills the records of f16 from the f32 rows: their own, or those of the extra record before them. */
static enum assay_status narrow_batch(struct assay_batch *batch, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < batch->count && status == ASSAY_OK; i++) {
        const struct assay_outgoing *record = &batch->records[i];
        bool behind = i > 0 && batch->records[i - 1].is_extra;
        if (record->is_f16)
            status = assay_f16_narrow(&record->key, behind ? batch->records[i - 1].hidden : record->hidden,
                                      record->rows, record->width, (void *)(uintptr_t)record->hidden, err);
    }
    return status;
}

/* Runs chunks[begin, end) and hands their records over. */
static enum assay_status run_batch(struct assay_worker *worker, const struct assay_model *model,
                                   struct assay_loan *loan, size_t begin, size_t end, struct assay_err *err)
{
    size_t count = end - begin, tokens = 0;
    struct assay_span span;
    assay_span_begin(&span, "forward", NULL);
    struct assay_sequence *sequences = calloc(count, sizeof *sequences);
    struct assay_batch *batch = sequences ? prepare_batch(model, loan, begin, end, sequences) : NULL;
    enum assay_status status;
    if (!batch)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the records of %zu chunks", count);
    else
        status = assay_execute(worker->options.models, model, worker->options.pool, sequences, count,
                               &batch->compute_us, err);
    if (status == ASSAY_OK)
        status = narrow_batch(batch, err);
    free(sequences);
    if (status != ASSAY_OK) {
        assay_batch_free(batch);
        return status;
    }
    for (size_t i = 0; i < batch->count; i++)
        tokens += batch->tokens[i];
    assay_span_text(&span, "precision", worker->options.precision);
    assay_span_number(&span, "chunks", (int64_t)count);
    assay_span_number(&span, "tokens", (int64_t)tokens);
    assay_span_end(&span);
    atomic_fetch_add(&worker->chunks_run, count);
    atomic_fetch_add(&worker->tokens_run, tokens);
    atomic_fetch_add(&worker->compute_us, batch->compute_us);
    assay_outbox_add(worker->outbox, batch);
    return ASSAY_OK;
}

static void note_mean(struct assay_worker *worker, const uint32_t *tokens, size_t count)
{
    size_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += tokens[i];
    worker->mean_tokens = ASSAY_MAX(sum / count, 1);
}

static enum assay_status run_chunks(struct assay_worker *worker, const struct assay_model *model,
                                    struct assay_loan *loan, struct assay_err *err)
{
    const struct assay_worker_lease *lease = assay_loan_lease(loan);
    uint32_t *tokens = calloc(lease->count, sizeof *tokens);
    if (!tokens)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a lease of %zu chunks", lease->count);
    for (size_t i = 0; i < lease->count; i++)
        tokens[i] = lease->chunks[i].tokens;
    note_mean(worker, tokens, lease->count);
    enum assay_status status = ASSAY_OK;
    for (size_t done = 0; done < lease->count && status == ASSAY_OK && !assay_loan_is_over(loan);) {
        if (atomic_load(&worker->stopping)) {
            status = assay_err_set(err, ASSAY_UNAVAILABLE, "the worker is shutting down");
            break;
        }
        size_t length = assay_batch_length(tokens + done, lease->count - done, worker->options.batch_tokens);
        status = run_batch(worker, model, loan, done, done + length, err);
        done += length;
    }
    free(tokens);
    return status;
}

static void run_lease(struct assay_worker *worker, struct assay_worker_lease *lease)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_span span;
    struct assay_loan *loan = assay_loan_new(lease);
    if (!loan)
        return; /* out of memory: the lease ends by itself */
    assay_trace_set(assay_loan_lease(loan)->trace_id);
    assay_span_begin(&span, "lease", NULL);
    assay_span_text(&span, "precision", worker->options.precision);
    assay_span_number(&span, "chunks", (int64_t)assay_loan_lease(loan)->count);
    struct assay_resident *model = NULL;
    bool too_large = false;
    enum assay_status status = get_model(worker, assay_loan_lease(loan), &model, &too_large, &err);
    if (status == ASSAY_OK)
        status = run_chunks(worker, assay_resident_decoder(model), loan, &err);
    assay_models_release(worker->options.models, model);
    assay_span_text(&span, "status", assay_status_name(status));
    assay_span_end(&span);
    if (status != ASSAY_OK) {
        give_back(worker, loan, &err, too_large);
        back_off(worker); /* so that a lease which comes back at once does not spin */
    } else {
        worker->backoff_ms = 0;
    }
    assay_trace_set(NULL);
    assay_loan_drop(loan);
}

/* --- the loop --- */

static void handle_lease_failure(struct assay_worker *worker, uint64_t service_id, enum assay_status status,
                                 const struct assay_err *err)
{
    if (atomic_load(&worker->stopping))
        return;
    if (status == ASSAY_NOT_FOUND)
        assay_member_forgotten(worker->member, service_id);
    if (worker->backoff_ms == 0 && status != ASSAY_DEADLINE_EXCEEDED)
        assay_log(ASSAY_LOG_WARN, "no lease, trying on status=%s reason=\"%s\"", assay_status_name(status), err->text);
    back_off(worker);
}

static void *work(void *arg)
{
    enum { REGISTRATION_WAIT_MS = 200 };
    struct assay_worker *worker = arg;
    pthread_setname_np(pthread_self(), "assay-worker");
    while (!atomic_load(&worker->stopping)) {
        uint64_t service_id = assay_member_id(worker->member, REGISTRATION_WAIT_MS);
        if (service_id == 0)
            continue;
        struct assay_worker_lease lease = {0};
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_digest loaded[ASSAY_LEASE_LOADED_MAX];
        uint64_t held[ASSAY_OUTBOX_MAX];
        const struct assay_lease_wish wish = {
            .service_id = service_id,
            .chunks_max = assay_worker_chunks_max(worker->options.batch_tokens, worker->mean_tokens),
            .wait_ms = worker->options.lease_wait_ms,
            .loaded = loaded,
            .loaded_count = assay_models_list(worker->options.models, loaded, ASSAY_LEASE_LOADED_MAX),
            .held = held,
            .held_count = assay_outbox_leases(worker->outbox, held)};
        enum assay_status status = assay_link_lease(worker->options.link, &wish, &lease, &err);
        if (status != ASSAY_OK)
            handle_lease_failure(worker, service_id, status, &err);
        else if (lease.count > 0)
            run_lease(worker, &lease);
        else
            worker->backoff_ms = 0;
        assay_worker_lease_release(&lease);
    }
    assay_outbox_drain(worker->outbox);
    pthread_mutex_lock(&worker->lock);
    worker->finished = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

enum assay_status assay_worker_new(const struct assay_worker_options *options, struct assay_worker **ret,
                                   struct assay_err *err)
{
    struct assay_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting the worker");
    worker->options = *options;
    worker->mean_tokens = MEAN_TOKENS_AT_FIRST;
    worker->random = (uint64_t)assay_now_us() | 1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&worker->lock, NULL);
    enum assay_status status = assay_outbox_start(options->link, &options->outbox, &worker->outbox, err);
    if (status == ASSAY_OK)
        *ret = worker;
    else
        assay_worker_free(worker);
    return status;
}

enum assay_status assay_worker_start(struct assay_worker *worker, struct assay_member *member, struct assay_err *err)
{
    worker->member = member;
    int failed = pthread_create(&worker->thread, NULL, work, worker);
    if (failed)
        return assay_err_errno(err, failed, "cannot start a thread");
    worker->started = true;
    return ASSAY_OK;
}

void assay_worker_stop(struct assay_worker *worker, int64_t grace_ms)
{
    if (!worker || !worker->started)
        return;
    pthread_mutex_lock(&worker->lock);
    atomic_store(&worker->stopping, true);
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
    int64_t grace_until_ms = assay_now_ms() + grace_ms;
    /* Again and again: a call may begin just after the others were broken off. */
    do {
        if (assay_now_ms() < grace_until_ms) {
            assay_link_stop_leasing(worker->options.link);
        } else {
            assay_outbox_hurry(worker->outbox);
            assay_link_cancel_all(worker->options.link);
        }
    } while (!wait_finished(worker, STOP_TICK_MS));
    pthread_join(worker->thread, NULL);
    worker->started = false;
}

void assay_worker_free(struct assay_worker *worker)
{
    if (!worker)
        return;
    assay_outbox_free(worker->outbox);
    pthread_cond_destroy(&worker->changed);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

struct assay_worker_counts assay_worker_counts(const struct assay_worker *worker)
{
    return (struct assay_worker_counts){
        .chunks_run = atomic_load(&worker->chunks_run),
        .tokens_run = atomic_load(&worker->tokens_run),
        .records_sent = assay_outbox_sent(worker->outbox),
        .compute_us = atomic_load(&worker->compute_us),
        .batches_waiting = assay_outbox_waiting(worker->outbox),
        .models = assay_models_stats(worker->options.models),
    };
}
