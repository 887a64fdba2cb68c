#include "services/evaluator/fetch_share.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "services/evaluator/shard_entry.h"

enum { METHOD_LIST, METHOD_FETCH, METHOD_RELEASE };

#define CALL_MS 60000
#define TURN_MS 200
#define CREDIT 8
/* Tries at values whose checksum does not hold. */
#define TRIES_MAX 3

/* Entries as they come; numerics names are copied, each once. */
struct entries {
    struct assay_share_entry *at;
    size_t count, capacity;
    char **names;
    size_t names_count;
};

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of records");
}

static void entries_release(struct entries *entries)
{
    for (size_t i = 0; i < entries->names_count; i++)
        free(entries->names[i]);
    free(entries->names);
    free(entries->at);
}

/* NULL: out of memory. */
static const char *keep_name(struct entries *entries, const char *name)
{
    for (size_t i = 0; i < entries->names_count; i++)
        if (strcmp(entries->names[i], name) == 0)
            return entries->names[i];
    char **names = realloc(entries->names, (entries->names_count + 1) * sizeof *names);
    if (names)
        entries->names = names;
    char *copy = names ? strdup(name) : NULL;
    if (copy)
        entries->names[entries->names_count++] = copy;
    return copy;
}

static enum assay_status add_entry(struct entries *entries, const Assay__V1__ShardEntry *message, struct assay_err *err)
{
    if (entries->count == entries->capacity) {
        size_t capacity = entries->capacity ? 2 * entries->capacity : 256;
        struct assay_share_entry *grown = realloc(entries->at, capacity * sizeof *grown);
        if (!grown)
            return no_memory(err);
        entries->at = grown;
        entries->capacity = capacity;
    }
    struct assay_share_entry *entry = &entries->at[entries->count];
    enum assay_status status = shard_entry_read(message, entry, err);
    if (status != ASSAY_OK)
        return status;
    entry->numerics = keep_name(entries, entry->numerics);
    if (!entry->numerics)
        return no_memory(err);
    entries->count++;
    return ASSAY_OK;
}

/* --- List --- */

static enum assay_status list(struct share_fetch *fetch, struct assay_client *client, struct entries *entries,
                              struct assay_err *err)
{
    Assay__V1__ListShardRequest request = ASSAY__V1__LIST_SHARD_REQUEST__INIT;
    struct assay_stream *stream = NULL;
    request.has_epoch = request.has_shard_id = true;
    request.epoch = fetch->epoch;
    request.shard_id = (ProtobufCBinaryData){ASSAY_SHARD_ID_BYTES, (uint8_t *)(uintptr_t)fetch->self->bytes};
    enum assay_status status = assay_stream_open(client, &assay__v1__shards__descriptor, METHOD_LIST, &request.base,
                                                 NULL, CREDIT, &stream, err);
    while (status == ASSAY_OK) {
        struct assay_reply *reply = NULL;
        struct assay_err why = ASSAY_ERR_INIT;
        status = assay_stream_next(stream, TURN_MS, &reply, &why);
        if (status == ASSAY_OK && !reply)
            break;
        if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0])
            status = ASSAY_OK;
        else if (status != ASSAY_OK && err)
            *err = why;
        const Assay__V1__ListShardReply *message = reply ? assay_reply_message(reply) : NULL;
        for (size_t i = 0; message && i < message->n_entries && status == ASSAY_OK; i++)
            status = add_entry(entries, message->entries[i], err);
        assay_reply_free(reply);
        if (status == ASSAY_OK && fetch->cancelled(fetch->arg))
            status = assay_err_set(err, ASSAY_CANCELLED, "the evaluators changed meanwhile");
    }
    assay_stream_close(stream);
    return status;
}

/* --- Fetch --- */

static enum assay_status read_value(const struct assay_reply *reply, const Assay__V1__ShardValue *message,
                                    const struct assay_share_entry *entries, size_t count,
                                    struct assay_share_value *ret, struct assay_err *err)
{
    const Assay__V1__Tensor *tensor = message->value;
    if (!message->has_entry || message->entry >= count || !tensor || tensor->dtype != ASSAY__V1__DTYPE__DTYPE_U8 ||
        tensor->attachment >= assay_reply_attachments(reply))
        return assay_err_set(err, ASSAY_INTERNAL,
                             "an evaluator answered a Fetch with a value that nobody asked it for");
    struct assay_bytes bytes = assay_reply_attachment(reply, tensor->attachment);
    *ret = (struct assay_share_value){entries[message->entry], bytes.data, bytes.bytes};
    if (assay_share_checksum(&ret->entry, bytes.data, bytes.bytes) != message->checksum)
        return assay_err_set(err, ASSAY_DATA_LOSS, "a value that was fetched is damaged: its checksum does not hold");
    return ASSAY_OK;
}

static enum assay_status fetch_once(struct share_fetch *fetch, struct assay_client *client,
                                    const struct assay_share_entry *entries, size_t count, struct assay_err *err)
{
    Assay__V1__FetchShardRequest request = ASSAY__V1__FETCH_SHARD_REQUEST__INIT;
    Assay__V1__ShardEntry messages[SHARD_FETCH_MAX], *pointers[SHARD_FETCH_MAX];
    struct assay_share_value values[SHARD_FETCH_MAX];
    struct assay_reply *reply = NULL;
    const struct assay_call_options options = {.deadline_ms = CALL_MS};
    for (size_t i = 0; i < count; i++) {
        shard_entry_fill(&messages[i], &entries[i]);
        pointers[i] = &messages[i];
    }
    request.has_epoch = true;
    request.epoch = fetch->epoch;
    request.n_entries = count;
    request.entries = pointers;
    enum assay_status status =
        assay_call_unary(client, &assay__v1__shards__descriptor, METHOD_FETCH, &request.base, &options, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__FetchShardReply *message = assay_reply_message(reply);
    uint64_t bytes = 0;
    if (message->n_values > count)
        status = assay_err_set(err, ASSAY_INTERNAL, "an evaluator answered a Fetch of %zu values with %zu", count,
                               message->n_values);
    for (size_t i = 0; i < message->n_values && status == ASSAY_OK; i++) {
        status = read_value(reply, message->values[i], entries, count, &values[i], err);
        bytes += values[i].len;
    }
    if (status == ASSAY_OK)
        status = assay_share_write(fetch->records, values, message->n_values, err);
    if (status == ASSAY_OK) {
        fetch->fetched += message->n_values;
        fetch->fetched_bytes += bytes;
    }
    assay_reply_free(reply);
    return status;
}

/* Damage on the way passes; what does not fit the quota is computed again when it is needed. */
static enum assay_status fetch_group(struct share_fetch *fetch, struct assay_client *client,
                                     const struct assay_share_entry *entries, size_t count, struct assay_err *err)
{
    for (int attempt = 1;; attempt++) {
        struct assay_err why = ASSAY_ERR_INIT;
        enum assay_status status = fetch_once(fetch, client, entries, count, &why);
        if (status == ASSAY_DATA_LOSS || status == ASSAY_RESOURCE_EXHAUSTED) {
            assay_log(ASSAY_LOG_WARN, "records are not taken over from=%s attempt=%d reason=\"%s\"", fetch->endpoint,
                      attempt, why.text);
            if (status == ASSAY_DATA_LOSS && attempt < TRIES_MAX)
                continue;
            return ASSAY_OK;
        }
        if (status != ASSAY_OK && err)
            *err = why;
        return status;
    }
}

/* --- Release --- */

static enum assay_status release(struct share_fetch *fetch, struct assay_client *client,
                                 const struct assay_share_entry *entries, size_t count, bool done,
                                 struct assay_err *err)
{
    Assay__V1__ReleaseShardRequest request = ASSAY__V1__RELEASE_SHARD_REQUEST__INIT;
    struct assay_reply *reply = NULL;
    const struct assay_call_options options = {.deadline_ms = CALL_MS};
    assay_auto(assay_free_ptr) Assay__V1__ShardEntry *messages = calloc(count + 1, sizeof *messages);
    assay_auto(assay_free_ptr) Assay__V1__ShardEntry **pointers = calloc(count + 1, sizeof *pointers);
    if (!messages || !pointers)
        return no_memory(err);
    for (size_t i = 0; i < count; i++)
        if (assay_share_has(fetch->records, &entries[i])) {
            shard_entry_fill(&messages[request.n_entries], &entries[i]);
            pointers[request.n_entries] = &messages[request.n_entries];
            request.n_entries++;
        }
    if (request.n_entries == 0 && !done)
        return ASSAY_OK;
    request.has_epoch = request.has_shard_id = request.has_done = true;
    request.epoch = fetch->epoch;
    request.shard_id = (ProtobufCBinaryData){ASSAY_SHARD_ID_BYTES, (uint8_t *)(uintptr_t)fetch->self->bytes};
    request.entries = pointers;
    request.done = done;
    enum assay_status status =
        assay_call_unary(client, &assay__v1__shards__descriptor, METHOD_RELEASE, &request.base, &options, &reply, err);
    assay_reply_free(reply);
    return status;
}

/* --- all of it --- */

static size_t group_end(const struct share_fetch *fetch, const struct entries *entries, size_t begin,
                        struct assay_share_entry *group, size_t *ret_count)
{
    uint64_t bytes = 0;
    size_t at = begin, count = 0;
    for (; at < entries->count && count < SHARD_FETCH_MAX && (count == 0 || bytes < SHARD_FETCH_BYTES); at++) {
        if (assay_share_has(fetch->records, &entries->at[at]))
            continue;
        bytes += entries->at[at].bytes;
        if (count > 0 && bytes > SHARD_FETCH_BYTES)
            break;
        group[count++] = entries->at[at];
    }
    *ret_count = count;
    return at;
}

static enum assay_status fetch_entries(struct share_fetch *fetch, struct assay_client *client,
                                       const struct entries *entries, struct assay_err *err)
{
    struct assay_share_entry group[SHARD_FETCH_MAX];
    enum assay_status status = ASSAY_OK;
    size_t released = 0;
    for (size_t at = 0; at < entries->count && status == ASSAY_OK;) {
        size_t count = 0;
        at = group_end(fetch, entries, at, group, &count);
        if (count > 0)
            status = fetch_group(fetch, client, group, count, err);
        while (status == ASSAY_OK && released < at) {
            size_t page = ASSAY_MIN(at - released, (size_t)SHARD_ENTRIES_MAX);
            status = release(fetch, client, entries->at + released, page, false, err);
            released += page;
        }
        if (status == ASSAY_OK && fetch->cancelled(fetch->arg))
            status = assay_err_set(err, ASSAY_CANCELLED, "the evaluators changed meanwhile");
    }
    return status;
}

enum assay_status share_fetch_run(struct share_fetch *fetch, struct assay_err *err)
{
    struct assay_client *client = NULL;
    struct entries entries = {0};
    int64_t begin_ms = assay_now_ms();
    enum assay_status status = assay_client_new(fetch->loop, fetch->endpoint, &client, err);
    if (status == ASSAY_OK)
        status = list(fetch, client, &entries, err);
    if (status == ASSAY_OK)
        status = fetch_entries(fetch, client, &entries, err);
    if (status == ASSAY_OK)
        status = release(fetch, client, NULL, 0, true, err);
    assay_client_free(client);
    entries_release(&entries);
    fetch->wall_ms = assay_now_ms() - begin_ms;
    return status;
}
