/* The record store: what variants answered to chunks, and the samples made of them. Thread-safe; one thread writes at a
 * time.
 *
 * Room in the store is bounded by a quota. Records and samples that were used longest ago go first; the records of
 * running jobs (pinned keys) stay. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/store/store.h"
#include "services/evaluator/index.h"

struct assay_records;

/* What a record's values are kept as. */
enum assay_record_dtype { ASSAY_RECORD_F32 = 1, ASSAY_RECORD_F16 = 2 };

/* A record as it comes from a worker. */
struct assay_record {
    struct assay_chunk_key chunk;
    struct assay_variant_id variant;
    const char *numerics;
    uint64_t rows, cols;
    const void *hidden; /* [rows, cols], little-endian; any alignment */
    enum assay_record_dtype dtype;
};

/* Ceilings of one record. */
#define ASSAY_RECORD_ROWS_MAX (1u << 20)
#define ASSAY_RECORD_BYTES_MAX ((uint64_t)1 << 30)

/* Bytes of one value of a record; 0 for a dtype that is none. */
size_t assay_record_value_bytes(enum assay_record_dtype dtype);

/* Records of two dtypes have two keys: they are never mixed. */
struct assay_record_key assay_record_key_of(const struct assay_chunk_key *chunk, const struct assay_variant_id *variant,
                                            enum assay_record_dtype dtype);

/* Opens the store under dir. A damaged or torn one is moved aside (DIR.damaged-TIME) and an empty one takes its place:
 * records can be made again. `moved` (may be NULL) gets the new name then, else "". */
enum assay_status assay_records_open(const char *dir, uint64_t quota_bytes, char moved[ASSAY_PATH_MAX],
                                     struct assay_records **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Begins to write what was put (assay_store_write_back). */
void assay_records_write_back(struct assay_records *records);
void assay_records_close(struct assay_records *records); /* NULL is fine; writes what is left and syncs */

/* INVALID_ARGUMENT: impossible shape, a value that is not finite (names chunk, row and column). */
enum assay_status assay_record_check(const struct assay_record *record, struct assay_err *err) ASSAY_MUST_USE;

/* One transaction. A record that is there already stays as it is: the first wins. RESOURCE_EXHAUSTED: the disk is full,
 * or running jobs pin so much that these do not fit the quota; nothing is written then. Records were checked. */
enum assay_status assay_records_put(struct assay_records *records, const struct assay_record *put, size_t count,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* Which of the chunks have a record of the variant under the numerics id with most of them: have[i] = 1.
 * numerics gets its name, "" when there is none at all. */
enum assay_status assay_records_have(struct assay_records *records, const struct assay_variant_id *variant,
                                     enum assay_record_dtype dtype, const struct assay_chunk_key *chunks, size_t count,
                                     uint8_t *have, char numerics[ASSAY_NUMERICS_BYTES_MAX + 1],
                                     struct assay_err *err) ASSAY_MUST_USE;

/* The same with the set of `wanted` (NULL or "": the most complete one), and all sets that have any of the chunks. */
#define ASSAY_RECORD_SETS_MAX 32
struct assay_record_sets {
    size_t count;                             /* those beyond the ceiling are left out */
    const char *names[ASSAY_RECORD_SETS_MAX]; /* valid as long as the records */
    uint64_t counts[ASSAY_RECORD_SETS_MAX];
};
enum assay_status assay_records_have_set(struct assay_records *records, const struct assay_variant_id *variant,
                                         enum assay_record_dtype dtype, const struct assay_chunk_key *chunks,
                                         size_t count, const char *wanted, uint8_t *have,
                                         char numerics[ASSAY_NUMERICS_BYTES_MAX + 1], struct assay_record_sets *sets,
                                         struct assay_err *err) ASSAY_MUST_USE;
/* fn for each numerics that has a record under the key. fn must not call the records. */
void assay_records_each(struct assay_records *records, const struct assay_record_key *key, assay_index_fn fn,
                        void *arg);
/* The number of a name, new or known. INVALID_ARGUMENT: it is no name. RESOURCE_EXHAUSTED: too many. */
enum assay_status assay_records_numerics_number(struct assay_records *records, const char *name, uint32_t *ret,
                                                struct assay_err *err) ASSAY_MUST_USE;
/* The name of a numerics number: valid as long as the records. */
const char *assay_records_numerics(struct assay_records *records, uint32_t numerics);

struct assay_record_data {
    uint64_t rows, cols;
    float *hidden; /* malloc; records of f16 are widened, which is exact */
};
/* NOT_FOUND; DATA_LOSS: was damaged and is dropped. Makes it the one used last. */
enum assay_status assay_records_get(struct assay_records *records, const struct assay_record_key *key,
                                    uint32_t numerics, struct assay_record_data *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* Drops a record that cannot be right. */
enum assay_status assay_records_drop(struct assay_records *records, const struct assay_record_key *key,
                                     uint32_t numerics, struct assay_err *err) ASSAY_MUST_USE;

/* Pins count. The key need not have a record yet. */
enum assay_status assay_records_pin(struct assay_records *records, const struct assay_record_key *key,
                                    struct assay_err *err) ASSAY_MUST_USE;
void assay_records_unpin(struct assay_records *records, const struct assay_record_key *key);

/* fn is called for each record that was put, new or there before, after the commit, on the thread that wrote it; it
 * must not call the records. After unwatch has returned it is not called any more. A watch belongs to its caller and
 * stays where it is. */
typedef void (*assay_records_watch_fn)(void *arg, const struct assay_record_key *key, uint32_t numerics);
struct assay_records_watch {
    assay_records_watch_fn fn;
    void *arg;
    struct assay_records_watch *next;
};
void assay_records_watch(struct assay_records *records, struct assay_records_watch *watch);
void assay_records_unwatch(struct assay_records *records, struct assay_records_watch *watch);

/* Samples: any bytes under a digest. Putting twice replaces. get: NOT_FOUND, DATA_LOSS as above. */
struct assay_blob {
    struct assay_record_key key;
    const void *bytes;
    size_t len;
    struct assay_chunk_key chunk; /* that it was made of */
};
enum assay_status assay_blobs_put(struct assay_records *records, const struct assay_blob *blobs, size_t count,
                                  struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_blob_get(struct assay_records *records, const struct assay_record_key *key, void **ret,
                                 size_t *ret_len, struct assay_err *err) ASSAY_MUST_USE;

/* Writes the order of use and syncs. Now and then, and before the end. */
enum assay_status assay_records_flush(struct assay_records *records, struct assay_err *err) ASSAY_MUST_USE;

uint64_t assay_records_bytes(struct assay_records *records); /* of records and samples, as the quota counts them */
size_t assay_records_count(struct assay_records *records);
