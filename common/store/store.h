/* One LMDB environment, opened by one process (a lock file says whose). Values are checked by XXH3 on the way out and
 * may be cut in equal-sized pieces. Thread-safe: one writer at a time, many readers. */
#pragma once

#include "common/base/digest.h"

struct assay_store;

struct assay_store_options {
    const char *dir;           /* made when absent, mode 0700 */
    const char *const *tables; /* names of the tables, NULL-terminated, at most 16 */
    bool durable; /* true: a commit is on disk when it returns. false: synced in batches (assay_store_sync) */
};

/* FAILED_PRECONDITION: another process has it (names the pid). PERMISSION_DENIED: directory not writable. DATA_LOSS:
 * the file is damaged, missing or cut off, or the machine went down while commits of a store that is not durable were
 * unsynced: what is there must not be used. UNIMPLEMENTED: another layout. Every page is checked for structure: time
 * grows with the keys. */
enum assay_status assay_store_open(const struct assay_store_options *options, struct assay_store **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_store_close(struct assay_store *store); /* NULL is fine; syncs */
enum assay_status assay_store_sync(struct assay_store *store, struct assay_err *err) ASSAY_MUST_USE;
/* Begins to write what was committed, so that a later sync finds less to do. Promises nothing; may take as long as the
 * disk. Any thread; writes go on meanwhile. */
void assay_store_write_back(struct assay_store *store);

/* A value under table and key (1..400 bytes). Any size; large ones are cut. */
struct assay_put {
    const char *table;
    const void *key;
    size_t key_bytes;
    const void *value; /* NULL deletes */
    size_t value_bytes;
};
/* All or nothing, one transaction. The map grows as needed. RESOURCE_EXHAUSTED when the disk is full: nothing changed.
 */
enum assay_status assay_store_put(struct assay_store *store, const struct assay_put *puts, size_t count,
                                  struct assay_err *err) ASSAY_MUST_USE;

/* The same where bytes stand before a value that lie elsewhere: together they are one value, and nobody has to copy
 * them together. before[i] belongs to puts[i]. */
struct assay_put_before {
    const void *bytes; /* NULL = none */
    size_t len;
};
enum assay_status assay_store_put_parts(struct assay_store *store, const struct assay_put *puts,
                                        const struct assay_put_before *before, size_t count,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* Copies the value out (malloc, NUL behind it; caller frees). NOT_FOUND: absent. DATA_LOSS: there and damaged; it has
 * been dropped. */
enum assay_status assay_store_get(struct assay_store *store, const char *table, const void *key, size_t key_bytes,
                                  void **ret, size_t *ret_bytes, struct assay_err *err) ASSAY_MUST_USE;
/* Whether a value is there, without checking its bytes. */
enum assay_status assay_store_has(struct assay_store *store, const char *table, const void *key, size_t key_bytes,
                                  bool *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Calls fn for each key of a table that starts with the prefix (0 bytes: all), in order, until it returns false. fn
 * must not call the store. With values wanted, value is the whole value; without, value is NULL and value_bytes is its
 * size. Damaged values are left out; the visit goes on and ends with DATA_LOSS. */
typedef bool (*assay_store_visit_fn)(void *arg, const void *key, size_t key_bytes, const void *value,
                                     size_t value_bytes);
enum assay_status assay_store_visit(struct assay_store *store, const char *table, const void *prefix,
                                    size_t prefix_bytes, bool values, assay_store_visit_fn fn, void *arg,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* Bytes of pages in use. */
uint64_t assay_store_bytes(struct assay_store *store);
