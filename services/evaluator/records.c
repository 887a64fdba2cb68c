#include "services/evaluator/records.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/dtype.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/base/version.h"
#include "services/evaluator/room.h"

size_t assay_record_value_bytes(enum assay_record_dtype dtype)
{
    return dtype == ASSAY_RECORD_F32 ? sizeof(float) : dtype == ASSAY_RECORD_F16 ? sizeof(uint16_t) : 0;
}

struct assay_record_key assay_record_key_of(const struct assay_chunk_key *chunk, const struct assay_variant_id *variant,
                                            enum assay_record_dtype dtype)
{
    struct assay_hash hash;
    assay_hash_init(&hash, dtype == ASSAY_RECORD_F16 ? "assay.record.f16.v1" : "assay.record.v1");
    assay_hash_digest(&hash, &chunk->digest);
    assay_hash_digest(&hash, &variant->digest);
    assay_hash_u64(&hash, ASSAY_RECORD_VERSION);
    return (struct assay_record_key){assay_hash_final(&hash)};
}

/* --- opening --- */

static enum assay_status move_aside(const char *dir, char moved[ASSAY_PATH_MAX], struct assay_err *err)
{
    time_t now = (time_t)(assay_wall_ms() / 1000);
    struct tm utc;
    char when[32];
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &utc);
    for (unsigned n = 0; n < 100; n++) {
        int len = snprintf(moved, ASSAY_PATH_MAX, n ? "%s.damaged-%s-%u" : "%s.damaged-%s", dir, when, n);
        if (len < 0 || len >= ASSAY_PATH_MAX)
            break;
        if (rename(dir, moved) == 0)
            return ASSAY_OK;
        if (errno != EEXIST && errno != ENOTEMPTY)
            return assay_err_errno(err, errno, "cannot move the damaged store %s aside", dir);
    }
    return assay_err_set(err, ASSAY_INTERNAL, "found no name to move the damaged store %s aside", dir);
}

static enum assay_status open_store(const char *dir, char moved[ASSAY_PATH_MAX], struct assay_store **ret,
                                    struct assay_err *err)
{
    static const char *const tables[] = {ROOM_RECORDS, ROOM_SAMPLES, ROOM_USED, ROOM_ORIGINS, ROOM_NAMES, NULL};
    struct assay_store_options options = {dir, tables, false};
    enum assay_status status = assay_store_open(&options, ret, err);
    if (status != ASSAY_DATA_LOSS)
        return status;
    status = move_aside(dir, moved, err);
    return status == ASSAY_OK ? assay_store_open(&options, ret, err) : status;
}

enum assay_status assay_records_open(const char *dir, uint64_t quota_bytes, char moved[ASSAY_PATH_MAX],
                                     struct assay_records **ret, struct assay_err *err)
{
    char aside[ASSAY_PATH_MAX] = "";
    struct assay_records *records = calloc(1, sizeof *records);
    if (!records)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the record store");
    pthread_mutex_init(&records->lock, NULL);
    pthread_mutex_init(&records->write_lock, NULL);
    pthread_mutex_init(&records->watch_lock, NULL);
    records->quota_bytes = quota_bytes;
    records->index = assay_index_new();
    enum assay_status status = records->index
                                   ? open_store(dir, aside, &records->store, err)
                                   : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the record store");
    if (status == ASSAY_OK)
        status = room_load(records, err);
    if (status != ASSAY_OK) {
        assay_records_close(records);
        return status;
    }
    if (moved)
        strcpy(moved, aside);
    *ret = records;
    return ASSAY_OK;
}

void assay_records_close(struct assay_records *records)
{
    if (!records)
        return;
    if (records->store && records->index) {
        /* The order of use is a preference; a full disk may keep it from being written. */
        enum assay_status flushed = assay_records_flush(records, NULL);
        (void)flushed;
    }
    assay_store_close(records->store);
    assay_index_free(records->index);
    pthread_mutex_destroy(&records->watch_lock);
    pthread_mutex_destroy(&records->write_lock);
    pthread_mutex_destroy(&records->lock);
    free(records);
}

/* --- records --- */

static const char *chunk_hex(const struct assay_record *record, char hex[ASSAY_DIGEST_HEX])
{
    return assay_digest_hex(&record->chunk.digest, hex);
}

/* Blocks are copied to where they are aligned; the compiler makes vectors of the loops. */
enum { FINITE_BLOCK = 2048 };

static bool is_finite_f32(const unsigned char *bytes, size_t count)
{
    uint32_t block[FINITE_BLOCK], wrong = 0;
    for (size_t done = 0; done < count; done += FINITE_BLOCK) {
        size_t part = ASSAY_MIN(count - done, (size_t)FINITE_BLOCK);
        memcpy(block, bytes + done * sizeof *block, part * sizeof *block);
        for (size_t i = 0; i < part; i++)
            wrong |= (block[i] & 0x7F800000u) == 0x7F800000u;
    }
    return wrong == 0;
}

static bool is_finite_f16(const unsigned char *bytes, size_t count)
{
    uint16_t block[FINITE_BLOCK], wrong = 0;
    for (size_t done = 0; done < count; done += FINITE_BLOCK) {
        size_t part = ASSAY_MIN(count - done, (size_t)FINITE_BLOCK);
        memcpy(block, bytes + done * sizeof *block, part * sizeof *block);
        for (size_t i = 0; i < part; i++)
            wrong |= (uint16_t)((block[i] & 0x7C00u) == 0x7C00u);
    }
    return wrong == 0;
}

static bool row_is_finite(const struct assay_record *record, uint64_t row)
{
    const unsigned char *bytes = record->hidden;
    bytes += row * record->cols * assay_record_value_bytes(record->dtype);
    return record->dtype == ASSAY_RECORD_F16 ? is_finite_f16(bytes, record->cols) : is_finite_f32(bytes, record->cols);
}

enum assay_status assay_record_check(const struct assay_record *record, struct assay_err *err)
{
    char hex[ASSAY_DIGEST_HEX];
    if (record->rows < 1 || record->rows > ASSAY_RECORD_ROWS_MAX || record->cols < 1 ||
        record->cols > ASSAY_MODEL_DIM_MAX || record->rows * record->cols > ASSAY_RECORD_BYTES_MAX / sizeof(float))
        return assay_err_set(
            err, ASSAY_INVALID_ARGUMENT,
            "the record of chunk %s has the shape [%llu, %llu], wanted [1..%u, 1..%u] of at most %llu bytes",
            chunk_hex(record, hex), (unsigned long long)record->rows, (unsigned long long)record->cols,
            ASSAY_RECORD_ROWS_MAX, ASSAY_MODEL_DIM_MAX, (unsigned long long)ASSAY_RECORD_BYTES_MAX);
    for (uint64_t row = 0; row < record->rows; row++)
        if (!row_is_finite(record, row))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "the record of chunk %s holds a value that is not finite in row %llu of %llu",
                                 chunk_hex(record, hex), (unsigned long long)row, (unsigned long long)record->rows);
    return ASSAY_OK;
}

/* A record as it is to stand in the store; its values stay where they are. */
static void encode(const struct assay_record *record, const struct room_ref *ref, struct room_value *ret)
{
    *ret = (struct room_value){.table = ROOM_RECORDS,
                               .key = ref->key,
                               .numerics = ref->numerics,
                               .bytes = record->hidden,
                               .len = (size_t)(record->rows * record->cols) * assay_record_value_bytes(record->dtype),
                               .has_head = true,
                               .head = {.magic = RECORD_MAGIC,
                                        .version = ASSAY_RECORD_VERSION,
                                        .dtype = record->dtype,
                                        .rows = record->rows,
                                        .cols = record->cols,
                                        .chunk = record->chunk.digest,
                                        .variant = record->variant.digest},
                               .origin = {record->variant.digest, record->chunk.digest, record->dtype, 0}};
}

void records_notify(struct assay_records *records, const struct room_ref *refs, size_t count)
{
    pthread_mutex_lock(&records->watch_lock);
    for (struct assay_records_watch *watch = records->watches; watch; watch = watch->next)
        for (size_t i = 0; i < count; i++)
            watch->fn(watch->arg, &refs[i].key, refs[i].numerics);
    pthread_mutex_unlock(&records->watch_lock);
}

static bool in_refs(const struct room_ref *refs, size_t count, const struct room_ref *wanted)
{
    for (size_t i = 0; i < count; i++)
        if (refs[i].numerics == wanted->numerics && assay_digest_equal(&refs[i].key.digest, &wanted->key.digest))
            return true;
    return false;
}

/* Names all records and encodes those that are new. */
static enum assay_status encode_new(struct assay_records *records, const struct assay_record *put, size_t count,
                                    struct room_ref *refs, struct room_value *values, size_t *values_count,
                                    struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        refs[i].key = assay_record_key_of(&put[i].chunk, &put[i].variant, put[i].dtype);
        pthread_mutex_lock(&records->lock);
        status = assay_index_intern(records->index, put[i].numerics, &refs[i].numerics, err);
        bool there = status == ASSAY_OK && assay_index_has(records->index, &refs[i].key, refs[i].numerics);
        pthread_mutex_unlock(&records->lock);
        if (status == ASSAY_OK && !there && !in_refs(refs, i, &refs[i]))
            encode(&put[i], &refs[i], &values[(*values_count)++]);
    }
    return status;
}

enum assay_status assay_records_put(struct assay_records *records, const struct assay_record *put, size_t count,
                                    struct assay_err *err)
{
    size_t values_count = 0;
    struct room_value *values = calloc(count + 1, sizeof *values);
    struct room_ref *refs = calloc(count + 1, sizeof *refs);
    enum assay_status status = ASSAY_OK;
    if (!values || !refs)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu records", count);
    pthread_mutex_lock(&records->write_lock);
    if (status == ASSAY_OK)
        status = encode_new(records, put, count, refs, values, &values_count, err);
    if (status == ASSAY_OK && values_count > 0)
        status = room_write(records, values, values_count, err);
    pthread_mutex_unlock(&records->write_lock);
    if (status == ASSAY_OK)
        records_notify(records, refs, count);
    free(values);
    free(refs);
    return status;
}

/* --- questions --- */

struct tally {
    uint32_t *counts; /* by numerics */
};

static void count_numerics(void *arg, uint32_t numerics)
{
    ((struct tally *)arg)->counts[numerics]++;
}

/* The numerics of the largest set; among equals the first by name, so that the answer depends on nothing else. */
static uint32_t most_complete(const struct assay_index *index, const uint32_t *counts)
{
    uint32_t best = ASSAY_NUMERICS_NONE;
    for (uint32_t i = 1; i < assay_index_numerics_count(index); i++)
        if (counts[i] > 0 &&
            (best == ASSAY_NUMERICS_NONE || counts[i] > counts[best] ||
             (counts[i] == counts[best] && strcmp(assay_index_name(index, i), assay_index_name(index, best)) < 0)))
            best = i;
    return best;
}

static void list_sets(const struct assay_index *index, const uint32_t *counts, struct assay_record_sets *sets)
{
    sets->count = 0;
    for (uint32_t i = 1; i < assay_index_numerics_count(index) && sets->count < ASSAY_RECORD_SETS_MAX; i++) {
        if (counts[i] == 0)
            continue;
        sets->names[sets->count] = assay_index_name(index, i);
        sets->counts[sets->count++] = counts[i];
    }
}

/* A name that no record has: ASSAY_NUMERICS_NONE. */
static uint32_t find_numerics(const struct assay_index *index, const char *name)
{
    for (uint32_t i = 1; i < assay_index_numerics_count(index); i++)
        if (strcmp(assay_index_name(index, i), name) == 0)
            return i;
    return ASSAY_NUMERICS_NONE;
}

enum assay_status assay_records_have_set(struct assay_records *records, const struct assay_variant_id *variant,
                                         enum assay_record_dtype dtype, const struct assay_chunk_key *chunks,
                                         size_t count, const char *wanted, uint8_t *have,
                                         char numerics[ASSAY_NUMERICS_BYTES_MAX + 1], struct assay_record_sets *sets,
                                         struct assay_err *err)
{
    uint32_t counts[ASSAY_NUMERICS_COUNT_MAX + 1] = {0};
    struct tally tally = {counts};
    struct assay_record_key *keys = malloc((count + 1) * sizeof *keys);
    if (!keys)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a question about %zu records", count);
    for (size_t i = 0; i < count; i++)
        keys[i] = assay_record_key_of(&chunks[i], variant, dtype);
    pthread_mutex_lock(&records->lock);
    for (size_t i = 0; i < count; i++)
        assay_index_each(records->index, &keys[i], count_numerics, &tally);
    uint32_t best = wanted && wanted[0] ? find_numerics(records->index, wanted) : most_complete(records->index, counts);
    strcpy(numerics, assay_index_name(records->index, best));
    for (size_t i = 0; i < count; i++)
        have[i] = best != ASSAY_NUMERICS_NONE && assay_index_has(records->index, &keys[i], best);
    if (sets)
        list_sets(records->index, counts, sets);
    pthread_mutex_unlock(&records->lock);
    free(keys);
    return ASSAY_OK;
}

enum assay_status assay_records_have(struct assay_records *records, const struct assay_variant_id *variant,
                                     enum assay_record_dtype dtype, const struct assay_chunk_key *chunks, size_t count,
                                     uint8_t *have, char numerics[ASSAY_NUMERICS_BYTES_MAX + 1], struct assay_err *err)
{
    return assay_records_have_set(records, variant, dtype, chunks, count, NULL, have, numerics, NULL, err);
}

void assay_records_each(struct assay_records *records, const struct assay_record_key *key, assay_index_fn fn, void *arg)
{
    pthread_mutex_lock(&records->lock);
    assay_index_each(records->index, key, fn, arg);
    pthread_mutex_unlock(&records->lock);
}

enum assay_status assay_records_numerics_number(struct assay_records *records, const char *name, uint32_t *ret,
                                                struct assay_err *err)
{
    pthread_mutex_lock(&records->lock);
    enum assay_status status = assay_index_intern(records->index, name, ret, err);
    pthread_mutex_unlock(&records->lock);
    return status;
}

const char *assay_records_numerics(struct assay_records *records, uint32_t numerics)
{
    pthread_mutex_lock(&records->lock);
    const char *name = assay_index_name(records->index, numerics);
    pthread_mutex_unlock(&records->lock);
    return name;
}

bool room_record_head(const void *value, size_t bytes, struct record_head *ret)
{
    struct record_head head;
    if (bytes < sizeof head)
        return false;
    memcpy(&head, value, sizeof head);
    size_t width = assay_record_value_bytes(head.dtype);
    *ret = head;
    return head.magic == RECORD_MAGIC && head.version == ASSAY_RECORD_VERSION && width > 0 && head.rows >= 1 &&
           head.rows <= ASSAY_RECORD_ROWS_MAX && head.cols >= 1 && head.cols <= ASSAY_MODEL_DIM_MAX &&
           head.rows * head.cols * width == bytes - sizeof head;
}

/* The values behind the head as f32: in place, or widened. NULL: out of memory. */
static float *widen(char **value, const struct record_head *head)
{
    size_t count = (size_t)(head->rows * head->cols);
    if (head->dtype == ASSAY_RECORD_F32) {
        memmove(*value, *value + sizeof *head, count * sizeof(float));
        return (float *)(void *)assay_steal(value);
    }
    float *hidden = malloc(count * sizeof *hidden);
    for (size_t i = 0; hidden && i < count; i++) {
        uint16_t half;
        memcpy(&half, *value + sizeof *head + i * sizeof half, sizeof half);
        hidden[i] = assay_f16_to_f32(half);
    }
    return hidden;
}

enum assay_status assay_records_get(struct assay_records *records, const struct assay_record_key *key,
                                    uint32_t numerics, struct assay_record_data *ret, struct assay_err *err)
{
    assay_auto(assay_free_ptr) char *value = NULL;
    size_t bytes;
    struct record_head head;
    enum assay_status status = room_read(records, ROOM_RECORDS, key, numerics, (void **)&value, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    if (!room_record_head(value, bytes, &head)) {
        status = assay_records_drop(records, key, numerics, err);
        return status == ASSAY_OK ? assay_err_set(err, ASSAY_DATA_LOSS, "a record in the store has an impossible head")
                                  : status;
    }
    float *hidden = widen(&value, &head);
    if (!hidden)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a record of %zu bytes", bytes);
    *ret = (struct assay_record_data){head.rows, head.cols, hidden};
    return ASSAY_OK;
}

enum assay_status assay_records_drop(struct assay_records *records, const struct assay_record_key *key,
                                     uint32_t numerics, struct assay_err *err)
{
    return room_drop(records, ROOM_RECORDS, key, numerics, err);
}

enum assay_status assay_records_pin(struct assay_records *records, const struct assay_record_key *key,
                                    struct assay_err *err)
{
    pthread_mutex_lock(&records->lock);
    bool pinned = assay_index_pin(records->index, key);
    pthread_mutex_unlock(&records->lock);
    return pinned ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the records of a job");
}

void assay_records_unpin(struct assay_records *records, const struct assay_record_key *key)
{
    pthread_mutex_lock(&records->lock);
    assay_index_unpin(records->index, key);
    pthread_mutex_unlock(&records->lock);
}

void assay_records_watch(struct assay_records *records, struct assay_records_watch *watch)
{
    pthread_mutex_lock(&records->watch_lock);
    watch->next = records->watches;
    records->watches = watch;
    pthread_mutex_unlock(&records->watch_lock);
}

void assay_records_unwatch(struct assay_records *records, struct assay_records_watch *watch)
{
    pthread_mutex_lock(&records->watch_lock);
    struct assay_records_watch **link = &records->watches;
    while (*link && *link != watch)
        link = &(*link)->next;
    if (*link)
        *link = watch->next;
    pthread_mutex_unlock(&records->watch_lock);
}

/* --- samples --- */

enum assay_status assay_blobs_put(struct assay_records *records, const struct assay_blob *blobs, size_t count,
                                  struct assay_err *err)
{
    struct room_value *values = calloc(count + 1, sizeof *values);
    if (!values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu samples", count);
    for (size_t i = 0; i < count; i++)
        values[i] = (struct room_value){.table = ROOM_SAMPLES,
                                        .key = blobs[i].key,
                                        .numerics = ASSAY_NUMERICS_NONE,
                                        .bytes = blobs[i].bytes,
                                        .len = blobs[i].len,
                                        .origin = {.chunk = blobs[i].chunk.digest}};
    pthread_mutex_lock(&records->write_lock);
    enum assay_status status = room_write(records, values, count, err);
    pthread_mutex_unlock(&records->write_lock);
    free(values);
    return status;
}

enum assay_status assay_blob_get(struct assay_records *records, const struct assay_record_key *key, void **ret,
                                 size_t *ret_len, struct assay_err *err)
{
    return room_read(records, ROOM_SAMPLES, key, ASSAY_NUMERICS_NONE, ret, ret_len, err);
}

void assay_records_write_back(struct assay_records *records)
{
    assay_store_write_back(records->store);
}

enum assay_status assay_records_flush(struct assay_records *records, struct assay_err *err)
{
    pthread_mutex_lock(&records->write_lock);
    enum assay_status status = room_write_order(records, err);
    pthread_mutex_unlock(&records->write_lock);
    return status == ASSAY_OK ? assay_store_sync(records->store, err) : status;
}

uint64_t assay_records_bytes(struct assay_records *records)
{
    pthread_mutex_lock(&records->lock);
    uint64_t bytes = assay_index_bytes(records->index);
    pthread_mutex_unlock(&records->lock);
    return bytes;
}

size_t assay_records_count(struct assay_records *records)
{
    pthread_mutex_lock(&records->lock);
    size_t count = assay_index_count(records->index);
    pthread_mutex_unlock(&records->lock);
    return count;
}
