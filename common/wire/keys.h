/* CURVE keys and their files. A file is a few lines of text:
 *
 *   role worker
 *   public 64 hexadecimal digits
 *   secret 64 hexadecimal digits        (in a secret file only)
 *
 * Empty lines and lines that begin with '#' are skipped. Any thread. */
#pragma once

#include "common/base/fs.h"
#include "common/wire/roles.h"

#define ASSAY_KEY_BYTES 32
#define ASSAY_KEY_DIGITS 64
#define ASSAY_KEY_FILE_BYTES_MAX 4096

struct assay_public_key {
    unsigned char bytes[ASSAY_KEY_BYTES];
};

struct assay_key_pair {
    struct assay_public_key public_key;
    unsigned char secret[ASSAY_KEY_BYTES];
    enum assay_role role;
};

/* A new pair from the system's random numbers. */
void assay_key_pair_new(enum assay_role role, struct assay_key_pair *ret);
/* Overwrites the secret. */
void assay_key_pair_clear(struct assay_key_pair *pair);

/* 64 digits and a NUL. */
void assay_public_key_text(const struct assay_public_key *key, char ret[ASSAY_KEY_DIGITS + 1]);
/* False: not 64 hexadecimal digits. */
bool assay_public_key_parse(const char *text, size_t bytes, struct assay_public_key *ret);

/* The text of a key file; text[bytes] is NUL. INVALID_ARGUMENT: another line, a line twice, one that is missing, a
 * secret where none is wanted, a public key that is not the secret's. The sentence never has the text in it. */
enum assay_status assay_key_parse(const char *text, size_t bytes, bool is_secret, struct assay_key_pair *ret,
                                  struct assay_err *err) ASSAY_MUST_USE;

/* NOT_FOUND, INVALID_ARGUMENT (also where the key stands instead of the name of its file: it is not repeated). A secret
 * file that others may read is refused (PERMISSION_DENIED): mode 0600; root's may be readable by its group. */
enum assay_status assay_key_read_secret(const char *path, struct assay_key_pair *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_key_read_public(const char *path, struct assay_public_key *ret, enum assay_role *ret_role,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* Writes DIR/NAME.key (0600) and DIR/NAME.pub (0644); both paths into ret_*. Existing files stay: ALREADY_EXISTS. */
enum assay_status assay_key_write(const char *dir, const char *name, const struct assay_key_pair *pair,
                                  char ret_secret_path[ASSAY_PATH_MAX], char ret_public_path[ASSAY_PATH_MAX],
                                  struct assay_err *err) ASSAY_MUST_USE;
