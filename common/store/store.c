#include "common/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/store/internal.h"

#define MAP_BYTES_MIN ((size_t)64 << 20)
/* LMDB's own table of the list of free pages. */
#define FREE_PAGES_DBI 0

enum assay_status store_fail(const struct assay_store *store, int rc, const char *doing, struct assay_err *err)
{
    switch (rc) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EIO: /* LMDB's name for a write that fell short */
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot %s the store %s: the disk is full or failing (%s)",
                             doing, store->dir, strerror(rc));
    case ENOMEM:
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot %s the store %s: out of memory", doing, store->dir);
    case MDB_READERS_FULL:
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot %s the store %s: more than %d reads at once", doing,
                             store->dir, STORE_READERS_MAX);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_PANIC:
        return assay_err_set(err, ASSAY_DATA_LOSS, "cannot %s the store %s: it is damaged (%s)", doing, store->dir,
                             mdb_strerror(rc));
    default:
        if (rc > 0)
            return assay_err_errno(err, rc, "cannot %s the store %s", doing, store->dir);
        return assay_err_set(err, ASSAY_INTERNAL, "cannot %s the store %s: %s", doing, store->dir, mdb_strerror(rc));
    }
}

enum assay_status store_table(const struct assay_store *store, const char *table, size_t *ret, struct assay_err *err)
{
    for (size_t i = 0; i < store->tables_count; i++) {
        if (strcmp(store->tables[i], table) == 0) {
            *ret = i;
            return ASSAY_OK;
        }
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the store %s has no table '%.64s'", store->dir, table);
}

/* --- transactions --- */

enum assay_status store_read_begin(struct assay_store *store, MDB_txn **ret, struct assay_err *err)
{
    pthread_rwlock_rdlock(&store->map_lock);
    int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, ret);
    if (rc == 0)
        return ASSAY_OK;
    pthread_rwlock_unlock(&store->map_lock);
    return store_fail(store, rc, "read", err);
}

void store_read_end(struct assay_store *store, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    pthread_rwlock_unlock(&store->map_lock);
}

/* One attempt; an LMDB code. */
static int write_once(struct assay_store *store, store_write_fn body, void *arg)
{
    MDB_txn *txn;
    pthread_rwlock_rdlock(&store->map_lock);
    int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (rc == 0) {
        rc = body(store, txn, arg);
        if (rc == 0)
            rc = mdb_txn_commit(txn);
        else
            mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&store->map_lock);
    return rc;
}

/* Doubles the map until `bytes` more fit. Waits for the reads under way. */
static int grow(struct assay_store *store, uint64_t bytes)
{
    size_t wanted = store->map_bytes;
    do {
        if (wanted > SIZE_MAX / 2)
            return ENOMEM;
        wanted *= 2;
    } while (wanted - store->map_bytes < bytes);
    pthread_rwlock_wrlock(&store->map_lock);
    int rc = mdb_env_set_mapsize(store->env, wanted);
    if (rc == 0)
        store->map_bytes = wanted;
    else if (mdb_env_set_mapsize(store->env, store->map_bytes) != 0)
        ASSAY_BUG("a store lost its memory map: the address space is full");
    pthread_rwlock_unlock(&store->map_lock);
    return rc;
}

enum assay_status store_write(struct assay_store *store, uint64_t bytes, store_write_fn body, void *arg,
                              struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    pthread_mutex_lock(&store->write_lock);
    if (!store->durable && !store->unsynced) {
        status = store_mark_unsynced(store->dir, err);
        store->unsynced = status == ASSAY_OK;
    }
    int rc = 0;
    while (status == ASSAY_OK) {
        rc = write_once(store, body, arg);
        if (rc == MDB_MAP_FULL)
            rc = grow(store, bytes);
        else
            break;
        if (rc != 0)
            break;
    }
    pthread_mutex_unlock(&store->write_lock);
    return status == ASSAY_OK && rc != 0 ? store_fail(store, rc, "write to", err) : status;
}

enum assay_status assay_store_sync(struct assay_store *store, struct assay_err *err)
{
    if (store->durable)
        return ASSAY_OK;
    enum assay_status status = ASSAY_OK;
    pthread_mutex_lock(&store->write_lock);
    if (store->unsynced) {
        int rc = mdb_env_sync(store->env, 1);
        status = rc == 0 ? store_clear_unsynced(store->dir, err) : store_fail(store, rc, "sync", err);
        store->unsynced = status != ASSAY_OK;
    }
    pthread_mutex_unlock(&store->write_lock);
    return status;
}

void assay_store_write_back(struct assay_store *store)
{
    mdb_filehandle_t fd;
    if (mdb_env_get_fd(store->env, &fd) == 0 && sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) != 0)
        return; /* a file system that cannot: the sync does it all */
}

uint64_t assay_store_bytes(struct assay_store *store)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    MDB_envinfo info;
    MDB_stat stat;
    if (store_read_begin(store, &txn, NULL) != ASSAY_OK)
        return 0;
    uint64_t free_pages = 0, pages = 0;
    if (mdb_env_info(store->env, &info) == 0 && mdb_env_stat(store->env, &stat) == 0 &&
        mdb_cursor_open(txn, FREE_PAGES_DBI, &cursor) == 0) {
        pages = info.me_last_pgno + 1;
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            size_t count;
            memcpy(&count, value.mv_data, sizeof count);
            free_pages += count;
        }
        mdb_cursor_close(cursor);
    }
    store_read_end(store, txn);
    return (pages - ASSAY_MIN(free_pages, pages)) * (pages ? stat.ms_psize : 0);
}

/* --- opening --- */

static int open_tables(struct assay_store *store, MDB_txn *txn, void *arg)
{
    (void)arg;
    int rc = mdb_dbi_open(txn, "#pieces", MDB_CREATE, &store->pieces);
    for (size_t i = 0; rc == 0 && i < store->tables_count; i++)
        rc = mdb_dbi_open(txn, store->tables[i], MDB_CREATE, &store->dbis[i]);
    return rc;
}

static enum assay_status open_env(struct assay_store *store, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct stat info = {0};
    MDB_envinfo opened;
    enum assay_status status = assay_path_join(path, store->dir, "data.mdb", err);
    if (status != ASSAY_OK)
        return status;
    if (stat(path, &info) == 0 && info.st_size > 0) {
        status = store_check_file(path, err);
        if (status != ASSAY_OK)
            return status;
    }
    store->map_bytes = MAP_BYTES_MIN;
    while (store->map_bytes < (size_t)info.st_size)
        store->map_bytes *= 2;
    int rc = mdb_env_create(&store->env);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(store->env, (MDB_dbi)store->tables_count + 1);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(store->env, STORE_READERS_MAX);
    if (rc == 0)
        rc = mdb_env_set_mapsize(store->env, store->map_bytes);
    /* NOTLS: a read belongs to its transaction, not to its thread, so threads may come and go. NOSYNC: data and meta
     * pages reach the disk in any order, which only a power loss can tell; the marker tells us. NOMETASYNC would keep
     * the order at the price of one flush for each commit. */
    if (rc == 0)
        rc = mdb_env_open(store->env, store->dir, MDB_NOTLS | (store->durable ? 0 : MDB_NOSYNC), 0600);
    if (rc == 0)
        rc = mdb_env_info(store->env, &opened);
    if (rc != 0)
        return store_fail(store, rc, "open", err);
    store->map_bytes = opened.me_mapsize;
    /* What a killed process left to the kernel. */
    rc = mdb_env_sync(store->env, 1);
    if (rc != 0)
        return store_fail(store, rc, "sync", err);
    status = store_clear_unsynced(store->dir, err);
    if (status == ASSAY_OK)
        status = store_write(store, 0, open_tables, NULL, err);
    return status == ASSAY_OK ? store_stamp(store->dir, err) : status;
}

static enum assay_status open_dir(struct assay_store *store, struct assay_err *err)
{
    enum assay_status status = assay_mkdirs(store->dir, 0700, err);
    if (status != ASSAY_OK)
        return status;
    if (access(store->dir, R_OK | W_OK | X_OK) != 0)
        return assay_err_errno(err, errno, "the store's directory %s is not writable", store->dir);
    status = store_lock(store->dir, &store->lock_fd, err);
    if (status == ASSAY_OK)
        status = store_trust(store->dir, err);
    return status == ASSAY_OK ? open_env(store, err) : status;
}

static enum assay_status copy_names(struct assay_store *store, const char *const *tables, struct assay_err *err)
{
    for (; tables[store->tables_count]; store->tables_count++) {
        if (store->tables_count == STORE_TABLES_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a store has at most %d tables", STORE_TABLES_MAX);
        char *name = strdup(tables[store->tables_count]);
        if (!name)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a store");
        store->tables[store->tables_count] = name;
    }
    return ASSAY_OK;
}

static struct assay_store *new_store(void)
{
    struct assay_store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->lock_fd = -1;
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* A stream of readers must not keep the map from growing. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&store->map_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&store->write_lock, NULL);
    return store;
}

enum assay_status assay_store_open(const struct assay_store_options *options, struct assay_store **ret,
                                   struct assay_err *err)
{
    if (strlen(options->dir) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a store's path has at most %d bytes", ASSAY_PATH_MAX - 1);
    struct assay_store *store = new_store();
    if (!store)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a store");
    strcpy(store->dir, options->dir);
    store->durable = options->durable;
    enum assay_status status = copy_names(store, options->tables, err);
    if (status == ASSAY_OK)
        status = open_dir(store, err);
    if (status != ASSAY_OK) {
        assay_store_close(store);
        return status;
    }
    *ret = store;
    return ASSAY_OK;
}

void assay_store_close(struct assay_store *store)
{
    if (!store)
        return;
    if (store->env) {
        enum assay_status synced = assay_store_sync(store, NULL); /* a failure leaves the marker, which says enough */
        (void)synced;
        mdb_env_close(store->env);
    }
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    for (size_t i = 0; i < store->tables_count; i++)
        free(store->tables[i]);
    pthread_mutex_destroy(&store->write_lock);
    pthread_rwlock_destroy(&store->map_lock);
    free(store);
}
