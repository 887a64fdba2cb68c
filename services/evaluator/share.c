#include "services/evaluator/share.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/xxh3.h"
#include "services/evaluator/cache.h"
#include "services/evaluator/room.h"

/* --- listing --- */

enum assay_status assay_share_list(struct assay_records *records, assay_share_wanted_fn wanted, void *arg,
                                   struct assay_share_entry **ret, size_t *ret_count, struct assay_err *err)
{
    struct assay_cache_entry *all = NULL;
    size_t count = 0, kept = 0;
    enum assay_status status = assay_cache_list(records, &all, &count, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_share_entry *entries = calloc(count + 1, sizeof *entries);
    if (!entries) {
        free(all);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a list of %zu records", count);
    }
    for (size_t i = 0; i < count; i++) {
        if (!all[i].placed || !wanted(arg, &all[i].chunk))
            continue;
        entries[kept++] = (struct assay_share_entry){.key = all[i].key,
                                                     .numerics = assay_records_numerics(records, all[i].numerics),
                                                     .chunk = all[i].chunk,
                                                     .variant = all[i].variant,
                                                     .dtype = all[i].dtype,
                                                     .bytes = all[i].bytes};
    }
    free(all);
    *ret = entries;
    *ret_count = kept;
    return ASSAY_OK;
}

/* --- one value --- */

/* False: a numerics id that is no name, or out of memory. */
static bool find_ref(struct assay_records *records, const struct assay_share_entry *entry, struct room_ref *ret,
                     struct assay_err *err)
{
    ret->key = entry->key;
    ret->numerics = ASSAY_NUMERICS_NONE;
    if (!entry->numerics[0])
        return true;
    pthread_mutex_lock(&records->lock);
    enum assay_status status = assay_index_intern(records->index, entry->numerics, &ret->numerics, err);
    pthread_mutex_unlock(&records->lock);
    return status == ASSAY_OK;
}

static bool has_ref(struct assay_records *records, const struct room_ref *ref)
{
    pthread_mutex_lock(&records->lock);
    bool there = assay_index_has(records->index, &ref->key, ref->numerics);
    pthread_mutex_unlock(&records->lock);
    return there;
}

bool assay_share_has(struct assay_records *records, const struct assay_share_entry *entry)
{
    struct room_ref ref;
    return find_ref(records, entry, &ref, NULL) && has_ref(records, &ref);
}

enum assay_status assay_share_read(struct assay_records *records, const struct assay_share_entry *entry, void **ret,
                                   size_t *ret_bytes, struct assay_err *err)
{
    struct room_ref ref;
    if (!assay_share_has(records, entry) || !find_ref(records, entry, &ref, err))
        return assay_err_set(err, ASSAY_NOT_FOUND, "the record is not there");
    return room_check(records, room_table_of(ref.numerics), &ref.key, ref.numerics, ret, ret_bytes, err);
}

uint64_t assay_share_checksum(const struct assay_share_entry *entry, const void *bytes, size_t len)
{
    return XXH3_64bits_withSeed(bytes, len, XXH3_64bits(entry->key.digest.bytes, ASSAY_DIGEST_BYTES));
}

/* --- taking in --- */

/* A sample's key says nothing about its bytes; whoever reads one checks it. */
static enum assay_status check_value(const struct assay_share_value *value, struct assay_err *err)
{
    const struct assay_share_entry *entry = &value->entry;
    struct record_head head;
    char hex[ASSAY_DIGEST_HEX];
    if (!entry->numerics[0])
        return ASSAY_OK;
    struct assay_record_key follows = assay_record_key_of(&entry->chunk, &entry->variant, entry->dtype);
    if (!room_record_head(value->bytes, value->len, &head) || !assay_digest_equal(&head.chunk, &entry->chunk.digest) ||
        !assay_digest_equal(&head.variant, &entry->variant.digest) || head.dtype != (uint32_t)entry->dtype ||
        !assay_digest_equal(&follows.digest, &entry->key.digest))
        return assay_err_set(err, ASSAY_DATA_LOSS, "a record that was fetched for chunk %s is not what its key says",
                             assay_digest_hex(&entry->chunk.digest, hex));
    return ASSAY_OK;
}

static bool in_refs(const struct room_ref *refs, size_t count, const struct room_ref *wanted)
{
    for (size_t i = 0; i < count; i++)
        if (refs[i].numerics == wanted->numerics && assay_digest_equal(&refs[i].key.digest, &wanted->key.digest))
            return true;
    return false;
}

/* write_lock is held. */
static enum assay_status write_new(struct assay_records *records, const struct assay_share_value *values, size_t count,
                                   struct room_ref *refs, struct room_value *fresh, struct assay_err *err)
{
    size_t fresh_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct assay_share_entry *entry = &values[i].entry;
        if (!find_ref(records, entry, &refs[i], err))
            return ASSAY_INVALID_ARGUMENT;
        if (has_ref(records, &refs[i]) || in_refs(refs, i, &refs[i]))
            continue;
        fresh[fresh_count++] =
            (struct room_value){.table = room_table_of(refs[i].numerics),
                                .key = entry->key,
                                .numerics = refs[i].numerics,
                                .bytes = values[i].bytes,
                                .len = values[i].len,
                                .origin = {entry->variant.digest, entry->chunk.digest, entry->dtype, 0}};
    }
    return fresh_count > 0 ? room_write(records, fresh, fresh_count, err) : ASSAY_OK;
}

enum assay_status assay_share_write(struct assay_records *records, const struct assay_share_value *values, size_t count,
                                    struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = check_value(&values[i], err);
    if (status != ASSAY_OK)
        return status;
    struct room_ref *refs = calloc(count + 1, sizeof *refs);
    struct room_value *fresh = calloc(count + 1, sizeof *fresh);
    if (refs && fresh) {
        pthread_mutex_lock(&records->write_lock);
        status = write_new(records, values, count, refs, fresh, err);
        pthread_mutex_unlock(&records->write_lock);
        if (status == ASSAY_OK)
            records_notify(records, refs, count);
    } else {
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu records", count);
    }
    free(fresh);
    free(refs);
    return status;
}

enum assay_status assay_share_drop(struct assay_records *records, const struct assay_share_entry *entries, size_t count,
                                   uint64_t *ret_dropped, struct assay_err *err)
{
    struct assay_index_entry *drops = calloc(count + 1, sizeof *drops);
    if (!drops)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for dropping %zu values", count);
    size_t drops_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct room_ref ref;
        if (find_ref(records, &entries[i], &ref, NULL))
            drops[drops_count++] =
                (struct assay_index_entry){ref.key, ref.numerics, ASSAY_MAX(entries[i].bytes, (uint64_t)1), 0};
    }
    enum assay_status status = room_drop_all(records, drops, drops_count, err);
    uint64_t dropped = 0, pinned = 0;
    for (size_t i = 0; i < drops_count; i++) {
        const struct room_ref ref = {drops[i].key, drops[i].numerics};
        dropped += drops[i].bytes > 0;
        pinned += drops[i].bytes == 0 && has_ref(records, &ref);
    }
    free(drops);
    if (status != ASSAY_OK)
        return status;
    *ret_dropped = dropped;
    if (pinned > 0)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "%llu of %zu values are still in use by a Score call",
                             (unsigned long long)pinned, count);
    return ASSAY_OK;
}
