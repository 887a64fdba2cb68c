/* The keys that may connect: the *.pub files of a directory, one key a file, read again when the directory changes.
 * A key whose file is gone is revoked. A file that cannot be read, and a key that stands in two files, counts for
 * nothing. One thread at a time. */
#pragma once

#include "common/wire/keys.h"

/* Files of one directory; more are a mistake. */
#define ASSAY_KEYRING_KEYS_MAX 4096
#define ASSAY_KEY_NAME_MAX 64

struct assay_keyring_entry {
    struct assay_public_key key;
    enum assay_role role;
    char name[ASSAY_KEY_NAME_MAX]; /* of its file, without ".pub", cut */
    bool is_double;                /* stands in several files */
};

struct assay_keyring {
    char dir[ASSAY_PATH_MAX];
    struct assay_keyring_entry *entries; /* sorted by key */
    size_t count;
    uint64_t generation;     /* another one after each change */
    uint64_t fingerprint[2]; /* of names, sizes and times of the files */
    size_t broken;           /* files that count for nothing */
    struct assay_err first_broken;
};

/* Reads the directory. NOT_FOUND and the like when that is not to be had. */
enum assay_status assay_keyring_open(struct assay_keyring *keyring, const char *dir,
                                     struct assay_err *err) ASSAY_MUST_USE;
void assay_keyring_release(struct assay_keyring *keyring); /* zeroed is fine */
/* True when the directory has changed and was read again. One that cannot be read any more allows nobody. */
bool assay_keyring_refresh(struct assay_keyring *keyring);
/* NULL: not allowed. Valid until the next refresh. */
const struct assay_keyring_entry *assay_keyring_find(const struct assay_keyring *keyring,
                                                     const struct assay_public_key *key);
