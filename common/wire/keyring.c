#include "common/wire/keyring.h"

#include <dirent.h>
#include <errno.h>
#include <sodium/crypto_generichash.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, ASSAY_KEY_BYTES);
}

_Static_assert(offsetof(struct assay_keyring_entry, key) == 0, "entries compare by their first bytes");

static int is_key_file(const struct dirent *entry)
{
    size_t bytes = strlen(entry->d_name);
    return entry->d_name[0] != '.' && bytes > 4 && strcmp(entry->d_name + bytes - 4, ".pub") == 0;
}

static void release_names(struct dirent **names, int count)
{
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/* Of all that a change of a key would change. */
static void fingerprint(const struct assay_keyring *keyring, struct dirent **names, int count, uint64_t ret[2])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, 2 * sizeof ret[0]);
    for (int i = 0; i < count; i++) {
        char path[ASSAY_PATH_MAX];
        struct stat st = {0};
        if (assay_path_join(path, keyring->dir, names[i]->d_name, NULL) == ASSAY_OK)
            (void)!stat(path, &st);
        const uint64_t facts[] = {(uint64_t)st.st_ino,         (uint64_t)st.st_size,
                                  (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec,
                                  (uint64_t)st.st_ctim.tv_sec, (uint64_t)st.st_ctim.tv_nsec};
        crypto_generichash_update(&state, (const unsigned char *)names[i]->d_name, strlen(names[i]->d_name) + 1);
        crypto_generichash_update(&state, (const unsigned char *)facts, sizeof facts);
    }
    crypto_generichash_final(&state, (unsigned char *)ret, 2 * sizeof ret[0]);
}

static void note_broken(struct assay_keyring *keyring, const struct assay_err *err)
{
    if (keyring->broken++ == 0)
        keyring->first_broken = *err;
}

static void read_keys(struct assay_keyring *keyring, struct dirent **names, int count)
{
    keyring->count = keyring->broken = 0;
    for (int i = 0; i < count; i++) {
        char path[ASSAY_PATH_MAX];
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_keyring_entry *entry = &keyring->entries[keyring->count];
        memset(entry, 0, sizeof *entry);
        enum assay_status status = assay_path_join(path, keyring->dir, names[i]->d_name, &err);
        if (status == ASSAY_OK)
            status = assay_key_read_public(path, &entry->key, &entry->role, &err);
        if (status != ASSAY_OK) {
            note_broken(keyring, &err);
            continue;
        }
        size_t bytes = ASSAY_MIN(strlen(names[i]->d_name) - 4, sizeof entry->name - 1);
        memcpy(entry->name, names[i]->d_name, bytes);
        keyring->count++;
    }
    qsort(keyring->entries, keyring->count, sizeof *keyring->entries, compare);
    for (size_t i = 1; i < keyring->count; i++) {
        struct assay_keyring_entry *entry = &keyring->entries[i];
        if (compare(entry - 1, entry) != 0)
            continue;
        struct assay_err err = ASSAY_ERR_INIT;
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "%s: one key stands in '%s.pub' and '%s.pub': neither counts",
                      keyring->dir, entry[-1].name, entry->name);
        entry->is_double = entry[-1].is_double = true;
        note_broken(keyring, &err);
    }
}

/* Nobody is allowed, until the directory is as it should be. */
static void allow_nobody(struct assay_keyring *keyring, const struct assay_err *err)
{
    keyring->count = keyring->broken = 0;
    memset(keyring->fingerprint, 0, sizeof keyring->fingerprint);
    note_broken(keyring, err);
}

static enum assay_status scan(const struct assay_keyring *keyring, struct dirent ***ret_names, int *ret_count,
                              struct assay_err *err)
{
    struct dirent **names = NULL;
    int count = scandir(keyring->dir, &names, is_key_file, alphasort);
    if (count < 0)
        return assay_err_errno(err, errno, "cannot read the directory of allowed keys %s", keyring->dir);
    if (count > ASSAY_KEYRING_KEYS_MAX) {
        release_names(names, count);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s has %d keys, at most %d are allowed", keyring->dir,
                             count, ASSAY_KEYRING_KEYS_MAX);
    }
    *ret_names = names;
    *ret_count = count;
    return ASSAY_OK;
}

enum assay_status assay_keyring_open(struct assay_keyring *keyring, const char *dir, struct assay_err *err)
{
    *keyring = (struct assay_keyring){0};
    if (strlen(dir) >= sizeof keyring->dir)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes", ASSAY_PATH_MAX - 1);
    strcpy(keyring->dir, dir);
    struct dirent **names;
    int count;
    enum assay_status status = scan(keyring, &names, &count, err);
    if (status != ASSAY_OK)
        return status;
    keyring->entries = calloc(ASSAY_KEYRING_KEYS_MAX, sizeof *keyring->entries);
    if (!keyring->entries) {
        release_names(names, count);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", dir);
    }
    fingerprint(keyring, names, count, keyring->fingerprint);
    read_keys(keyring, names, count);
    keyring->generation = 1;
    release_names(names, count);
    return ASSAY_OK;
}

void assay_keyring_release(struct assay_keyring *keyring)
{
    free(keyring->entries);
    *keyring = (struct assay_keyring){0};
}

bool assay_keyring_refresh(struct assay_keyring *keyring)
{
    struct dirent **names;
    int count;
    struct assay_err err = ASSAY_ERR_INIT;
    if (scan(keyring, &names, &count, &err) != ASSAY_OK) {
        bool was_empty = keyring->count == 0;
        allow_nobody(keyring, &err);
        keyring->generation += !was_empty;
        return !was_empty;
    }
    uint64_t now[2];
    fingerprint(keyring, names, count, now);
    bool changed = memcmp(now, keyring->fingerprint, sizeof now) != 0;
    if (changed) {
        memcpy(keyring->fingerprint, now, sizeof now);
        read_keys(keyring, names, count);
        keyring->generation++;
    }
    release_names(names, count);
    return changed;
}

const struct assay_keyring_entry *assay_keyring_find(const struct assay_keyring *keyring,
                                                     const struct assay_public_key *key)
{
    const struct assay_keyring_entry *entry =
        keyring->count ? bsearch(key, keyring->entries, keyring->count, sizeof *keyring->entries, compare) : NULL;
    return entry && !entry->is_double ? entry : NULL;
}
