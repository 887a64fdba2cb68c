/* What moves when a chunk gets another owner: its records and samples, as they stand in the store. Any thread. */
#pragma once

#include "services/evaluator/records.h"

/* A record, or with numerics "" a sample. */
struct assay_share_entry {
    struct assay_record_key key;
    const char *numerics; /* valid as long as the records, or whoever made the entry */
    struct assay_chunk_key chunk;
    struct assay_variant_id variant; /* of a record */
    enum assay_record_dtype dtype;   /* of a record */
    uint64_t bytes;                  /* of the value; as the quota counts it in a list */
};

/* What stands under chunks for which wanted(arg, chunk) is true; values whose chunk is not known are left out. The
 * caller frees *ret. */
typedef bool (*assay_share_wanted_fn)(void *arg, const struct assay_chunk_key *chunk);
enum assay_status assay_share_list(struct assay_records *records, assay_share_wanted_fn wanted, void *arg,
                                   struct assay_share_entry **ret, size_t *ret_count,
                                   struct assay_err *err) ASSAY_MUST_USE;

bool assay_share_has(struct assay_records *records, const struct assay_share_entry *entry);

/* The value as it stands (malloc); not a use of it. NOT_FOUND: gone. DATA_LOSS: was damaged and is dropped. */
enum assay_status assay_share_read(struct assay_records *records, const struct assay_share_entry *entry, void **ret,
                                   size_t *ret_bytes, struct assay_err *err) ASSAY_MUST_USE;

/* A value that was read elsewhere. */
struct assay_share_value {
    struct assay_share_entry entry;
    const void *bytes;
    size_t len;
};
/* XXH3-64 of the bytes, seeded with XXH3-64 of the key. */
uint64_t assay_share_checksum(const struct assay_share_entry *entry, const void *bytes, size_t len);
/* Takes values in, in one transaction, and tells the watches. Those that are there stay as they are. DATA_LOSS: a value
 * is not what its entry says (the sentence names the chunk); nothing is written. Else as assay_records_put. */
enum assay_status assay_share_write(struct assay_records *records, const struct assay_share_value *values, size_t count,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* Drops values that another evaluator has now. Those that a Score call has pinned stay: UNAVAILABLE, when the others
 * are dropped; whoever asked asks again. */
enum assay_status assay_share_drop(struct assay_records *records, const struct assay_share_entry *entries, size_t count,
                                   uint64_t *ret_dropped, struct assay_err *err) ASSAY_MUST_USE;
