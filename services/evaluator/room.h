/* Values of the record store with their place in the quota: what records.c stands on. Not for others. */
#pragma once

#include <assert.h>
#include <pthread.h>

#include "services/evaluator/records.h"

/* Tables. Keys: the digest, then the numerics id's characters. */
#define ROOM_RECORDS "records"
#define ROOM_SAMPLES "samples"
#define ROOM_USED "used"       /* u64: when it was used last, in order, for both */
#define ROOM_ORIGINS "origins" /* struct record_origin: of what a record is */
#define ROOM_NAMES "names"     /* by variant digest: what the variant is called (cache.c) */

struct assay_records {
    struct assay_store *store;
    uint64_t quota_bytes;
    pthread_mutex_t write_lock; /* held by whoever writes; taken before `lock` */
    pthread_mutex_t lock;       /* guards the index */
    struct assay_index *index;
    pthread_mutex_t watch_lock;
    struct assay_records_watch *watches;
};

#define RECORD_MAGIC 0x31525341u /* "ASR1" */

/* Before the bytes of a record. */
struct record_head {
    uint32_t magic;
    uint32_t version;
    uint32_t dtype; /* enum assay_record_dtype */
    uint32_t zero;
    uint64_t rows, cols;
    struct assay_digest chunk, variant;
};
static_assert(sizeof(struct record_head) == 96, "as on disk");

/* What is listed without reading the value. Written and dropped with it. */
struct record_origin {
    struct assay_digest variant, chunk;
    uint32_t dtype; /* enum assay_record_dtype */
    uint32_t zero;
};
static_assert(sizeof(struct record_origin) == 72, "as on disk");

struct room_value {
    const char *table;
    struct assay_record_key key;
    uint32_t numerics;
    const void *bytes;
    size_t len;
    bool has_head; /* a record whose head stands apart from its bytes */
    struct record_head head;
    struct record_origin origin; /* a sample's has the chunk only */
};

/* Where a record stands. */
struct room_ref {
    struct assay_record_key key;
    uint32_t numerics;
};

/* Tells the watches of records that were put, also of those that were there already: a job may wait for a sign of any.
 * After the commit; no lock is held. */
void records_notify(struct assay_records *records, const struct room_ref *refs, size_t count);

/* False: the value is not a record. */
bool room_record_head(const void *value, size_t bytes, struct record_head *ret);

/* Fills the index from the store. */
enum assay_status room_load(struct assay_records *records, struct assay_err *err) ASSAY_MUST_USE;
/* One transaction; makes room first. write_lock is held. */
enum assay_status room_write(struct assay_records *records, const struct room_value *values, size_t count,
                             struct assay_err *err) ASSAY_MUST_USE;
/* Reads and marks as used last; what is damaged or gone leaves the index too. write_lock is not held. */
enum assay_status room_read(struct assay_records *records, const char *table, const struct assay_record_key *key,
                            uint32_t numerics, void **ret, size_t *ret_len, struct assay_err *err) ASSAY_MUST_USE;
/* write_lock is not held. */
enum assay_status room_drop(struct assay_records *records, const char *table, const struct assay_record_key *key,
                            uint32_t numerics, struct assay_err *err) ASSAY_MUST_USE;
/* Reads and checks, changes nothing in the order of use; what is damaged is dropped. NOT_FOUND: it is gone meanwhile.
 */
enum assay_status room_check(struct assay_records *records, const char *table, const struct assay_record_key *key,
                             uint32_t numerics, void **ret, size_t *ret_len, struct assay_err *err) ASSAY_MUST_USE;
/* Drops entries, except those that are pinned or gone meanwhile: they get bytes = 0. One transaction. write_lock is not
 * held. */
enum assay_status room_drop_all(struct assay_records *records, struct assay_index_entry *entries, size_t count,
                                struct assay_err *err) ASSAY_MUST_USE;
const char *room_table_of(uint32_t numerics);
/* Writes when what was used. write_lock is held. */
enum assay_status room_write_order(struct assay_records *records, struct assay_err *err) ASSAY_MUST_USE;
