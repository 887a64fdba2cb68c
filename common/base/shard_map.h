/* Which of several evaluators keeps the records of a chunk: rendezvous hashing (highest random weight) with equal
 * weights. A shard that joins or leaves moves only its own share. Pure.
 *
 *   weight(shard, chunk) = mix(low64(chunk key) ^ mix(low64(shard id)))
 *
 * low64: the first 8 bytes, little-endian; both are random or digests. mix: the finalizer of SplitMix64 (Steele, Lea,
 * Flood: Fast Splittable Pseudorandom Number Generators, 2014). Among equal weights the smaller id wins. */
#pragma once

#include "common/base/digest.h"

#define ASSAY_SHARD_ID_BYTES 16
/* Evaluators of one stack: each asks each other one when the map changes. */
#define ASSAY_SHARDS_MAX 256
#define ASSAY_SHARD_ENDPOINT_MAX 512
#define ASSAY_SHARD_NONE SIZE_MAX

struct assay_shard_id {
    uint8_t bytes[ASSAY_SHARD_ID_BYTES];
};

struct assay_shard {
    struct assay_shard_id id;
    char endpoint[ASSAY_SHARD_ENDPOINT_MAX];
    bool leaving; /* owns nothing */
};

/* By id, each once. Zeroed: no map. */
struct assay_shard_map {
    uint64_t epoch;
    size_t count;
    struct assay_shard shards[ASSAY_SHARDS_MAX];
};

/* Into any memory of its size; copies no more than the map holds. */
void assay_shard_map_copy(struct assay_shard_map *ret, const struct assay_shard_map *map);
int assay_shard_id_compare(const struct assay_shard_id *a, const struct assay_shard_id *b); /* as memcmp */
/* INVALID_ARGUMENT unless len is ASSAY_SHARD_ID_BYTES: for ids that arrive in messages. */
enum assay_status assay_shard_id_from(const void *bytes, size_t len, struct assay_shard_id *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* An id for who has none of its own. */
struct assay_shard_id assay_shard_id_of_endpoint(const char *endpoint);

uint64_t assay_shard_weight(const struct assay_shard_id *shard, const struct assay_digest *chunk);
/* The index of the owner; ASSAY_SHARD_NONE when all are leaving or there is none. */
size_t assay_shard_map_owner(const struct assay_shard_map *map, const struct assay_chunk_key *chunk);
/* The index, or ASSAY_SHARD_NONE. */
size_t assay_shard_map_find(const struct assay_shard_map *map, const struct assay_shard_id *id);
size_t assay_shard_map_owners(const struct assay_shard_map *map); /* those that are not leaving */
/* Keeps the order. False: it is full. One that is there is replaced. */
bool assay_shard_map_add(struct assay_shard_map *map, const struct assay_shard *shard);
void assay_shard_map_remove(struct assay_shard_map *map, size_t index);
/* The same owners at the same endpoints and the same leaving ones; the epoch is not compared. */
bool assay_shard_map_same(const struct assay_shard_map *a, const struct assay_shard_map *b);
