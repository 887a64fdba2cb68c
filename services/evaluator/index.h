/* What the record store holds, in memory: which records, of which numerics, how large, which were used last, which must
 * stay. Blobs without numerics (samples) stand in it too, under ASSAY_NUMERICS_NONE. Pure; not thread-safe. */
#pragma once

#include "common/base/digest.h"

struct assay_index;

/* Numerics ids as small numbers, from 1. */
#define ASSAY_NUMERICS_NONE 0u
#define ASSAY_NUMERICS_BYTES_MAX 128
#define ASSAY_NUMERICS_COUNT_MAX 1000u

struct assay_index_entry {
    struct assay_record_key key;
    uint32_t numerics;
    uint64_t bytes; /* of room in the store */
    uint64_t used;  /* larger = used later */
};

struct assay_index *assay_index_new(void); /* NULL when out of memory */
void assay_index_free(struct assay_index *index);

/* The number of a name, new or known. INVALID_ARGUMENT: not 1..128 printable ASCII characters. RESOURCE_EXHAUSTED: more
 * than ASSAY_NUMERICS_COUNT_MAX names. */
enum assay_status assay_index_intern(struct assay_index *index, const char *name, uint32_t *ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
/* "" for ASSAY_NUMERICS_NONE. Valid as long as the index. */
const char *assay_index_name(const struct assay_index *index, uint32_t numerics);
uint32_t assay_index_numerics_count(const struct assay_index *index); /* numbers are below it */

/* Adds an entry as the one used last. False when out of memory. One that is there stays as it is. */
bool assay_index_add(struct assay_index *index, const struct assay_index_entry *entry) ASSAY_MUST_USE;
void assay_index_remove(struct assay_index *index, const struct assay_record_key *key, uint32_t numerics);
bool assay_index_has(const struct assay_index *index, const struct assay_record_key *key, uint32_t numerics);
/* Makes it the one used last. */
void assay_index_touch(struct assay_index *index, const struct assay_record_key *key, uint32_t numerics);

/* Calls fn for each numerics under a key. */
typedef void (*assay_index_fn)(void *arg, uint32_t numerics);
void assay_index_each(const struct assay_index *index, const struct assay_record_key *key, assay_index_fn fn,
                      void *arg);

/* Pinned keys are never the oldest. Pins count; a key may be pinned before its record is there. */
bool assay_index_pin(struct assay_index *index, const struct assay_record_key *key) ASSAY_MUST_USE;
void assay_index_unpin(struct assay_index *index, const struct assay_record_key *key);
bool assay_index_pinned(const struct assay_index *index, const struct assay_record_key *key);

/* The entry used longest ago that is not pinned. False: there is none. */
bool assay_index_oldest(const struct assay_index *index, struct assay_index_entry *ret);

uint64_t assay_index_bytes(const struct assay_index *index);
size_t assay_index_count(const struct assay_index *index);

/* All entries, in no order. fn must not change the index. */
typedef void (*assay_index_visit_fn)(void *arg, const struct assay_index_entry *entry, bool pinned);
void assay_index_visit(const struct assay_index *index, assay_index_visit_fn fn, void *arg);

/* The time, in microseconds since 1970: what is used next is used at that time or later. `used` never goes back, so it
 * is the time of use as long as no more than a million uses fall into a second and the clock is not set back. */
void assay_index_tell_time(struct assay_index *index, uint64_t now_us);

/* Takes up to max entries whose `used` changed since they were taken last; returns how many. */
size_t assay_index_take_changed(struct assay_index *index, struct assay_index_entry *ret, size_t max);
