#include "services/evaluator/cache.h"

#include <stdlib.h>
#include <string.h>

#include "services/evaluator/room.h"

/* Entries that one transaction drops. */
#define DROP_BATCH 1024

/* --- the list --- */

struct listing {
    const struct assay_records *records;
    struct assay_cache_entry *entries;
    size_t count, capacity;
};

static void add_entry(void *arg, const struct assay_index_entry *entry, bool pinned)
{
    struct listing *listing = arg;
    if (listing->count < listing->capacity)
        listing->entries[listing->count++] = (struct assay_cache_entry){.key = entry->key,
                                                                        .numerics = entry->numerics,
                                                                        .pinned = pinned,
                                                                        .bytes = entry->bytes,
                                                                        .used_us = entry->used};
}

static int by_key(const void *a, const void *b)
{
    const struct assay_cache_entry *x = a, *y = b;
    int order = memcmp(x->key.digest.bytes, y->key.digest.bytes, ASSAY_DIGEST_BYTES);
    return order ? order : (x->numerics > y->numerics) - (x->numerics < y->numerics);
}

static int by_use_descending(const void *a, const void *b)
{
    const struct assay_cache_entry *x = a, *y = b;
    int order = (x->used_us < y->used_us) - (x->used_us > y->used_us);
    return order ? order : by_key(a, b);
}

/* Keys come in order, so that all numerics of a record key stand together. */
static bool note_origin(void *arg, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct listing *listing = arg;
    struct record_origin origin;
    struct assay_cache_entry wanted = {.numerics = 0};
    if (key_bytes < ASSAY_DIGEST_BYTES || value_bytes != sizeof origin)
        return true;
    const char *name = (const char *)key + ASSAY_DIGEST_BYTES;
    size_t name_len = key_bytes - ASSAY_DIGEST_BYTES;
    memcpy(wanted.key.digest.bytes, key, ASSAY_DIGEST_BYTES);
    memcpy(&origin, value, sizeof origin);
    for (uint32_t i = ASSAY_NUMERICS_NONE; i < assay_index_numerics_count(listing->records->index); i++) {
        const char *known = assay_index_name(listing->records->index, i);
        if (strlen(known) != name_len || memcmp(known, name, name_len) != 0)
            continue;
        wanted.numerics = i;
        struct assay_cache_entry *found = bsearch(&wanted, listing->entries, listing->count, sizeof wanted, by_key);
        if (found) {
            found->known = i != ASSAY_NUMERICS_NONE;
            found->placed = true;
            found->variant.digest = origin.variant;
            found->chunk.digest = origin.chunk;
            found->dtype = origin.dtype;
        }
        break;
    }
    return true;
}

static enum assay_status copy_index(struct assay_records *records, struct listing *listing, struct assay_err *err)
{
    pthread_mutex_lock(&records->lock);
    listing->capacity = assay_index_count(records->index);
    listing->entries = calloc(listing->capacity + 1, sizeof *listing->entries);
    if (listing->entries)
        assay_index_visit(records->index, add_entry, listing);
    pthread_mutex_unlock(&records->lock);
    return listing->entries ? ASSAY_OK
                            : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of %zu records",
                                            listing->capacity);
}

enum assay_status assay_cache_list(struct assay_records *records, struct assay_cache_entry **ret, size_t *ret_count,
                                   struct assay_err *err)
{
    struct listing listing = {.records = records};
    enum assay_status status = copy_index(records, &listing, err);
    if (status != ASSAY_OK)
        return status;
    qsort(listing.entries, listing.count, sizeof *listing.entries, by_key);
    /* The lock keeps new numerics ids out while their names are compared. */
    pthread_mutex_lock(&records->write_lock);
    status = assay_store_visit(records->store, ROOM_ORIGINS, NULL, 0, true, note_origin, &listing, err);
    pthread_mutex_unlock(&records->write_lock);
    if (status != ASSAY_OK && status != ASSAY_DATA_LOSS) {
        free(listing.entries);
        return status;
    }
    qsort(listing.entries, listing.count, sizeof *listing.entries, by_use_descending);
    *ret = listing.entries;
    *ret_count = listing.count;
    return ASSAY_OK;
}

/* --- verify --- */

static bool is_what_it_says(const struct assay_cache_entry *entry, const void *value, size_t bytes)
{
    struct record_head head;
    if (entry->numerics == ASSAY_NUMERICS_NONE)
        return true;
    if (!room_record_head(value, bytes, &head))
        return false;
    struct assay_chunk_key chunk = {head.chunk};
    struct assay_variant_id variant = {head.variant};
    struct assay_record_key key = assay_record_key_of(&chunk, &variant, head.dtype);
    return assay_digest_equal(&key.digest, &entry->key.digest);
}

enum assay_status assay_cache_verify(struct assay_records *records, const struct assay_cache_entry *entry,
                                     struct assay_err *err)
{
    void *value = NULL;
    size_t bytes;
    char hex[ASSAY_DIGEST_HEX];
    const char *table = room_table_of(entry->numerics);
    const char *what = entry->numerics == ASSAY_NUMERICS_NONE ? "sample" : "record";
    enum assay_status status = room_check(records, table, &entry->key, entry->numerics, &value, &bytes, err);
    if (status == ASSAY_OK && !is_what_it_says(entry, value, bytes)) {
        status = room_drop(records, table, &entry->key, entry->numerics, err);
        if (status == ASSAY_OK)
            status = assay_err_set(err, ASSAY_DATA_LOSS, "it is not what its key says");
    }
    free(value);
    if (status == ASSAY_DATA_LOSS && entry->known)
        assay_err_prefix(err, "%s of chunk %s", what, assay_digest_hex(&entry->chunk.digest, hex));
    else if (status == ASSAY_DATA_LOSS)
        assay_err_prefix(err, "%s %s", what, assay_digest_hex(&entry->key.digest, hex));
    return status;
}

/* --- prune --- */

/* The one variant whose id begins with the digits. */
static enum assay_status find_variant(const struct assay_cache_entry *entries, size_t count, const char *prefix,
                                      struct assay_variant_id *ret, struct assay_err *err)
{
    const struct assay_cache_entry *found = NULL;
    char hex[ASSAY_DIGEST_HEX], other[ASSAY_DIGEST_HEX];
    size_t len = strlen(prefix);
    if (len < ASSAY_CACHE_PREFIX_MIN || len > 2 * ASSAY_DIGEST_BYTES || strspn(prefix, "0123456789abcdef") != len)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "the variant is '%.80s', wanted %d to %d lower-case hex digits of its id", prefix,
                             ASSAY_CACHE_PREFIX_MIN, 2 * ASSAY_DIGEST_BYTES);
    for (size_t i = 0; i < count; i++) {
        if (!entries[i].known || strncmp(assay_digest_hex(&entries[i].variant.digest, hex), prefix, len) != 0)
            continue;
        if (found && !assay_digest_equal(&found->variant.digest, &entries[i].variant.digest))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "several variants begin with %s: %.16s and %.16s", prefix,
                                 assay_digest_hex(&found->variant.digest, other), hex);
        found = &entries[i];
    }
    if (!found)
        return assay_err_set(err, ASSAY_NOT_FOUND, "no record is of a variant whose id begins with %s", prefix);
    *ret = found->variant;
    return ASSAY_OK;
}

static enum assay_status drop_chosen(struct assay_records *records, struct assay_index_entry *chosen, size_t count,
                                     bool dry_run, struct assay_cache_pruned *pruned, struct assay_err *err)
{
    for (size_t done = 0; done < count; done += DROP_BATCH) {
        size_t batch = ASSAY_MIN(count - done, (size_t)DROP_BATCH);
        enum assay_status status = dry_run ? ASSAY_OK : room_drop_all(records, chosen + done, batch, err);
        if (status != ASSAY_OK)
            return status;
        for (size_t i = done; i < done + batch; i++) {
            if (chosen[i].bytes == 0)
                continue;
            pruned->bytes += chosen[i].bytes;
            if (chosen[i].numerics == ASSAY_NUMERICS_NONE)
                pruned->samples++;
            else
                pruned->records++;
        }
    }
    return ASSAY_OK;
}

/* Which of the entries, the ones used last first, are chosen: oldest first into chosen. Returns how many. */
static size_t choose(const struct assay_cache_entry *entries, size_t count, const struct assay_cache_filter *filter,
                     const struct assay_variant_id *variant, uint64_t bytes_now, struct assay_index_entry *chosen,
                     uint64_t *pinned)
{
    size_t chosen_count = 0;
    for (size_t i = count; i-- > 0;) {
        const struct assay_cache_entry *entry = &entries[i];
        if (filter->has_to_bytes && bytes_now <= filter->to_bytes)
            break;
        if (variant && !(entry->known && assay_digest_equal(&entry->variant.digest, &variant->digest)))
            continue;
        if (filter->has_older_than && entry->used_us >= filter->older_than_us)
            continue;
        if (entry->pinned) {
            ++*pinned;
            continue;
        }
        chosen[chosen_count++] = (struct assay_index_entry){entry->key, entry->numerics, entry->bytes, entry->used_us};
        bytes_now -= ASSAY_MIN(bytes_now, entry->bytes);
    }
    return chosen_count;
}

enum assay_status assay_cache_prune(struct assay_records *records, const struct assay_cache_filter *filter,
                                    bool dry_run, struct assay_cache_pruned *ret, struct assay_err *err)
{
    assay_auto(assay_free_ptr) struct assay_cache_entry *entries = NULL;
    size_t count = 0;
    struct assay_variant_id variant;
    struct assay_cache_pruned pruned = {0};
    enum assay_status status = assay_cache_list(records, &entries, &count, err);
    if (status == ASSAY_OK && filter->variant_prefix)
        status = find_variant(entries, count, filter->variant_prefix, &variant, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_free_ptr) struct assay_index_entry *chosen = calloc(count + 1, sizeof *chosen);
    if (!chosen)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of %zu records", count);
    uint64_t bytes_now = assay_records_bytes(records);
    size_t chosen_count =
        choose(entries, count, filter, filter->variant_prefix ? &variant : NULL, bytes_now, chosen, &pruned.pinned);
    status = drop_chosen(records, chosen, chosen_count, dry_run, &pruned, err);
    if (status != ASSAY_OK)
        return status;
    pruned.bytes_left = dry_run ? bytes_now - ASSAY_MIN(bytes_now, pruned.bytes) : assay_records_bytes(records);
    *ret = pruned;
    return ASSAY_OK;
}

/* --- names --- */

/* On disk: the model's digest, then the label's bytes. */
bool assay_cache_name(struct assay_records *records, const struct assay_variant_id *variant,
                      struct assay_cache_name *ret)
{
    assay_auto(assay_free_ptr) char *value = NULL;
    size_t bytes;
    if (assay_store_get(records->store, ROOM_NAMES, variant->digest.bytes, ASSAY_DIGEST_BYTES, (void **)&value, &bytes,
                        NULL) != ASSAY_OK ||
        bytes < ASSAY_DIGEST_BYTES || bytes > ASSAY_DIGEST_BYTES + ASSAY_CACHE_LABEL_MAX)
        return false;
    *ret = (struct assay_cache_name){0};
    memcpy(ret->model.digest.bytes, value, ASSAY_DIGEST_BYTES);
    memcpy(ret->label, value + ASSAY_DIGEST_BYTES, bytes - ASSAY_DIGEST_BYTES);
    return true;
}

enum assay_status assay_cache_set_name(struct assay_records *records, const struct assay_variant_id *variant,
                                       const struct assay_model_id *model, const char *label, struct assay_err *err)
{
    struct assay_cache_name known;
    char value[ASSAY_DIGEST_BYTES + ASSAY_CACHE_LABEL_MAX];
    size_t len = strnlen(label, ASSAY_CACHE_LABEL_MAX);
    if (assay_cache_name(records, variant, &known) && strncmp(known.label, label, ASSAY_CACHE_LABEL_MAX) == 0 &&
        assay_digest_equal(&known.model.digest, &model->digest))
        return ASSAY_OK;
    memcpy(value, model->digest.bytes, ASSAY_DIGEST_BYTES);
    memcpy(value + ASSAY_DIGEST_BYTES, label, len);
    struct assay_put put = {ROOM_NAMES, variant->digest.bytes, ASSAY_DIGEST_BYTES, value, ASSAY_DIGEST_BYTES + len};
    pthread_mutex_lock(&records->write_lock);
    enum assay_status status = assay_store_put(records->store, &put, 1, err);
    pthread_mutex_unlock(&records->write_lock);
    return status;
}

uint64_t assay_cache_quota_bytes(const struct assay_records *records)
{
    return records->quota_bytes;
}

uint64_t assay_cache_store_bytes(struct assay_records *records)
{
    return assay_store_bytes(records->store);
}
