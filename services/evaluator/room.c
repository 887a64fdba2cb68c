#include "services/evaluator/room.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"

/* The store's pieces, and what a small value takes beside its bytes. */
#define PIECE_BYTES 16384u
#define OVERHEAD_BYTES 256u
/* Marks of use written in one transaction. */
#define ORDER_BATCH 4096

struct room_key {
    char bytes[ASSAY_DIGEST_BYTES + ASSAY_NUMERICS_BYTES_MAX];
    size_t len;
};

/* `lock` is held. */
static struct room_key key_of(const struct assay_records *records, const struct assay_record_key *key,
                              uint32_t numerics)
{
    struct room_key ret;
    const char *name = assay_index_name(records->index, numerics);
    size_t name_len = strlen(name);
    memcpy(ret.bytes, key->digest.bytes, ASSAY_DIGEST_BYTES);
    memcpy(ret.bytes + ASSAY_DIGEST_BYTES, name, name_len);
    ret.len = ASSAY_DIGEST_BYTES + name_len;
    return ret;
}

static uint64_t charge(uint64_t len)
{
    if (len <= PIECE_BYTES / 2)
        return len + OVERHEAD_BYTES;
    return (len / PIECE_BYTES + 1) * PIECE_BYTES + OVERHEAD_BYTES;
}

static uint64_t value_bytes(const struct room_value *value)
{
    return value->len + (value->has_head ? sizeof value->head : 0);
}

const char *room_table_of(uint32_t numerics)
{
    return numerics == ASSAY_NUMERICS_NONE ? ROOM_SAMPLES : ROOM_RECORDS;
}

/* Of the wall: the order of use outlives the process. */
static uint64_t now_us(void)
{
    return (uint64_t)ASSAY_MAX(assay_wall_ms(), (int64_t)0) * 1000;
}

/* --- loading --- */

struct load {
    struct assay_records *records;
    struct assay_index_entry *entries;
    size_t count, capacity;
    uint64_t used_values; /* in the table of uses */
    enum assay_status status;
    struct assay_err *err;
};

static bool load_entry(void *arg, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct load *load = arg;
    (void)value;
    char name[ASSAY_NUMERICS_BYTES_MAX + 1];
    struct assay_index_entry entry = {.numerics = ASSAY_NUMERICS_NONE, .bytes = charge(value_bytes)};
    if (key_bytes < ASSAY_DIGEST_BYTES || key_bytes - ASSAY_DIGEST_BYTES > ASSAY_NUMERICS_BYTES_MAX)
        return true;
    memcpy(entry.key.digest.bytes, key, ASSAY_DIGEST_BYTES);
    size_t name_len = key_bytes - ASSAY_DIGEST_BYTES;
    if (name_len > 0) {
        memcpy(name, (const char *)key + ASSAY_DIGEST_BYTES, name_len);
        name[name_len] = '\0';
        load->status = assay_index_intern(load->records->index, name, &entry.numerics, load->err);
        if (load->status != ASSAY_OK)
            return false;
    }
    if (load->count == load->capacity) {
        size_t capacity = load->capacity ? load->capacity * 2 : 1024;
        struct assay_index_entry *entries = realloc(load->entries, capacity * sizeof *entries);
        if (!entries) {
            load->status = assay_err_set(load->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the list of records");
            return false;
        }
        load->entries = entries;
        load->capacity = capacity;
    }
    load->entries[load->count++] = entry;
    return true;
}

static int by_key(const void *a, const void *b)
{
    const struct assay_index_entry *x = a, *y = b;
    int order = memcmp(x->key.digest.bytes, y->key.digest.bytes, ASSAY_DIGEST_BYTES);
    return order ? order : (x->numerics > y->numerics) - (x->numerics < y->numerics);
}

static int by_use(const void *a, const void *b)
{
    const struct assay_index_entry *x = a, *y = b;
    return (x->used > y->used) - (x->used < y->used);
}

static bool load_use(void *arg, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct load *load = arg;
    struct assay_index_entry wanted = {0}, *found;
    char name[ASSAY_NUMERICS_BYTES_MAX + 1];
    uint64_t used;
    size_t name_len = key_bytes - ASSAY_DIGEST_BYTES;
    if (key_bytes < ASSAY_DIGEST_BYTES || name_len > ASSAY_NUMERICS_BYTES_MAX || value_bytes != sizeof used)
        return true;
    memcpy(wanted.key.digest.bytes, key, ASSAY_DIGEST_BYTES);
    memcpy(name, (const char *)key + ASSAY_DIGEST_BYTES, name_len);
    name[name_len] = '\0';
    if (name_len > 0 && assay_index_intern(load->records->index, name, &wanted.numerics, NULL) != ASSAY_OK)
        return true;
    found = bsearch(&wanted, load->entries, load->count, sizeof wanted, by_key);
    if (found)
        memcpy(&found->used, value, sizeof used);
    return true;
}

/* DATA_LOSS of a visit: single values were damaged and left out, which is what we want. */
static enum assay_status visit(struct load *load, const char *table, bool values, assay_store_visit_fn fn)
{
    enum assay_status status = assay_store_visit(load->records->store, table, NULL, 0, values, fn, load, load->err);
    return load->status != ASSAY_OK ? load->status : status == ASSAY_DATA_LOSS ? ASSAY_OK : status;
}

static enum assay_status load_all(struct load *load)
{
    enum assay_status status = visit(load, ROOM_RECORDS, false, load_entry);
    if (status == ASSAY_OK)
        status = visit(load, ROOM_SAMPLES, false, load_entry);
    if (status != ASSAY_OK || load->count == 0)
        return status;
    qsort(load->entries, load->count, sizeof *load->entries, by_key);
    status = visit(load, ROOM_USED, true, load_use);
    if (status != ASSAY_OK)
        return status;
    qsort(load->entries, load->count, sizeof *load->entries, by_use);
    for (size_t i = 0; i < load->count; i++)
        if (!assay_index_add(load->records->index, &load->entries[i]))
            return assay_err_set(load->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the list of records");
    return ASSAY_OK;
}

enum assay_status room_load(struct assay_records *records, struct assay_err *err)
{
    struct load load = {.records = records, .err = err};
    enum assay_status status = load_all(&load);
    free(load.entries);
    return status;
}

/* --- writing --- */

struct batch {
    struct assay_put *puts;
    struct assay_put_before *before; /* of the puts, by the same number */
    struct room_key *keys;           /* likewise */
    size_t count, capacity;
    uint64_t now_us;
};

static bool batch_reserve(struct batch *batch, size_t more)
{
    if (batch->count + more <= batch->capacity)
        return true;
    size_t capacity = (batch->count + more) * 2;
    struct assay_put *puts = realloc(batch->puts, capacity * sizeof *puts);
    if (puts)
        batch->puts = puts;
    struct room_key *keys = realloc(batch->keys, capacity * sizeof *keys);
    if (keys)
        batch->keys = keys;
    struct assay_put_before *before = realloc(batch->before, capacity * sizeof *before);
    if (before)
        batch->before = before;
    if (!puts || !keys || !before)
        return false;
    batch->capacity = capacity;
    return true;
}

static void batch_add(struct batch *batch, const char *table, const struct room_key *key, const void *value, size_t len)
{
    batch->keys[batch->count] = *key;
    batch->before[batch->count] = (struct assay_put_before){NULL, 0};
    batch->puts[batch->count++] = (struct assay_put){.table = table, .value = value, .value_bytes = len};
}

static enum assay_status batch_write(struct assay_records *records, struct batch *batch, struct assay_err *err)
{
    for (size_t i = 0; i < batch->count; i++) {
        batch->puts[i].key = batch->keys[i].bytes;
        batch->puts[i].key_bytes = batch->keys[i].len;
    }
    return assay_store_put_parts(records->store, batch->puts, batch->before, batch->count, err);
}

struct victims {
    struct assay_index_entry *at;
    size_t count, capacity;
};

/* Takes the oldest ones out of the index until `bytes` more fit. */
static enum assay_status choose_victims(struct assay_records *records, uint64_t bytes, struct victims *victims,
                                        struct assay_err *err)
{
    while (assay_index_bytes(records->index) + bytes > records->quota_bytes) {
        struct assay_index_entry oldest;
        if (victims->count == victims->capacity) {
            size_t capacity = victims->capacity ? victims->capacity * 2 : 64;
            struct assay_index_entry *grown = realloc(victims->at, capacity * sizeof *grown);
            if (!grown)
                return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for eviction");
            victims->at = grown;
            victims->capacity = capacity;
        }
        if (!assay_index_oldest(records->index, &oldest))
            return assay_err_set(
                err, ASSAY_RESOURCE_EXHAUSTED,
                "the record store is full: %llu of %llu bytes belong to running jobs; raise --quota-gb",
                (unsigned long long)assay_index_bytes(records->index), (unsigned long long)records->quota_bytes);
        victims->at[victims->count++] = oldest;
        assay_index_remove(records->index, &oldest.key, oldest.numerics);
    }
    return ASSAY_OK;
}

/* Three rows. `lock` is held. */
static void batch_drop(const struct assay_records *records, struct batch *batch, const struct assay_index_entry *entry)
{
    struct room_key key = key_of(records, &entry->key, entry->numerics);
    batch_add(batch, room_table_of(entry->numerics), &key, NULL, 0);
    batch_add(batch, ROOM_USED, &key, NULL, 0);
    batch_add(batch, ROOM_ORIGINS, &key, NULL, 0);
}

static enum assay_status fill_batch(struct assay_records *records, const struct room_value *values, size_t count,
                                    const struct victims *victims, struct batch *batch, struct assay_err *err)
{
    if (!batch_reserve(batch, 3 * count + 3 * victims->count))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for writing %zu values", count);
    for (size_t i = 0; i < victims->count; i++)
        batch_drop(records, batch, &victims->at[i]);
    for (size_t i = 0; i < count; i++) {
        struct room_key key = key_of(records, &values[i].key, values[i].numerics);
        batch_add(batch, values[i].table, &key, values[i].bytes, values[i].len);
        if (values[i].has_head)
            batch->before[batch->count - 1] = (struct assay_put_before){&values[i].head, sizeof values[i].head};
        batch_add(batch, ROOM_USED, &key, &batch->now_us, sizeof batch->now_us);
        batch_add(batch, ROOM_ORIGINS, &key, &values[i].origin, sizeof values[i].origin);
    }
    return ASSAY_OK;
}

static bool add_entries(struct assay_records *records, const struct room_value *values, size_t count)
{
    bool added = true;
    assay_index_tell_time(records->index, now_us());
    for (size_t i = 0; i < count; i++) {
        struct assay_index_entry entry = {values[i].key, values[i].numerics, charge(value_bytes(&values[i])), 0};
        added = assay_index_add(records->index, &entry) && added;
    }
    return added;
}

static enum assay_status write_with(struct assay_records *records, const struct room_value *values, size_t count,
                                    struct victims *victims, struct batch *batch, struct assay_err *err)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += charge(value_bytes(&values[i]));
    if (bytes > records->quota_bytes)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "%llu bytes of records at once do not fit the quota of %llu; raise --quota-gb",
                             (unsigned long long)bytes, (unsigned long long)records->quota_bytes);
    pthread_mutex_lock(&records->lock);
    enum assay_status status = choose_victims(records, bytes, victims, err);
    if (status == ASSAY_OK)
        status = fill_batch(records, values, count, victims, batch, err);
    pthread_mutex_unlock(&records->lock);
    if (status == ASSAY_OK)
        status = batch_write(records, batch, err);
    pthread_mutex_lock(&records->lock);
    bool kept = true;
    if (status == ASSAY_OK)
        kept = add_entries(records, values, count);
    else
        for (size_t i = 0; i < victims->count; i++)
            kept = assay_index_add(records->index, &victims->at[i]) && kept;
    pthread_mutex_unlock(&records->lock);
    if (status == ASSAY_OK && !kept)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the list of records");
    return status;
}

enum assay_status room_write(struct assay_records *records, const struct room_value *values, size_t count,
                             struct assay_err *err)
{
    struct victims victims = {0};
    struct batch batch = {.now_us = now_us()};
    enum assay_status status = write_with(records, values, count, &victims, &batch, err);
    free(victims.at);
    free(batch.puts);
    free(batch.before);
    free(batch.keys);
    return status;
}

enum assay_status room_drop(struct assay_records *records, const char *table, const struct assay_record_key *key,
                            uint32_t numerics, struct assay_err *err)
{
    pthread_mutex_lock(&records->write_lock);
    pthread_mutex_lock(&records->lock);
    struct room_key where = key_of(records, key, numerics);
    assay_index_remove(records->index, key, numerics);
    pthread_mutex_unlock(&records->lock);
    struct assay_put puts[] = {{table, where.bytes, where.len, NULL, 0},
                               {ROOM_USED, where.bytes, where.len, NULL, 0},
                               {ROOM_ORIGINS, where.bytes, where.len, NULL, 0}};
    enum assay_status status = assay_store_put(records->store, puts, ASSAY_COUNT(puts), err);
    pthread_mutex_unlock(&records->write_lock);
    return status;
}

static enum assay_status drop_batch(struct assay_records *records, struct assay_index_entry *entries, size_t count,
                                    struct batch *batch, struct assay_err *err)
{
    if (!batch_reserve(batch, 3 * count))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for dropping %zu values", count);
    pthread_mutex_lock(&records->lock);
    for (size_t i = 0; i < count; i++) {
        if (assay_index_pinned(records->index, &entries[i].key) ||
            !assay_index_has(records->index, &entries[i].key, entries[i].numerics)) {
            entries[i].bytes = 0;
            continue;
        }
        batch_drop(records, batch, &entries[i]);
        assay_index_remove(records->index, &entries[i].key, entries[i].numerics);
    }
    pthread_mutex_unlock(&records->lock);
    enum assay_status status = batch_write(records, batch, err);
    if (status == ASSAY_OK)
        return status;
    pthread_mutex_lock(&records->lock);
    bool kept = true;
    for (size_t i = 0; i < count; i++)
        kept = (entries[i].bytes == 0 || assay_index_add(records->index, &entries[i])) && kept;
    pthread_mutex_unlock(&records->lock);
    return kept ? status : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the list of records");
}

enum assay_status room_drop_all(struct assay_records *records, struct assay_index_entry *entries, size_t count,
                                struct assay_err *err)
{
    struct batch batch = {0};
    pthread_mutex_lock(&records->write_lock);
    enum assay_status status = drop_batch(records, entries, count, &batch, err);
    pthread_mutex_unlock(&records->write_lock);
    free(batch.puts);
    free(batch.before);
    free(batch.keys);
    return status;
}

static enum assay_status read_value(struct assay_records *records, const char *table,
                                    const struct assay_record_key *key, uint32_t numerics, bool uses, void **ret,
                                    size_t *ret_len, struct assay_err *err)
{
    pthread_mutex_lock(&records->lock);
    struct room_key where = key_of(records, key, numerics);
    bool known = assay_index_has(records->index, key, numerics);
    if (uses) {
        assay_index_tell_time(records->index, now_us());
        assay_index_touch(records->index, key, numerics);
    }
    pthread_mutex_unlock(&records->lock);
    if (!known)
        return assay_err_set(err, ASSAY_NOT_FOUND, "no such value in table '%s'", table);
    enum assay_status status = assay_store_get(records->store, table, where.bytes, where.len, ret, ret_len, err);
    if (status == ASSAY_DATA_LOSS || status == ASSAY_NOT_FOUND) {
        enum assay_status dropped = room_drop(records, table, key, numerics, NULL);
        (void)dropped; /* the store has dropped the value; this is for its mark of use */
    }
    return status;
}

enum assay_status room_read(struct assay_records *records, const char *table, const struct assay_record_key *key,
                            uint32_t numerics, void **ret, size_t *ret_len, struct assay_err *err)
{
    return read_value(records, table, key, numerics, true, ret, ret_len, err);
}

enum assay_status room_check(struct assay_records *records, const char *table, const struct assay_record_key *key,
                             uint32_t numerics, void **ret, size_t *ret_len, struct assay_err *err)
{
    return read_value(records, table, key, numerics, false, ret, ret_len, err);
}

enum assay_status room_write_order(struct assay_records *records, struct assay_err *err)
{
    struct assay_index_entry *entries = malloc(ORDER_BATCH * sizeof *entries);
    struct batch batch = {0};
    enum assay_status status = ASSAY_OK;
    size_t taken = ORDER_BATCH;
    if (!entries || !batch_reserve(&batch, ORDER_BATCH))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the order of use");
    while (status == ASSAY_OK && taken == ORDER_BATCH) {
        batch.count = 0;
        pthread_mutex_lock(&records->lock);
        taken = assay_index_take_changed(records->index, entries, ORDER_BATCH);
        for (size_t i = 0; i < taken; i++) {
            struct room_key key = key_of(records, &entries[i].key, entries[i].numerics);
            batch_add(&batch, ROOM_USED, &key, &entries[i].used, sizeof entries[i].used);
        }
        pthread_mutex_unlock(&records->lock);
        status = batch_write(records, &batch, err);
    }
    free(entries);
    free(batch.puts);
    free(batch.before);
    free(batch.keys);
    return status;
}
