/* What the record store holds, for the people who own it: lists, checks, prunes. Any thread; all of it may take long.
 */
#pragma once

#include "services/evaluator/records.h"

/* A record or, with numerics "", a sample. */
struct assay_cache_entry {
    struct assay_record_key key;
    uint32_t numerics;
    bool known;  /* variant, chunk and dtype are: records of earlier versions and samples do not say */
    bool placed; /* chunk is; samples of earlier versions do not say */
    bool pinned; /* a running job needs it */
    struct assay_variant_id variant;
    struct assay_chunk_key chunk;
    enum assay_record_dtype dtype;
    uint64_t bytes;   /* of the quota */
    uint64_t used_us; /* last used, since 1970 */
};

/* A copy of the list, the ones used last first; the caller frees *ret. */
enum assay_status assay_cache_list(struct assay_records *records, struct assay_cache_entry **ret, size_t *ret_count,
                                   struct assay_err *err) ASSAY_MUST_USE;

/* Reads an entry and checks its bytes and that it is what its key says. DATA_LOSS: it was damaged and is dropped, with
 * the sentence. NOT_FOUND: it is gone meanwhile. */
enum assay_status assay_cache_verify(struct assay_records *records, const struct assay_cache_entry *entry,
                                     struct assay_err *err) ASSAY_MUST_USE;

#define ASSAY_CACHE_PREFIX_MIN 4
struct assay_cache_filter {
    const char *variant_prefix; /* NULL: of any variant, and samples too */
    bool has_older_than, has_to_bytes;
    uint64_t older_than_us; /* last used before that time */
    uint64_t to_bytes;      /* no more than to come down to that */
};

struct assay_cache_pruned {
    uint64_t records, samples, bytes;
    uint64_t pinned; /* chosen, but a running job needs them */
    uint64_t bytes_left;
};

/* Drops, or with dry_run only counts, what all parts of the filter choose, the ones used longest ago first.
 * INVALID_ARGUMENT: a prefix that is not 4..64 lower-case hex digits, or that several variants have. NOT_FOUND: no
 * variant has it. */
enum assay_status assay_cache_prune(struct assay_records *records, const struct assay_cache_filter *filter,
                                    bool dry_run, struct assay_cache_pruned *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Bytes of a label that are kept. */
#define ASSAY_CACHE_LABEL_MAX 200
struct assay_cache_name {
    struct assay_model_id model;
    char label[ASSAY_CACHE_LABEL_MAX + 1];
};

/* Keeps what a variant is called. Writes nothing when it is known under that name. */
enum assay_status assay_cache_set_name(struct assay_records *records, const struct assay_variant_id *variant,
                                       const struct assay_model_id *model, const char *label,
                                       struct assay_err *err) ASSAY_MUST_USE;
/* False: nobody has named it. */
bool assay_cache_name(struct assay_records *records, const struct assay_variant_id *variant,
                      struct assay_cache_name *ret);

uint64_t assay_cache_quota_bytes(const struct assay_records *records);
uint64_t assay_cache_store_bytes(struct assay_records *records); /* pages in use */
