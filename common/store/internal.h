/* What the files of this folder share. */
#pragma once

#include <lmdb.h>
#include <pthread.h>

#include "common/base/fs.h"
#include "common/store/store.h"

#define STORE_TABLES_MAX 16
#define STORE_KEY_BYTES_MAX 400
/* Reads under way at once; LMDB keeps a slot of 64 bytes for each. */
#define STORE_READERS_MAX 512

struct assay_store {
    char dir[ASSAY_PATH_MAX];
    int lock_fd; /* holds the lock file; -1 when there is none */
    MDB_env *env;
    bool durable;
    size_t tables_count;
    char *tables[STORE_TABLES_MAX];
    MDB_dbi dbis[STORE_TABLES_MAX];
    MDB_dbi pieces;
    /* Held for reading while a transaction is open, for writing while the map changes its size. */
    pthread_rwlock_t map_lock;
    pthread_mutex_t write_lock; /* guards what follows */
    size_t map_bytes;
    bool unsynced; /* the marker is on disk */
};

/* --- guard.c: who has the directory, and whether it can be trusted --- */

/* Takes the lock file of the directory. FAILED_PRECONDITION names the process that has it. */
enum assay_status store_lock(const char *dir, int *ret_fd, struct assay_err *err) ASSAY_MUST_USE;
/* DATA_LOSS when the machine went down with commits that were not synced, or when data.mdb is gone or empty
 * though the store had been made. */
enum assay_status store_trust(const char *dir, struct assay_err *err) ASSAY_MUST_USE;
/* Leaves the file that says which layout stands here. */
enum assay_status store_stamp(const char *dir, struct assay_err *err) ASSAY_MUST_USE;
/* Sets and removes the marker "there are commits that the disk may not have". */
enum assay_status store_mark_unsynced(const char *dir, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status store_clear_unsynced(const char *dir, struct assay_err *err) ASSAY_MUST_USE;

/* --- check.c --- */

/* Walks every branch and leaf page and the list of free pages of data.mdb. LMDB has no checksums on its pages and
 * trusts them with memory; a page that is cut off, overwritten or used twice must be found before it does. DATA_LOSS
 * says which. */
enum assay_status store_check_file(const char *path, struct assay_err *err) ASSAY_MUST_USE;

/* --- store.c --- */

/* The sentence for an error of LMDB. `doing` as in "write to". */
enum assay_status store_fail(const struct assay_store *store, int rc, const char *doing, struct assay_err *err);
enum assay_status store_table(const struct assay_store *store, const char *table, size_t *ret,
                              struct assay_err *err) ASSAY_MUST_USE;
enum assay_status store_read_begin(struct assay_store *store, MDB_txn **ret, struct assay_err *err) ASSAY_MUST_USE;
void store_read_end(struct assay_store *store, MDB_txn *txn);

/* Runs body(txn, arg) in a write transaction and commits; again with a larger map while it is full. body returns an
 * LMDB code. `bytes` is how much is about to be written, a hint. */
typedef int (*store_write_fn)(struct assay_store *store, MDB_txn *txn, void *arg);
enum assay_status store_write(struct assay_store *store, uint64_t bytes, store_write_fn body, void *arg,
                              struct assay_err *err) ASSAY_MUST_USE;
