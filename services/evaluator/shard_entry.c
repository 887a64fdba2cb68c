#include "services/evaluator/shard_entry.h"

#include <stdlib.h>
#include <string.h>

static ProtobufCBinaryData digest_bytes(const struct assay_digest *digest)
{
    return (ProtobufCBinaryData){ASSAY_DIGEST_BYTES, (uint8_t *)(uintptr_t)digest->bytes};
}

void shard_entry_fill(Assay__V1__ShardEntry *message, const struct assay_share_entry *entry)
{
    assay__v1__shard_entry__init(message);
    message->has_key = message->has_chunk_key = message->has_bytes = true;
    message->key = digest_bytes(&entry->key.digest);
    message->chunk_key = digest_bytes(&entry->chunk.digest);
    message->bytes = entry->bytes;
    if (!entry->numerics[0])
        return;
    message->numerics_id = (char *)(uintptr_t)entry->numerics;
    message->has_variant_id = message->has_dtype = true;
    message->variant_id = digest_bytes(&entry->variant.digest);
    message->dtype = entry->dtype == ASSAY_RECORD_F16 ? ASSAY__V1__DTYPE__DTYPE_F16 : ASSAY__V1__DTYPE__DTYPE_F32;
}

enum assay_status shard_entry_read(const Assay__V1__ShardEntry *message, struct assay_share_entry *ret,
                                   struct assay_err *err)
{
    struct assay_share_entry entry = {.numerics = message->numerics_id ? message->numerics_id : "",
                                      .bytes = message->bytes};
    enum assay_status status = assay_digest_from(message->key.data, message->key.len, "key", &entry.key.digest, err);
    if (status == ASSAY_OK)
        status =
            assay_digest_from(message->chunk_key.data, message->chunk_key.len, "chunk_key", &entry.chunk.digest, err);
    if (status == ASSAY_OK && entry.numerics[0]) {
        status = assay_digest_from(message->variant_id.data, message->variant_id.len, "variant_id",
                                   &entry.variant.digest, err);
        entry.dtype = message->dtype == ASSAY__V1__DTYPE__DTYPE_F16 ? ASSAY_RECORD_F16 : ASSAY_RECORD_F32;
        if (status == ASSAY_OK && message->dtype != ASSAY__V1__DTYPE__DTYPE_F16 &&
            message->dtype != ASSAY__V1__DTYPE__DTYPE_F32)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "dtype is neither F32 nor F16");
    }
    if (status == ASSAY_OK)
        *ret = entry;
    return status;
}

enum assay_status shard_entries_read(Assay__V1__ShardEntry *const *messages, size_t count,
                                     struct assay_share_entry **ret, struct assay_err *err)
{
    if (count > SHARD_ENTRIES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a message has at most %d entries, found %zu",
                             SHARD_ENTRIES_MAX, count);
    struct assay_share_entry *entries = calloc(count + 1, sizeof *entries);
    if (!entries)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu entries", count);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = shard_entry_read(messages[i], &entries[i], err);
    if (status == ASSAY_OK)
        *ret = entries;
    else
        free(entries);
    return status;
}
