/* Values. One that fits a piece stands behind its head, in the table. A larger one is cut into pieces of one size under
 * (id, index) in the table "#pieces": runs of overflow pages that are all alike can take each other's place, so the
 * file does not fill with gaps that nothing fits. Ids grow, so pieces are appended. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/xxh3.h"
#include "common/store/internal.h"

#define HEAD_MAGIC 0x31565341u /* "ASV1" */
/* Four pages less the head that LMDB puts before an overflow run. */
#define PIECE_BYTES (4 * 4096 - 16)
#define INLINE_BYTES_MAX (PIECE_BYTES - sizeof(struct value_head))

struct value_head {
    uint32_t magic;
    uint32_t pieces; /* 0: the bytes stand behind this head */
    uint64_t value_bytes;
    uint64_t hash; /* XXH3 over table name, key and bytes */
    uint64_t id;   /* of the pieces */
};
static_assert(sizeof(struct value_head) == 32, "as on disk");

struct piece_key {
    uint8_t bytes[12]; /* big-endian, so that memcmp sorts by number */
};

static struct piece_key piece_key_of(uint64_t id, uint32_t index)
{
    struct piece_key key;
    for (unsigned i = 0; i < 8; i++)
        key.bytes[i] = (uint8_t)(id >> (56 - 8 * i));
    for (unsigned i = 0; i < 4; i++)
        key.bytes[8 + i] = (uint8_t)(index >> (24 - 8 * i));
    return key;
}

/* A value that turns up under another key is a damaged one too. */
static uint64_t seed_of(const char *table, const void *key, size_t key_bytes)
{
    return XXH3_64bits_withSeed(key, key_bytes, XXH3_64bits(table, strlen(table)));
}

static uint64_t hash_of(const char *table, const void *key, size_t key_bytes, const void *value, size_t bytes)
{
    return XXH3_64bits_withSeed(value, bytes, seed_of(table, key, key_bytes));
}

/* A value in two parts. */
struct whole {
    const struct assay_put *put;
    struct assay_put_before before; /* len is 0 when there is none */
};

static size_t bytes_of(const struct whole *whole)
{
    return whole->put->value_bytes + whole->before.len;
}

/* Bytes [begin, begin + len) of the whole value. */
static void copy_part(const struct whole *whole, size_t begin, size_t len, void *ret)
{
    size_t before = whole->before.len, first = begin < before ? ASSAY_MIN(before - begin, len) : 0;
    if (first > 0)
        memcpy(ret, (const char *)whole->before.bytes + begin, first);
    if (len > first)
        memcpy((char *)ret + first, (const char *)whole->put->value + (begin + first - before), len - first);
}

/* False when the bytes cannot be a head followed by what it announces. */
static bool head_read(const MDB_val *stored, struct value_head *ret)
{
    if (stored->mv_size < sizeof *ret)
        return false;
    memcpy(ret, stored->mv_data, sizeof *ret);
    if (ret->magic != HEAD_MAGIC)
        return false;
    if (ret->pieces == 0)
        return ret->value_bytes == stored->mv_size - sizeof *ret;
    return ret->value_bytes > INLINE_BYTES_MAX && ret->value_bytes <= (uint64_t)ret->pieces * PIECE_BYTES &&
           ret->value_bytes > (uint64_t)(ret->pieces - 1) * PIECE_BYTES;
}

/* --- writing --- */

static int drop_pieces(struct assay_store *store, MDB_txn *txn, const struct value_head *head)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, store->pieces, &cursor);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < head->pieces; i++) {
        struct piece_key key = piece_key_of(head->id, i);
        MDB_val where = {sizeof key, &key}, value;
        rc = mdb_cursor_get(cursor, &where, &value, MDB_SET);
        if (rc == 0)
            rc = mdb_cursor_del(cursor, 0);
        else if (rc == MDB_NOTFOUND)
            rc = 0; /* a damaged value may lack some */
    }
    mdb_cursor_close(cursor);
    return rc;
}

static int drop_value(struct assay_store *store, MDB_txn *txn, MDB_dbi dbi, MDB_val *key)
{
    MDB_val stored;
    struct value_head head;
    int rc = mdb_get(txn, dbi, key, &stored);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc == 0 && head_read(&stored, &head) && head.pieces > 0)
        rc = drop_pieces(store, txn, &head);
    return rc == 0 ? mdb_del(txn, dbi, key, NULL) : rc;
}

/* One more than the largest id. */
static int next_id(MDB_cursor *cursor, uint64_t *ret)
{
    MDB_val key, value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
    *ret = 1;
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc != 0)
        return rc;
    if (key.mv_size != sizeof(struct piece_key))
        return MDB_CORRUPTED;
    uint64_t id = 0;
    for (unsigned i = 0; i < 8; i++)
        id = id << 8 | ((const uint8_t *)key.mv_data)[i];
    *ret = id + 1;
    return 0;
}

/* Each piece goes into the hash while it is in the cache. */
static int put_pieces(struct assay_store *store, MDB_txn *txn, const struct whole *whole, struct value_head *head)
{
    const struct assay_put *put = whole->put;
    MDB_cursor *cursor;
    XXH3_state_t hash;
    XXH3_INITSTATE(&hash);
    XXH3_64bits_reset_withSeed(&hash, seed_of(put->table, put->key, put->key_bytes));
    int rc = mdb_cursor_open(txn, store->pieces, &cursor);
    if (rc != 0)
        return rc;
    rc = next_id(cursor, &head->id);
    size_t done = 0;
    for (uint32_t i = 0; rc == 0 && done < head->value_bytes; i++) {
        struct piece_key key = piece_key_of(head->id, i);
        MDB_val where = {sizeof key, &key}, room = {PIECE_BYTES, NULL};
        rc = mdb_cursor_put(cursor, &where, &room, MDB_RESERVE | MDB_APPEND);
        if (rc != 0)
            break;
        size_t part = ASSAY_MIN(head->value_bytes - done, (size_t)PIECE_BYTES);
        copy_part(whole, done, part, room.mv_data);
        XXH3_64bits_update(&hash, room.mv_data, part);
        memset((char *)room.mv_data + part, 0, PIECE_BYTES - part);
        done += part;
        head->pieces = i + 1;
    }
    head->hash = XXH3_64bits_digest(&hash);
    mdb_cursor_close(cursor);
    return rc;
}

static int put_value(struct assay_store *store, MDB_txn *txn, MDB_dbi dbi, const struct whole *whole)
{
    const struct assay_put *put = whole->put;
    MDB_val key = {put->key_bytes, (void *)put->key};
    int rc = drop_value(store, txn, dbi, &key);
    if (rc != 0 || !put->value)
        return rc;
    struct value_head head = {.magic = HEAD_MAGIC, .value_bytes = bytes_of(whole)};
    bool cut = head.value_bytes > INLINE_BYTES_MAX;
    if (cut)
        rc = put_pieces(store, txn, whole, &head);
    if (rc != 0)
        return rc;
    MDB_val room = {sizeof head + (cut ? 0 : head.value_bytes), NULL};
    rc = mdb_put(txn, dbi, &key, &room, MDB_RESERVE);
    if (rc != 0)
        return rc;
    if (!cut) {
        char *bytes = (char *)room.mv_data + sizeof head;
        copy_part(whole, 0, head.value_bytes, bytes);
        head.hash = hash_of(put->table, put->key, put->key_bytes, bytes, head.value_bytes);
    }
    memcpy(room.mv_data, &head, sizeof head);
    return 0;
}

struct put_batch {
    const struct assay_put *puts;
    const struct assay_put_before *before; /* may be NULL */
    size_t count;
};

static struct whole whole_of(const struct put_batch *batch, size_t index)
{
    struct whole whole = {.put = &batch->puts[index]};
    if (batch->before && batch->before[index].bytes)
        whole.before = batch->before[index];
    return whole;
}

static int put_all(struct assay_store *store, MDB_txn *txn, void *arg)
{
    const struct put_batch *batch = arg;
    for (size_t i = 0; i < batch->count; i++) {
        size_t table;
        if (store_table(store, batch->puts[i].table, &table, NULL) != ASSAY_OK)
            ASSAY_BUG("a table went away");
        struct whole whole = whole_of(batch, i);
        int rc = put_value(store, txn, store->dbis[table], &whole);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static enum assay_status check_key(const struct assay_store *store, const char *table, size_t key_bytes, size_t *ret,
                                   struct assay_err *err)
{
    if (key_bytes < 1 || key_bytes > STORE_KEY_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a key of the store has 1 to %d bytes, found %zu",
                             STORE_KEY_BYTES_MAX, key_bytes);
    return store_table(store, table, ret, err);
}

enum assay_status assay_store_put_parts(struct assay_store *store, const struct assay_put *puts,
                                        const struct assay_put_before *before, size_t count, struct assay_err *err)
{
    struct put_batch batch = {puts, before, count};
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        size_t table;
        struct whole whole = whole_of(&batch, i);
        enum assay_status status = check_key(store, puts[i].table, puts[i].key_bytes, &table, err);
        if (status != ASSAY_OK)
            return status;
        if (bytes_of(&whole) / PIECE_BYTES >= UINT32_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a value of %zu bytes is too large for the store",
                                 bytes_of(&whole));
        bytes += puts[i].value ? bytes_of(&whole) + 2 * PIECE_BYTES : 0;
    }
    return count ? store_write(store, bytes, put_all, &batch, err) : ASSAY_OK;
}

enum assay_status assay_store_put(struct assay_store *store, const struct assay_put *puts, size_t count,
                                  struct assay_err *err)
{
    return assay_store_put_parts(store, puts, NULL, count, err);
}

/* --- reading --- */

static int copy_pieces(const struct assay_store *store, MDB_txn *txn, const struct value_head *head, char *value)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, store->pieces, &cursor);
    if (rc != 0)
        return rc;
    for (uint32_t i = 0; rc == 0 && i < head->pieces; i++) {
        struct piece_key key = piece_key_of(head->id, i);
        MDB_val where = {sizeof key, &key}, piece;
        rc = mdb_cursor_get(cursor, &where, &piece, i == 0 ? MDB_SET : MDB_NEXT);
        if (rc == 0 && (where.mv_size != sizeof key || memcmp(where.mv_data, &key, sizeof key) != 0 ||
                        piece.mv_size != PIECE_BYTES))
            rc = MDB_NOTFOUND;
        if (rc != 0)
            break;
        size_t done = (size_t)i * PIECE_BYTES;
        memcpy(value + done, piece.mv_data, ASSAY_MIN((size_t)PIECE_BYTES, head->value_bytes - done));
    }
    mdb_cursor_close(cursor);
    return rc;
}

/* The value behind a head, as a malloc of its own with a NUL behind. MDB_CORRUPTED: damaged. Else an LMDB code. */
static int load(const struct assay_store *store, MDB_txn *txn, const char *table, const MDB_val *key,
                const MDB_val *stored, void **ret, size_t *ret_bytes)
{
    struct value_head head;
    if (!head_read(stored, &head))
        return MDB_CORRUPTED;
    char *value = malloc(head.value_bytes + 1);
    if (!value)
        return ENOMEM;
    value[head.value_bytes] = '\0';
    int rc = 0;
    if (head.pieces == 0)
        memcpy(value, (const char *)stored->mv_data + sizeof head, head.value_bytes);
    else
        rc = copy_pieces(store, txn, &head, value);
    if (rc == MDB_NOTFOUND ||
        (rc == 0 && hash_of(table, key->mv_data, key->mv_size, value, head.value_bytes) != head.hash))
        rc = MDB_CORRUPTED;
    if (rc != 0) {
        free(value);
        return rc;
    }
    *ret = value;
    *ret_bytes = head.value_bytes;
    return 0;
}

struct drop {
    const char *table;
    MDB_dbi dbi;
    const void *key;
    size_t key_bytes;
};

/* Looks again before it drops: meanwhile a sound value may have been written. */
static int drop_damaged(struct assay_store *store, MDB_txn *txn, void *arg)
{
    const struct drop *drop = arg;
    MDB_val key = {drop->key_bytes, (void *)drop->key}, stored;
    void *value;
    size_t bytes;
    int rc = mdb_get(txn, drop->dbi, &key, &stored);
    if (rc == 0)
        rc = load(store, txn, drop->table, &key, &stored, &value, &bytes);
    if (rc == 0)
        free(value);
    if (rc == MDB_CORRUPTED)
        return drop_value(store, txn, drop->dbi, &key);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static enum assay_status lose(struct assay_store *store, const struct drop *drop, struct assay_err *err)
{
    /* A full disk keeps the damaged value where it is; it will be found again. */
    enum assay_status dropped = store_write(store, 0, drop_damaged, (void *)drop, NULL);
    return assay_err_set(err, ASSAY_DATA_LOSS, "a value of table '%s' in the store %s is damaged%s", drop->table,
                         store->dir, dropped == ASSAY_OK ? " and was dropped" : "");
}

enum assay_status assay_store_get(struct assay_store *store, const char *table, const void *key, size_t key_bytes,
                                  void **ret, size_t *ret_bytes, struct assay_err *err)
{
    size_t index;
    MDB_txn *txn;
    enum assay_status status = check_key(store, table, key_bytes, &index, err);
    if (status == ASSAY_OK)
        status = store_read_begin(store, &txn, err);
    if (status != ASSAY_OK)
        return status;
    MDB_val where = {key_bytes, (void *)key}, stored;
    int rc = mdb_get(txn, store->dbis[index], &where, &stored);
    bool found = rc == 0;
    if (rc == 0)
        rc = load(store, txn, table, &where, &stored, ret, ret_bytes);
    store_read_end(store, txn);
    if (rc == 0)
        return ASSAY_OK;
    if (rc == MDB_NOTFOUND)
        return assay_err_set(err, ASSAY_NOT_FOUND, "no such value in table '%s' of the store %s", table, store->dir);
    if (rc == MDB_CORRUPTED && found)
        return lose(store, &(struct drop){table, store->dbis[index], key, key_bytes}, err);
    return store_fail(store, rc, "read", err);
}

enum assay_status assay_store_has(struct assay_store *store, const char *table, const void *key, size_t key_bytes,
                                  bool *ret, struct assay_err *err)
{
    size_t index;
    MDB_txn *txn;
    enum assay_status status = check_key(store, table, key_bytes, &index, err);
    if (status == ASSAY_OK)
        status = store_read_begin(store, &txn, err);
    if (status != ASSAY_OK)
        return status;
    MDB_val where = {key_bytes, (void *)key}, stored;
    int rc = mdb_get(txn, store->dbis[index], &where, &stored);
    store_read_end(store, txn);
    if (rc != 0 && rc != MDB_NOTFOUND)
        return store_fail(store, rc, "read", err);
    *ret = rc == 0;
    return ASSAY_OK;
}

/* --- visiting --- */

struct visit {
    const char *table;
    MDB_dbi dbi;
    const void *prefix;
    size_t prefix_bytes;
    bool values;
    assay_store_visit_fn fn;
    void *arg;
    uint64_t damaged;
    char first_damaged[STORE_KEY_BYTES_MAX];
    size_t first_damaged_bytes;
};

static void note_damaged(struct visit *visit, const MDB_val *key)
{
    if (visit->damaged++ == 0 && key->mv_size <= sizeof visit->first_damaged) {
        memcpy(visit->first_damaged, key->mv_data, key->mv_size);
        visit->first_damaged_bytes = key->mv_size;
    }
}

/* 0: go on. MDB_NOTFOUND: fn wants no more. */
static int visit_one(const struct assay_store *store, MDB_txn *txn, struct visit *visit, const MDB_val *key,
                     const MDB_val *stored)
{
    void *value = NULL;
    size_t bytes = 0;
    if (visit->values) {
        int rc = load(store, txn, visit->table, key, stored, &value, &bytes);
        if (rc == MDB_CORRUPTED)
            note_damaged(visit, key);
        if (rc != 0)
            return rc == MDB_CORRUPTED ? 0 : rc;
    } else {
        struct value_head head;
        if (!head_read(stored, &head)) {
            note_damaged(visit, key);
            return 0;
        }
        bytes = head.value_bytes;
    }
    bool more = visit->fn(visit->arg, key->mv_data, key->mv_size, value, bytes);
    free(value);
    return more ? 0 : MDB_NOTFOUND;
}

static int visit_all(const struct assay_store *store, MDB_txn *txn, struct visit *visit)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, visit->dbi, &cursor);
    if (rc != 0)
        return rc;
    MDB_val key = {visit->prefix_bytes, (void *)visit->prefix}, stored;
    rc = mdb_cursor_get(cursor, &key, &stored, visit->prefix_bytes ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0) {
        if (visit->prefix_bytes > 0 &&
            (key.mv_size < visit->prefix_bytes || memcmp(key.mv_data, visit->prefix, visit->prefix_bytes) != 0))
            break;
        rc = visit_one(store, txn, visit, &key, &stored);
        if (rc == 0)
            rc = mdb_cursor_get(cursor, &key, &stored, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

enum assay_status assay_store_visit(struct assay_store *store, const char *table, const void *prefix,
                                    size_t prefix_bytes, bool values, assay_store_visit_fn fn, void *arg,
                                    struct assay_err *err)
{
    size_t index;
    MDB_txn *txn;
    struct visit visit = {
        .table = table, .prefix = prefix, .prefix_bytes = prefix_bytes, .values = values, .fn = fn, .arg = arg};
    enum assay_status status = check_key(store, table, prefix_bytes ? prefix_bytes : 1, &index, err);
    if (status == ASSAY_OK)
        status = store_read_begin(store, &txn, err);
    if (status != ASSAY_OK)
        return status;
    visit.dbi = store->dbis[index];
    int rc = visit_all(store, txn, &visit);
    store_read_end(store, txn);
    if (rc != 0)
        return store_fail(store, rc, "read", err);
    if (visit.damaged == 0)
        return ASSAY_OK;
    status = lose(store, &(struct drop){table, visit.dbi, visit.first_damaged, visit.first_damaged_bytes}, err);
    if (visit.damaged > 1)
        status = assay_err_set(err, ASSAY_DATA_LOSS, "%llu values of table '%s' in the store %s are damaged",
                               (unsigned long long)visit.damaged, table, store->dir);
    return status;
}
