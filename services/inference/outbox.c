#include "services/inference/outbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/log.h"

#define BACKOFF_MAX_MS 5000
/* Records of one message together; a longer record travels alone. */
#define PUT_BYTES_MAX ((size_t)64 << 20)
/* Times that the records of one batch are sent elsewhere because the evaluators changed. */
#define REDIRECTS_MAX 16
#define ASK_MAP_MS 2000

struct assay_loan {
    atomic_size_t references;
    atomic_bool is_over;
    struct assay_worker_lease lease;
};

struct assay_outbox {
    struct assay_link *link;
    struct assay_outbox_options options;
    pthread_t thread;
    atomic_uint_fast64_t sent;
    uint64_t random;      /* of the jitter; the sending thread's */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct assay_batch *batches[ASSAY_OUTBOX_MAX]; /* the first is being sent */
    size_t count;
    bool closed, hurried;
};

/* --- loans and batches --- */

struct assay_loan *assay_loan_new(struct assay_worker_lease *lease)
{
    struct assay_loan *loan = calloc(1, sizeof *loan);
    if (!loan) {
        assay_worker_lease_release(lease);
        return NULL;
    }
    atomic_init(&loan->references, 1);
    loan->lease = *lease;
    *lease = (struct assay_worker_lease){0};
    return loan;
}

void assay_loan_drop(struct assay_loan *loan)
{
    if (!loan || atomic_fetch_sub(&loan->references, 1) > 1)
        return;
    assay_worker_lease_release(&loan->lease);
    free(loan);
}

const struct assay_worker_lease *assay_loan_lease(const struct assay_loan *loan)
{
    return &loan->lease;
}

bool assay_loan_is_over(const struct assay_loan *loan)
{
    return atomic_load(&loan->is_over);
}

struct assay_batch *assay_batch_new(struct assay_loan *loan, size_t count, size_t floats)
{
    struct assay_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    atomic_fetch_add(&loan->references, 1);
    batch->loan = loan;
    batch->count = count;
    batch->memory = assay_batch_memory_new(floats);
    batch->records = calloc(count + 1, sizeof *batch->records);
    batch->tokens = calloc(count + 1, sizeof *batch->tokens);
    if (batch->memory && batch->records && batch->tokens)
        return batch;
    assay_batch_free(batch);
    return NULL;
}

void assay_batch_free(struct assay_batch *batch)
{
    if (!batch)
        return;
    assay_batch_memory_drop(batch->memory);
    free(batch->records);
    free(batch->tokens);
    assay_loan_drop(batch->loan);
    free(batch);
}

/* --- sending --- */

/* Attempts at one call. */
struct attempts {
    size_t made;
    int64_t first_ms, backoff_ms;
};

static struct attempts attempts_begin(const struct assay_outbox *outbox)
{
    return (struct attempts){.first_ms = assay_now_ms(), .backoff_ms = outbox->options.backoff_ms};
}

static bool is_passing(enum assay_status status)
{
    return status == ASSAY_UNAVAILABLE || status == ASSAY_RESOURCE_EXHAUSTED || status == ASSAY_DEADLINE_EXCEEDED;
}

/* Waits before the next attempt, +/- 20 %. False: nothing is repeated any more. */
static bool back_off(struct assay_outbox *outbox, struct attempts *attempts)
{
    outbox->random ^= outbox->random << 13;
    outbox->random ^= outbox->random >> 7;
    outbox->random ^= outbox->random << 17;
    int64_t until_us = assay_now_us() + attempts->backoff_ms * (800 + (int64_t)(outbox->random % 401));
    attempts->backoff_ms = ASSAY_MIN(2 * attempts->backoff_ms, BACKOFF_MAX_MS);
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    pthread_mutex_lock(&outbox->lock);
    while (!outbox->hurried && assay_now_us() < until_us)
        pthread_cond_timedwait(&outbox->changed, &outbox->lock, &until);
    bool may = !outbox->hurried;
    pthread_mutex_unlock(&outbox->lock);
    return may;
}

/* Waits for the next attempt. False when there is none: the failure will not pass, or time is up. */
static bool may_retry(struct assay_outbox *outbox, struct attempts *attempts, enum assay_status status)
{
    attempts->made++;
    if (!is_passing(status) || attempts->made == outbox->options.attempts_max ||
        assay_now_ms() - attempts->first_ms >= outbox->options.retry_ms)
        return false;
    return back_off(outbox, attempts);
}

/* A batch on its way. */
struct sending {
    const struct assay_batch *batch;
    struct assay_shard_map *map; /* the lease's, which only this thread reads and renews; may be NULL */
    bool *sent;                  /* [count] */
    struct assay_put_group group;
    size_t indices[ASSAY_PUT_RECORDS_MAX]; /* of the group's records in the batch */
    unsigned redirects;
};

static const char *endpoint_of(const struct sending *sending, const struct assay_outgoing *record)
{
    size_t owner = sending->map ? assay_shard_map_owner(sending->map, &record->key) : ASSAY_SHARD_NONE;
    return owner == ASSAY_SHARD_NONE ? sending->batch->loan->lease.evaluator : sending->map->shards[owner].endpoint;
}

/* Records that go to one evaluator in one message. False: all were sent. */
static bool fill_group(struct sending *sending)
{
    const struct assay_batch *batch = sending->batch;
    struct assay_put_group *group = &sending->group;
    size_t bytes = 0;
    *group = (struct assay_put_group){.epoch = sending->map ? sending->map->epoch : 0,
                                      .variant = &batch->loan->lease.variant};
    for (size_t i = 0; i < batch->count && group->count < ASSAY_PUT_RECORDS_MAX; i++) {
        const struct assay_outgoing *record = &batch->records[i];
        if (sending->sent[i])
            continue;
        const char *endpoint = endpoint_of(sending, record);
        if (group->count > 0 && (strcmp(endpoint, group->endpoint) != 0 || bytes >= PUT_BYTES_MAX))
            continue;
        group->endpoint = endpoint;
        bytes += assay_outgoing_bytes(record);
        sending->indices[group->count] = i;
        group->records[group->count++] = record;
    }
    return group->count > 0;
}

/* Puts the group, again and again while the failure may pass. */
static enum assay_status put_group(struct assay_outbox *outbox, struct sending *sending, struct assay_shard_map *told,
                                   struct assay_err *err)
{
    struct attempts attempts = attempts_begin(outbox);
    enum assay_status status;
    do {
        *err = (struct assay_err)ASSAY_ERR_INIT;
        status =
            assay_link_put(outbox->link, &sending->group, sending->batch->memory, told, outbox->options.put_ms, err);
    } while (status != ASSAY_OK && may_retry(outbox, &attempts, status));
    if (status != ASSAY_OK)
        assay_err_prefix(err, "put to %s, attempt %zu", sending->group.endpoint, attempts.made);
    return status;
}

/* A later map replaces ours. */
static enum assay_status take_map(struct sending *sending, const struct assay_shard_map *told, struct assay_err *err)
{
    if (++sending->redirects > REDIRECTS_MAX || assay_shard_map_owners(told) == 0)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the evaluators changed %u times while records were on their way",
                             sending->redirects);
    assay_log(ASSAY_LOG_INFO, "the evaluators changed, records go elsewhere epoch=%llu",
              (unsigned long long)told->epoch);
    assay_shard_map_copy(sending->map, told);
    return ASSAY_OK;
}

/* Notes what is stored. */
static enum assay_status note_group(struct assay_outbox *outbox, struct sending *sending,
                                    const struct assay_shard_map *told, struct assay_err *err)
{
    const struct assay_put_group *group = &sending->group;
    size_t moved = 0;
    for (size_t i = 0; i < group->count; i++) {
        sending->sent[sending->indices[i]] = !group->moved[i];
        moved += group->moved[i];
    }
    atomic_fetch_add(&outbox->sent, group->count - moved);
    return sending->map && told->epoch > 0 ? take_map(sending, told, err) : ASSAY_OK;
}

/* An owner that is gone: the others know who has its share, once the coordinator has told them. True: they do. */
static bool ask_others(struct assay_outbox *outbox, struct sending *sending, struct assay_shard_map *told)
{
    for (size_t i = 0; i < sending->map->count; i++) {
        struct assay_put_group question = {.endpoint = sending->map->shards[i].endpoint, .epoch = sending->map->epoch};
        if (strcmp(question.endpoint, sending->group.endpoint) != 0 &&
            assay_link_put(outbox->link, &question, NULL, told, ASK_MAP_MS, NULL) == ASSAY_OK && told->epoch > 0)
            return true;
    }
    return false;
}

/* After the attempts at one evaluator have failed. OK: there is another map now. Else err stays as it is. */
static enum assay_status go_elsewhere(struct assay_outbox *outbox, struct sending *sending,
                                      struct assay_shard_map *told, struct assay_err *err)
{
    struct attempts attempts = attempts_begin(outbox);
    if (!is_passing(err->status) || !sending->map || sending->map->count < 2)
        return err->status;
    bool found;
    do {
        found = ask_others(outbox, sending, told);
    } while (!found && assay_now_ms() - attempts.first_ms < outbox->options.elsewhere_ms &&
             back_off(outbox, &attempts));
    return found ? take_map(sending, told, err) : err->status;
}

/* Marks the records that the evaluators have. */
static enum assay_status put_all(struct assay_outbox *outbox, struct sending *sending, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_shard_map *told = sending->map ? calloc(1, sizeof *told) : NULL;
    enum assay_status status = ASSAY_OK;
    if (sending->map && !told)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    while (status == ASSAY_OK && fill_group(sending)) {
        status = put_group(outbox, sending, told, err);
        status = status == ASSAY_OK ? note_group(outbox, sending, told, err) : go_elsewhere(outbox, sending, told, err);
    }
    return status;
}

static enum assay_status complete(struct assay_outbox *outbox, const struct assay_worker_lease *lease,
                                  const struct assay_completion *completion, bool *ret_lost, struct assay_err *err)
{
    struct attempts attempts = attempts_begin(outbox);
    enum assay_status status;
    do {
        *err = (struct assay_err)ASSAY_ERR_INIT;
        status = assay_link_complete(outbox->link, lease->service_id, lease->lease_id, completion,
                                     outbox->options.complete_ms, ret_lost, err);
    } while (status != ASSAY_OK && may_retry(outbox, &attempts, status));
    return status;
}

static void tell_coordinator(struct assay_outbox *outbox, const struct assay_batch *batch, const bool *sent,
                             const struct assay_err *failure)
{
    const struct assay_worker_lease *lease = &batch->loan->lease;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_chunk_key *keys = calloc(batch->count + 1, sizeof *keys);
    uint64_t tokens = 0, tokens_all = 0;
    size_t keys_count = 0;
    bool lost = false;
    for (size_t i = 0; i < batch->count; i++) {
        tokens_all += batch->tokens[i];
        tokens += sent[i] ? batch->tokens[i] : 0;
        if (keys && sent[i] && !batch->records[i].is_extra)
            keys[keys_count++] = batch->records[i].key;
    }
    const struct assay_completion completion = {
        .keys = keys,
        .count = keys_count,
        .tokens = tokens,
        .compute_us = tokens_all ? batch->compute_us * tokens / tokens_all : 0,
        .failure = failure->status == ASSAY_OK ? NULL : failure,
        .too_large = batch->too_large,
    };
    enum assay_status status = complete(outbox, lease, &completion, &lost, &err);
    free(keys);
    if (status != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "lease given up lease=%llu status=%s reason=\"%s\"",
                  (unsigned long long)lease->lease_id, assay_status_name(status), err.text);
    else if (lost)
        assay_log(ASSAY_LOG_WARN, "lease lost lease=%llu", (unsigned long long)lease->lease_id);
    if (status != ASSAY_OK || lost || completion.failure)
        atomic_store(&batch->loan->is_over, true);
}

static void send_batch(struct assay_outbox *outbox, const struct assay_batch *batch)
{
    struct assay_err failure = ASSAY_ERR_INIT;
    if (assay_loan_is_over(batch->loan))
        return;
    assay_auto(assay_free_ptr) bool *sent = calloc(batch->count + 1, sizeof *sent);
    if (!sent)
        return; /* the lease ends by itself */
    struct sending sending = {.batch = batch, .map = batch->loan->lease.map, .sent = sent};
    enum assay_status status = put_all(outbox, &sending, &failure);
    if (status == ASSAY_OK)
        failure = batch->failure;
    else if (failure.status == ASSAY_CANCELLED)
        assay_err_set(&failure, ASSAY_UNAVAILABLE, "the worker is shutting down");
    if (failure.status != ASSAY_OK)
        assay_log(ASSAY_LOG_WARN, "lease given back lease=%llu status=%s reason=\"%s\"",
                  (unsigned long long)batch->loan->lease.lease_id, assay_status_name(failure.status), failure.text);
    tell_coordinator(outbox, batch, sent, &failure);
}

static void trace_batch(struct assay_outbox *outbox, const struct assay_batch *batch)
{
    struct assay_span span;
    assay_trace_set(batch->loan->lease.trace_id);
    assay_span_begin(&span, "send", NULL);
    send_batch(outbox, batch);
    assay_span_number(&span, "records", (int64_t)batch->count);
    assay_span_end(&span);
    assay_trace_set(NULL);
}

static void *send_batches(void *arg)
{
    struct assay_outbox *outbox = arg;
    pthread_setname_np(pthread_self(), "assay-outbox");
    pthread_mutex_lock(&outbox->lock);
    for (;;) {
        while (outbox->count == 0 && !outbox->closed)
            pthread_cond_wait(&outbox->changed, &outbox->lock);
        if (outbox->count == 0)
            break;
        struct assay_batch *batch = outbox->batches[0];
        pthread_mutex_unlock(&outbox->lock);
        trace_batch(outbox, batch);
        pthread_mutex_lock(&outbox->lock);
        assay_batch_free(batch); /* with the lock held: whoever asks for the leases reads the batches that are here */
        memmove(outbox->batches, outbox->batches + 1, (ASSAY_OUTBOX_MAX - 1) * sizeof(struct assay_batch *));
        outbox->count--;
        pthread_cond_broadcast(&outbox->changed);
    }
    pthread_mutex_unlock(&outbox->lock);
    return NULL;
}

/* --- the outbox --- */

enum assay_status assay_outbox_start(struct assay_link *link, const struct assay_outbox_options *options,
                                     struct assay_outbox **ret, struct assay_err *err)
{
    struct assay_outbox *outbox = calloc(1, sizeof *outbox);
    if (!outbox)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while starting the outbox");
    outbox->link = link;
    outbox->options = *options;
    outbox->random = (uint64_t)assay_now_us() | 1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&outbox->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&outbox->lock, NULL);
    int failed = pthread_create(&outbox->thread, NULL, send_batches, outbox);
    if (failed) {
        outbox->closed = true;
        assay_outbox_free(outbox);
        return assay_err_errno(err, failed, "cannot start a thread");
    }
    *ret = outbox;
    return ASSAY_OK;
}

void assay_outbox_add(struct assay_outbox *outbox, struct assay_batch *batch)
{
    pthread_mutex_lock(&outbox->lock);
    while (outbox->count == ASSAY_OUTBOX_MAX)
        pthread_cond_wait(&outbox->changed, &outbox->lock);
    outbox->batches[outbox->count++] = batch;
    pthread_cond_broadcast(&outbox->changed);
    pthread_mutex_unlock(&outbox->lock);
}

void assay_outbox_hurry(struct assay_outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    outbox->hurried = true;
    pthread_cond_broadcast(&outbox->changed);
    pthread_mutex_unlock(&outbox->lock);
}

void assay_outbox_drain(struct assay_outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    outbox->closed = true;
    pthread_cond_broadcast(&outbox->changed);
    pthread_mutex_unlock(&outbox->lock);
    pthread_join(outbox->thread, NULL);
}

void assay_outbox_free(struct assay_outbox *outbox)
{
    if (!outbox)
        return;
    if (!outbox->closed)
        assay_outbox_drain(outbox);
    pthread_cond_destroy(&outbox->changed);
    pthread_mutex_destroy(&outbox->lock);
    free(outbox);
}

size_t assay_outbox_leases(struct assay_outbox *outbox, uint64_t ids[ASSAY_OUTBOX_MAX])
{
    size_t count = 0;
    pthread_mutex_lock(&outbox->lock);
    for (size_t i = 0; i < outbox->count; i++) {
        uint64_t id = outbox->batches[i]->loan->lease.lease_id;
        if (count == 0 || ids[count - 1] != id) /* batches of a lease follow each other */
            ids[count++] = id;
    }
    pthread_mutex_unlock(&outbox->lock);
    return count;
}

size_t assay_outbox_waiting(struct assay_outbox *outbox)
{
    pthread_mutex_lock(&outbox->lock);
    size_t count = outbox->count;
    pthread_mutex_unlock(&outbox->lock);
    return count;
}

uint64_t assay_outbox_sent(const struct assay_outbox *outbox)
{
    return atomic_load(&outbox->sent);
}
