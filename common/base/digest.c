#include "common/base/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium/core.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(struct assay_hash) >= sizeof(crypto_generichash_blake2b_state), "hash state fits");

#define STATE(hash) ((crypto_generichash_blake2b_state *)(void *)(hash)->state)

/* Until then libsodium hashes with its portable code. It fails for want of random numbers only, which no digest needs.
 */
static void choose_fast_path(void)
{
    int failed = sodium_init();
    (void)failed;
}

static void begin(struct assay_hash *hash)
{
    static pthread_once_t chosen = PTHREAD_ONCE_INIT;
    pthread_once(&chosen, choose_fast_path);
    crypto_generichash_blake2b_init(STATE(hash), NULL, 0, ASSAY_DIGEST_BYTES);
}

void assay_hash_init(struct assay_hash *hash, const char *domain)
{
    begin(hash);
    assay_hash_str(hash, domain);
}

void assay_hash_raw(struct assay_hash *hash, const void *bytes, size_t len)
{
    if (len)
        crypto_generichash_blake2b_update(STATE(hash), bytes, len);
}

void assay_hash_u64(struct assay_hash *hash, uint64_t value)
{
    unsigned char little[8];
    for (int i = 0; i < 8; i++)
        little[i] = (unsigned char)(value >> (8 * i));
    assay_hash_raw(hash, little, sizeof little);
}

void assay_hash_bytes(struct assay_hash *hash, const void *bytes, size_t len)
{
    assay_hash_u64(hash, len);
    assay_hash_raw(hash, bytes, len);
}

void assay_hash_str(struct assay_hash *hash, const char *text)
{
    assay_hash_bytes(hash, text, strlen(text));
}

void assay_hash_digest(struct assay_hash *hash, const struct assay_digest *digest)
{
    assay_hash_raw(hash, digest->bytes, sizeof digest->bytes);
}

struct assay_digest assay_hash_final(struct assay_hash *hash)
{
    struct assay_digest digest;
    crypto_generichash_blake2b_final(STATE(hash), digest.bytes, sizeof digest.bytes);
    return digest;
}

bool assay_digest_equal(const struct assay_digest *a, const struct assay_digest *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

char *assay_digest_hex(const struct assay_digest *digest, char hex[ASSAY_DIGEST_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest->bytes; i++) {
        hex[2 * i] = digits[digest->bytes[i] >> 4];
        hex[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    hex[ASSAY_DIGEST_HEX - 1] = '\0';
    return hex;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

enum assay_status assay_digest_parse(const char *text, struct assay_digest *ret, struct assay_err *err)
{
    struct assay_digest digest;
    for (size_t i = 0; i < sizeof digest.bytes; i++) {
        int high = hex_value(text[2 * i]);
        int low = high < 0 ? -1 : hex_value(text[2 * i + 1]);
        if (low < 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "a digest is 64 lower-case hexadecimal digits, found '%.70s'", text);
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (text[2 * sizeof digest.bytes] != '\0')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a digest is 64 lower-case hexadecimal digits, found more: '%.70s'", text);
    *ret = digest;
    return ASSAY_OK;
}

enum assay_status assay_digest_from(const void *bytes, size_t len, const char *what, struct assay_digest *ret,
                                    struct assay_err *err)
{
    if (len != ASSAY_DIGEST_BYTES)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: a digest has %d bytes, found %zu", what,
                             ASSAY_DIGEST_BYTES, len);
    memcpy(ret->bytes, bytes, len);
    return ASSAY_OK;
}

struct assay_digest assay_digest_of_bytes(const void *bytes, size_t len)
{
    struct assay_hash hash;
    begin(&hash);
    assay_hash_raw(&hash, bytes, len);
    return assay_hash_final(&hash);
}

enum assay_status assay_digest_file(const char *path, struct assay_digest *ret, struct assay_err *err)
{
    enum { CHUNK_BYTES = 1 << 20 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    unsigned char *chunk = malloc(CHUNK_BYTES);
    enum assay_status status = ASSAY_OK;
    struct assay_hash hash;
    begin(&hash);
    while (chunk) {
        ssize_t got = read(fd, chunk, CHUNK_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = assay_err_errno(err, errno, "cannot read %s", path);
        if (got <= 0)
            break;
        assay_hash_raw(&hash, chunk, (size_t)got);
    }
    if (!chunk)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while digesting %s", path);
    free(chunk);
    close(fd);
    if (status == ASSAY_OK)
        *ret = assay_hash_final(&hash);
    return status;
}
