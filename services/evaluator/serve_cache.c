#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "proto/record.pb-c.h"
#include "services/evaluator/cache.h"
#include "services/evaluator/serve_internal.h"

/* Messages of a List and of a Verify. */
#define LIST_RECORDS_MAX 1000
#define VERIFY_DAMAGES_MAX 100
#define VERIFY_PROGRESS_MS 500
/* Sets of records (variant, numerics id, dtype) in one answer. */
#define STAT_VARIANTS_MAX 10000

#define US_A_DAY 86400e6

struct cache_call {
    struct cache_call *next;
    struct assay_evaluator *evaluator;
    struct assay_call *call;
    serve_run_fn run; /* answers the call when it is OK */
    pthread_t thread;
    bool ended;
};

static Assay__V1__Dtype dtype_message(enum assay_record_dtype dtype)
{
    return dtype == ASSAY_RECORD_F16 ? ASSAY__V1__DTYPE__DTYPE_F16 : ASSAY__V1__DTYPE__DTYPE_F32;
}

static ProtobufCBinaryData digest_bytes(const struct assay_digest *digest)
{
    return (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)digest->bytes};
}

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of records");
}

/* --- Stat --- */

struct set {
    Assay__V1__CacheVariant message;
    struct assay_variant_id variant;
    struct assay_cache_name name;
    bool known;
    uint32_t numerics;
    enum assay_record_dtype dtype;
};

struct sets {
    struct set *at;
    size_t count, capacity;
    Assay__V1__CacheVariant **messages;
};

static struct set *find_set(struct sets *sets, const struct assay_cache_entry *entry)
{
    for (size_t i = 0; i < sets->count; i++) {
        struct set *set = &sets->at[i];
        if (set->numerics == entry->numerics && set->known == entry->known &&
            (!set->known ||
             (set->dtype == entry->dtype && assay_digest_equal(&set->variant.digest, &entry->variant.digest))))
            return set;
    }
    if (sets->count == sets->capacity) {
        size_t capacity = sets->capacity ? sets->capacity * 2 : 16;
        struct set *grown = capacity <= STAT_VARIANTS_MAX * 2 ? realloc(sets->at, capacity * sizeof *grown) : NULL;
        if (!grown)
            return NULL;
        sets->at = grown;
        sets->capacity = capacity;
    }
    struct set *set = &sets->at[sets->count++];
    *set = (struct set){
        .variant = entry->variant, .known = entry->known, .numerics = entry->numerics, .dtype = entry->dtype};
    assay__v1__cache_variant__init(&set->message);
    return set;
}

static enum assay_status count_entry(const struct assay_cache_entry *entry, struct sets *sets,
                                     Assay__V1__CacheStatReply *reply, struct assay_err *err)
{
    if (entry->numerics == ASSAY_NUMERICS_NONE) {
        reply->samples++;
        reply->sample_bytes += entry->bytes;
        return ASSAY_OK;
    }
    struct set *set = find_set(sets, entry);
    if (!set)
        return no_memory(err);
    uint64_t used_ms = entry->used_us / 1000;
    reply->records++;
    reply->record_bytes += entry->bytes;
    reply->pinned += entry->pinned;
    reply->pinned_bytes += entry->pinned ? entry->bytes : 0;
    set->message.chunks++;
    set->message.bytes += entry->bytes;
    set->message.pinned += entry->pinned;
    set->message.last_used_wall_ms = ASSAY_MAX(set->message.last_used_wall_ms, used_ms);
    return ASSAY_OK;
}

static int by_bytes_descending(const void *a, const void *b)
{
    const struct set *x = a, *y = b;
    return (x->message.bytes < y->message.bytes) - (x->message.bytes > y->message.bytes);
}

/* The messages point into the sets, which must not move any more. */
static bool finish_sets(struct assay_records *records, struct sets *sets)
{
    sets->messages = calloc(sets->count + 1, sizeof(Assay__V1__CacheVariant *));
    if (!sets->messages)
        return false;
    if (sets->count > 0)
        qsort(sets->at, sets->count, sizeof *sets->at, by_bytes_descending);
    for (size_t i = 0; i < sets->count; i++) {
        struct set *set = &sets->at[i];
        Assay__V1__CacheVariant *message = &set->message;
        sets->messages[i] = message;
        message->has_chunks = message->has_bytes = message->has_pinned = message->has_last_used_wall_ms = true;
        message->numerics_id = (char *)(uintptr_t)assay_records_numerics(records, set->numerics);
        if (!set->known)
            continue;
        message->has_variant_id = message->has_dtype = true;
        message->variant_id = digest_bytes(&set->variant.digest);
        message->dtype = dtype_message(set->dtype);
        if (!assay_cache_name(records, &set->variant, &set->name))
            continue;
        message->label = set->name.label;
        message->has_model_id = true;
        message->model_id = digest_bytes(&set->name.model.digest);
    }
    return true;
}

static enum assay_status run_stat(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    struct assay_cache_entry *entries = NULL;
    size_t count = 0;
    struct sets sets = {0};
    Assay__V1__CacheStatReply reply = ASSAY__V1__CACHE_STAT_REPLY__INIT;
    enum assay_status status = assay_cache_list(evaluator->records, &entries, &count, err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = count_entry(&entries[i], &sets, &reply, err);
    if (status == ASSAY_OK && !finish_sets(evaluator->records, &sets))
        status = no_memory(err);
    if (status == ASSAY_OK) {
        reply.has_records = reply.has_record_bytes = reply.has_samples = reply.has_sample_bytes = true;
        reply.has_quota_bytes = reply.has_store_bytes = reply.has_pinned = reply.has_pinned_bytes = true;
        reply.quota_bytes = assay_cache_quota_bytes(evaluator->records);
        reply.store_bytes = assay_cache_store_bytes(evaluator->records);
        reply.n_variants = sets.count;
        reply.variants = sets.messages;
        assay_call_reply(call, &reply.base, NULL, 0);
    }
    free(sets.messages);
    free(sets.at);
    free(entries);
    return status;
}

/* --- List --- */

struct page {
    Assay__V1__CacheRecord records[LIST_RECORDS_MAX];
    Assay__V1__CacheRecord *pointers[LIST_RECORDS_MAX];
    size_t count;
};

static void add_record(struct assay_records *records, const struct assay_cache_entry *entry, struct page *page)
{
    Assay__V1__CacheRecord *message = &page->records[page->count];
    assay__v1__cache_record__init(message);
    if (entry->known) {
        message->has_chunk_key = message->has_variant_id = message->has_dtype = true;
        message->chunk_key = digest_bytes(&entry->chunk.digest);
        message->variant_id = digest_bytes(&entry->variant.digest);
        message->dtype = dtype_message(entry->dtype);
    }
    message->numerics_id = (char *)(uintptr_t)assay_records_numerics(records, entry->numerics);
    message->has_bytes = message->has_pinned = message->has_last_used_wall_ms = true;
    message->bytes = entry->bytes;
    message->pinned = entry->pinned;
    message->last_used_wall_ms = entry->used_us / 1000;
    page->pointers[page->count++] = message;
}

static enum assay_status send_page(struct assay_call *call, struct page *page, struct assay_err *err)
{
    Assay__V1__CacheListReply reply = ASSAY__V1__CACHE_LIST_REPLY__INIT;
    reply.n_records = page->count;
    reply.records = page->pointers;
    page->count = 0;
    enum assay_status status = assay_call_send(call, &reply.base, NULL, 0);
    return status == ASSAY_OK ? status : assay_err_set(err, status, "the client of a List call is gone");
}

static enum assay_status run_list(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_cache_entry *entries = NULL;
    assay_auto(assay_free_ptr) struct page *page = calloc(1, sizeof *page);
    size_t count = 0;
    enum assay_status status = page ? assay_cache_list(evaluator->records, &entries, &count, err) : no_memory(err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        if (entries[i].numerics == ASSAY_NUMERICS_NONE)
            continue;
        add_record(evaluator->records, &entries[i], page);
        if (page->count == LIST_RECORDS_MAX)
            status = send_page(call, page, err);
    }
    if (status == ASSAY_OK && page->count > 0)
        status = send_page(call, page, err);
    if (status == ASSAY_OK)
        assay_call_end(call);
    return status;
}

/* --- Verify --- */

struct verify {
    Assay__V1__CacheVerifyReply reply;
    char *damages[VERIFY_DAMAGES_MAX];
    int64_t sent_at_ms;
};

static enum assay_status send_verify(struct assay_call *call, struct verify *verify, struct assay_err *err)
{
    verify->reply.damages = verify->damages;
    enum assay_status status = assay_call_send(call, &verify->reply.base, NULL, 0);
    for (size_t i = 0; i < verify->reply.n_damages; i++)
        free(verify->damages[i]);
    verify->reply.n_damages = 0;
    verify->sent_at_ms = assay_now_ms();
    return status == ASSAY_OK ? status : assay_err_set(err, status, "the client of a Verify call is gone");
}

static enum assay_status verify_entry(struct assay_evaluator *evaluator, const struct assay_cache_entry *entry,
                                      struct verify *verify, struct assay_err *err)
{
    struct assay_err why = ASSAY_ERR_INIT;
    enum assay_status status = assay_cache_verify(evaluator->records, entry, &why);
    verify->reply.checked++;
    verify->reply.bytes += entry->bytes;
    if (status == ASSAY_OK || status == ASSAY_NOT_FOUND)
        return ASSAY_OK;
    if (status != ASSAY_DATA_LOSS)
        return assay_err_set(err, status, "%s", why.text);
    assay_log(ASSAY_LOG_WARN, "damaged value dropped reason=\"%s\"", why.text);
    verify->reply.damaged++;
    verify->damages[verify->reply.n_damages] = strdup(why.text);
    verify->reply.n_damages += verify->damages[verify->reply.n_damages] != NULL;
    return ASSAY_OK;
}

static enum assay_status run_verify(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_cache_entry *entries = NULL;
    size_t count = 0;
    struct verify verify = {.sent_at_ms = assay_now_ms()};
    assay__v1__cache_verify_reply__init(&verify.reply);
    enum assay_status status = assay_cache_list(evaluator->records, &entries, &count, err);
    verify.reply.has_checked = verify.reply.has_total = verify.reply.has_bytes = verify.reply.has_damaged = true;
    verify.reply.total = count;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        if (atomic_load(&evaluator->stopping))
            status = assay_err_set(err, ASSAY_UNAVAILABLE, "the evaluator is shutting down");
        else if (assay_call_cancelled(call))
            status = assay_err_set(err, ASSAY_CANCELLED, "the client of a Verify call is gone");
        else
            status = verify_entry(evaluator, &entries[i], &verify, err);
        if (status == ASSAY_OK &&
            (verify.reply.n_damages == VERIFY_DAMAGES_MAX || assay_now_ms() - verify.sent_at_ms >= VERIFY_PROGRESS_MS))
            status = send_verify(call, &verify, err);
    }
    if (status == ASSAY_OK)
        status = send_verify(call, &verify, err);
    for (size_t i = 0; i < verify.reply.n_damages; i++)
        free(verify.damages[i]);
    if (status == ASSAY_OK)
        assay_call_end(call);
    return status;
}

/* --- Prune --- */

static enum assay_status read_filter(const Assay__V1__CachePruneRequest *request, struct assay_cache_filter *filter,
                                     struct assay_err *err)
{
    *filter = (struct assay_cache_filter){.variant_prefix = request->variant_prefix,
                                          .has_older_than = request->has_older_than_days,
                                          .has_to_bytes = request->has_to_gb};
    if (!request->all && !filter->variant_prefix && !filter->has_older_than && !filter->has_to_bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a Prune needs variant_prefix, older_than_days, to_gb or all");
    if (filter->has_older_than && !(request->older_than_days >= 0 && request->older_than_days <= 1e6))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "older_than_days is %g, wanted 0 to 1000000",
                             request->older_than_days);
    if (filter->has_to_bytes && !(request->to_gb >= 0 && request->to_gb <= 1e6))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "to_gb is %g, wanted 0 to 1000000", request->to_gb);
    double since_us =
        (double)assay_wall_ms() * 1e3 - (filter->has_older_than ? request->older_than_days : 0) * US_A_DAY;
    filter->older_than_us = since_us > 0 ? (uint64_t)since_us : 0;
    filter->to_bytes = filter->has_to_bytes ? (uint64_t)(request->to_gb * 1e9) : 0;
    return ASSAY_OK;
}

static enum assay_status run_prune(struct assay_evaluator *evaluator, struct assay_call *call, struct assay_err *err)
{
    const Assay__V1__CachePruneRequest *request = assay_call_request(call);
    struct assay_cache_filter filter;
    struct assay_cache_pruned pruned;
    enum assay_status status = read_filter(request, &filter, err);
    if (status == ASSAY_OK)
        status = assay_cache_prune(evaluator->records, &filter, request->dry_run, &pruned, err);
    if (status != ASSAY_OK)
        return status;
    assay_log(ASSAY_LOG_INFO, "pruned records=%llu samples=%llu bytes=%llu dry_run=%d",
              (unsigned long long)pruned.records, (unsigned long long)pruned.samples, (unsigned long long)pruned.bytes,
              request->dry_run);
    Assay__V1__CachePruneReply reply = ASSAY__V1__CACHE_PRUNE_REPLY__INIT;
    reply.has_records = reply.has_samples = reply.has_bytes = reply.has_pinned = reply.has_bytes_left = true;
    reply.records = pruned.records;
    reply.samples = pruned.samples;
    reply.bytes = pruned.bytes;
    reply.pinned = pruned.pinned;
    reply.bytes_left = pruned.bytes_left;
    assay_call_reply(call, &reply.base, NULL, 0);
    return ASSAY_OK;
}

/* --- threads --- */

static void *cache_main(void *arg)
{
    struct cache_call *cache = arg;
    struct assay_evaluator *evaluator = cache->evaluator;
    struct assay_err err = ASSAY_ERR_INIT;
    if (cache->run(evaluator, cache->call, &err) != ASSAY_OK)
        assay_call_fail(cache->call, &err);
    pthread_mutex_lock(&evaluator->lock);
    cache->ended = true;
    pthread_mutex_unlock(&evaluator->lock);
    return NULL;
}

/* The first call that has ended, or with `all` the first call, out of the list. */
static struct cache_call *take_ended(struct assay_evaluator *evaluator, bool all)
{
    pthread_mutex_lock(&evaluator->lock);
    struct cache_call **link = &evaluator->cache_calls;
    while (*link && !(*link)->ended && !all)
        link = &(*link)->next;
    struct cache_call *cache = *link;
    if (cache)
        *link = cache->next;
    pthread_mutex_unlock(&evaluator->lock);
    return cache;
}

void serve_reap_cache(struct assay_evaluator *evaluator, bool all)
{
    for (struct cache_call *cache; (cache = take_ended(evaluator, all));) {
        pthread_join(cache->thread, NULL);
        free(cache);
    }
}

static enum assay_status start_thread(struct assay_evaluator *evaluator, struct cache_call *cache,
                                      struct assay_err *err)
{
    size_t running = 0;
    pthread_mutex_lock(&evaluator->lock);
    for (const struct cache_call *other = evaluator->cache_calls; other; other = other->next)
        running++;
    enum assay_status status = ASSAY_OK;
    if (running >= ASSAY_EVALUATOR_CACHE_CALLS_MAX)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu calls look at the records already, at most %d may",
                               running, ASSAY_EVALUATOR_CACHE_CALLS_MAX);
    int failed = status == ASSAY_OK ? pthread_create(&cache->thread, NULL, cache_main, cache) : 0;
    if (failed)
        status = assay_err_errno(err, failed, "cannot start a thread for a look at the records");
    if (status == ASSAY_OK) {
        cache->next = evaluator->cache_calls;
        evaluator->cache_calls = cache;
    }
    pthread_mutex_unlock(&evaluator->lock);
    return status;
}

void serve_on_thread(struct assay_call *call, struct assay_evaluator *evaluator, serve_run_fn run)
{
    struct assay_err err = ASSAY_ERR_INIT;
    serve_reap_cache(evaluator, false);
    struct cache_call *cache = calloc(1, sizeof *cache);
    enum assay_status status = cache ? ASSAY_OK : no_memory(&err);
    if (status == ASSAY_OK && atomic_load(&evaluator->stopping))
        status = assay_err_set(&err, ASSAY_UNAVAILABLE, "the evaluator is shutting down");
    if (status == ASSAY_OK) {
        *cache = (struct cache_call){.evaluator = evaluator, .call = call, .run = run};
        status = start_thread(evaluator, cache, &err);
    }
    if (status != ASSAY_OK) {
        free(cache);
        assay_call_fail(call, &err);
    }
}

void serve_cache_stat(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_stat);
}

void serve_cache_list(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_list);
}

void serve_cache_verify(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_verify);
}

void serve_cache_prune(struct assay_call *call, void *evaluator)
{
    serve_on_thread(call, evaluator, run_prune);
}
