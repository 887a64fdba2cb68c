/* The service Shards: what other evaluators fetch when chunks change their owner. */
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "services/evaluator/serve_internal.h"
#include "services/evaluator/shard_entry.h"

/* --- after the Puts that came before --- */

struct barrier {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool passed;
    struct assay_writer_entry entry;
};

static void pass(void *arg, const struct assay_err *none)
{
    struct barrier *barrier = arg;
    (void)none;
    pthread_mutex_lock(&barrier->lock);
    barrier->passed = true;
    pthread_cond_signal(&barrier->changed);
    pthread_mutex_unlock(&barrier->lock);
}

/* Our map is the later one by now: a Put that was taken under the former one is committed when this comes back. */
static enum assay_status wait_for_puts(struct assay_evaluator *evaluator, struct assay_err *err)
{
    struct barrier barrier = {.passed = false};
    pthread_mutex_init(&barrier.lock, NULL);
    pthread_cond_init(&barrier.changed, NULL);
    barrier.entry = (struct assay_writer_entry){.done = pass, .arg = &barrier};
    pthread_mutex_lock(&evaluator->taking);
    enum assay_status status = assay_writer_submit(evaluator->writer, &barrier.entry, err);
    pthread_mutex_unlock(&evaluator->taking);
    pthread_mutex_lock(&barrier.lock);
    while (status == ASSAY_OK && !barrier.passed)
        pthread_cond_wait(&barrier.changed, &barrier.lock);
    pthread_mutex_unlock(&barrier.lock);
    pthread_cond_destroy(&barrier.changed);
    pthread_mutex_destroy(&barrier.lock);
    return status;
}

/* --- List --- */

struct wanted {
    struct assay_shard_map map;
    size_t who;
};

static bool is_wanted(void *arg, const struct assay_chunk_key *chunk)
{
    const struct wanted *wanted = arg;
    return assay_shard_map_owner(&wanted->map, chunk) == wanted->who;
}

static enum assay_status send_entries(struct assay_call *call, const struct assay_share_entry *entries, size_t count,
                                      struct assay_err *err)
{
    assay_auto(assay_free_ptr) Assay__V1__ShardEntry *messages = calloc(SHARD_ENTRIES_MAX, sizeof *messages);
    assay_auto(assay_free_ptr) Assay__V1__ShardEntry **pointers = calloc(SHARD_ENTRIES_MAX, sizeof *pointers);
    enum assay_status status = ASSAY_OK;
    if (!messages || !pointers)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of records");
    for (size_t done = 0; done < count && status == ASSAY_OK; done += SHARD_ENTRIES_MAX) {
        Assay__V1__ListShardReply reply = ASSAY__V1__LIST_SHARD_REPLY__INIT;
        size_t page = ASSAY_MIN(count - done, (size_t)SHARD_ENTRIES_MAX);
        for (size_t i = 0; i < page; i++) {
            shard_entry_fill(&messages[i], &entries[done + i]);
            pointers[i] = &messages[i];
        }
        reply.n_entries = page;
        reply.entries = pointers;
        status = assay_call_send(call, &reply.base, NULL, 0);
    }
    return status == ASSAY_OK ? status : assay_err_set(err, status, "the evaluator that fetches its share is gone");
}

static enum assay_status run_list(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    const Assay__V1__ListShardRequest *request = assay_call_request(call);
    struct assay_shard_id who;
    struct assay_share_entry *entries = NULL;
    size_t count = 0;
    assay_auto(assay_free_ptr) struct wanted *wanted = calloc(1, sizeof *wanted);
    if (!wanted)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the map of evaluators");
    enum assay_status status = assay_shard_id_from(request->shard_id.data, request->shard_id.len, &who, err);
    if (status == ASSAY_OK)
        status = assay_shards_check(evaluator->shards, request->epoch, false, err);
    if (status != ASSAY_OK)
        return status;
    assay_shards_map(evaluator->shards, &wanted->map);
    wanted->who = assay_shard_map_find(&wanted->map, &who);
    if (wanted->who == ASSAY_SHARD_NONE || assay_shard_id_compare(&who, assay_shards_self(evaluator->shards)) == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "shard_id: found no other evaluator of the map");
    status = wait_for_puts(evaluator, err);
    if (status == ASSAY_OK)
        status = assay_share_list(evaluator->records, is_wanted, wanted, &entries, &count, err);
    if (status == ASSAY_OK)
        status = send_entries(call, entries, count, err);
    free(entries);
    if (status == ASSAY_OK)
        assay_call_end(call);
    return status;
}

void serve_shard_list(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_list);
}

/* --- Fetch --- */

struct fetched {
    Assay__V1__ShardValue values[SHARD_FETCH_MAX], *pointers[SHARD_FETCH_MAX];
    Assay__V1__Tensor tensors[SHARD_FETCH_MAX];
    uint64_t shapes[SHARD_FETCH_MAX][1];
    struct assay_attachment attachments[SHARD_FETCH_MAX];
    size_t count;
};

static void add_value(struct fetched *fetched, uint32_t index, const struct assay_share_entry *entry, void *bytes,
                      size_t len)
{
    size_t at = fetched->count++;
    Assay__V1__ShardValue *value = &fetched->values[at];
    Assay__V1__Tensor *tensor = &fetched->tensors[at];
    assay__v1__shard_value__init(value);
    assay__v1__tensor__init(tensor);
    tensor->has_dtype = tensor->has_attachment = true;
    tensor->dtype = ASSAY__V1__DTYPE__DTYPE_U8;
    fetched->shapes[at][0] = len;
    tensor->n_shape = 1;
    tensor->shape = fetched->shapes[at];
    tensor->attachment = (uint32_t)at;
    value->has_entry = value->has_checksum = true;
    value->entry = index;
    value->value = tensor;
    value->checksum = assay_share_checksum(entry, bytes, len);
    fetched->pointers[at] = value;
    fetched->attachments[at] = (struct assay_attachment){bytes, len, assay_attachment_free, NULL};
}

/* Values that are gone or damaged are left out. */
static enum assay_status read_values(struct assay_evaluator *evaluator, const struct assay_share_entry *entries,
                                     size_t count, struct fetched *fetched, struct assay_err *err)
{
    for (size_t i = 0; i < count; i++) {
        void *bytes = NULL;
        size_t len = 0;
        enum assay_status status = assay_share_read(evaluator->records, &entries[i], &bytes, &len, err);
        if (status == ASSAY_OK)
            add_value(fetched, (uint32_t)i, &entries[i], bytes, len);
        else if (status != ASSAY_NOT_FOUND && status != ASSAY_DATA_LOSS)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status run_fetch(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    const Assay__V1__FetchShardRequest *request = assay_call_request(call);
    assay_auto(assay_free_ptr) struct assay_share_entry *entries = NULL;
    assay_auto(assay_free_ptr) struct fetched *fetched = calloc(1, sizeof *fetched);
    if (!fetched)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a Fetch");
    if (request->n_entries > SHARD_FETCH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a Fetch has at most %d entries, found %zu", SHARD_FETCH_MAX,
                             request->n_entries);
    enum assay_status status = shard_entries_read(request->entries, request->n_entries, &entries, err);
    if (status == ASSAY_OK)
        status = assay_shards_check(evaluator->shards, request->epoch, false, err);
    if (status == ASSAY_OK)
        status = read_values(evaluator, entries, request->n_entries, fetched, err);
    if (status != ASSAY_OK) {
        for (size_t i = 0; i < fetched->count; i++)
            free((void *)(uintptr_t)fetched->attachments[i].data);
        return status;
    }
    Assay__V1__FetchShardReply reply = ASSAY__V1__FETCH_SHARD_REPLY__INIT;
    reply.n_values = fetched->count;
    reply.values = fetched->pointers;
    assay_call_reply(call, &reply.base, fetched->attachments, fetched->count);
    return ASSAY_OK;
}

void serve_shard_fetch(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_fetch);
}

/* --- Release --- */

/* What belongs here by now is not dropped: the map may have changed twice. */
static size_t keep_foreign(struct assay_evaluator *evaluator, struct assay_share_entry *entries, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!assay_shards_is_mine(evaluator->shards, &entries[i].chunk))
            entries[kept++] = entries[i];
    return kept;
}

static enum assay_status run_release(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    const Assay__V1__ReleaseShardRequest *request = assay_call_request(call);
    Assay__V1__ReleaseShardReply reply = ASSAY__V1__RELEASE_SHARD_REPLY__INIT;
    struct assay_shard_id who;
    assay_auto(assay_free_ptr) struct assay_share_entry *entries = NULL;
    enum assay_status status = assay_shard_id_from(request->shard_id.data, request->shard_id.len, &who, err);
    if (status == ASSAY_OK)
        status = shard_entries_read(request->entries, request->n_entries, &entries, err);
    if (status == ASSAY_OK)
        status = assay_shards_check(evaluator->shards, request->epoch, false, err);
    if (status != ASSAY_OK)
        return status;
    size_t count = keep_foreign(evaluator, entries, request->n_entries);
    if (count > 0)
        status = assay_share_drop(evaluator->records, entries, count, &reply.dropped, err);
    if (status != ASSAY_OK)
        return status;
    if (request->done)
        assay_shards_note_done(evaluator->shards, &who, request->epoch);
    reply.has_dropped = true;
    assay_call_reply(call, &reply.base, NULL, 0);
    return ASSAY_OK;
}

void serve_shard_release(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_release);
}
