/* Digests: BLAKE2b-256 over canonical bytes. Hostile input cannot make two contents share one. */
#pragma once

#include "common/base/status.h"

#define ASSAY_DIGEST_BYTES 32
#define ASSAY_DIGEST_HEX (2 * ASSAY_DIGEST_BYTES + 1)

struct assay_digest {
    uint8_t bytes[ASSAY_DIGEST_BYTES];
};

/* Distinct types, so that the compiler catches a swap. */
struct assay_model_id {
    struct assay_digest digest; /* contents of a checkpoint */
};
struct assay_variant_id {
    struct assay_digest digest; /* model x scheme x parameters x compute x calibration */
};
struct assay_chunk_key {
    struct assay_digest digest; /* tokenizer, ids, scored range, generation parameters */
};
struct assay_record_key {
    struct assay_digest digest; /* chunk key, variant, record version */
};

/* Builds a digest from fields. Every field is written with its length or in a fixed width, so that no two
 * sequences of fields give the same bytes. `domain` names what is digested and its version: "assay.chunk.v1". */
struct assay_hash {
    _Alignas(64) unsigned char state[384];
};
void assay_hash_init(struct assay_hash *hash, const char *domain);
void assay_hash_bytes(struct assay_hash *hash, const void *bytes, size_t len); /* length, then bytes */
void assay_hash_raw(struct assay_hash *hash, const void *bytes, size_t len);   /* bytes only: pieces of one field */
void assay_hash_str(struct assay_hash *hash, const char *text);
void assay_hash_u64(struct assay_hash *hash, uint64_t value);
void assay_hash_digest(struct assay_hash *hash, const struct assay_digest *digest);
struct assay_digest assay_hash_final(struct assay_hash *hash);

bool assay_digest_equal(const struct assay_digest *a, const struct assay_digest *b);
/* Lower-case hex into hex[65]; returns hex. */
char *assay_digest_hex(const struct assay_digest *digest, char hex[ASSAY_DIGEST_HEX]);
/* INVALID_ARGUMENT unless text is exactly 64 lower-case hex digits. */
enum assay_status assay_digest_parse(const char *text, struct assay_digest *ret, struct assay_err *err) ASSAY_MUST_USE;
/* INVALID_ARGUMENT unless len is ASSAY_DIGEST_BYTES: for digests that arrive in messages. `what` names the field. */
enum assay_status assay_digest_from(const void *bytes, size_t len, const char *what, struct assay_digest *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* Digest of bytes alone (no domain): what assay_digest_file gives for a file of them. */
struct assay_digest assay_digest_of_bytes(const void *bytes, size_t len);
/* Digest of a file's bytes alone (no domain). */
enum assay_status assay_digest_file(const char *path, struct assay_digest *ret, struct assay_err *err) ASSAY_MUST_USE;
