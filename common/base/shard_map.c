#include "common/base/shard_map.h"

#include <string.h>

void assay_shard_map_copy(struct assay_shard_map *ret, const struct assay_shard_map *map)
{
    memcpy(ret, map, offsetof(struct assay_shard_map, shards) + map->count * sizeof map->shards[0]);
}

int assay_shard_id_compare(const struct assay_shard_id *a, const struct assay_shard_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

enum assay_status assay_shard_id_from(const void *bytes, size_t len, struct assay_shard_id *ret, struct assay_err *err)
{
    if (len != sizeof ret->bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "shard_id: found %zu bytes, wanted %zu", len,
                             sizeof ret->bytes);
    memcpy(ret->bytes, bytes, len);
    return ASSAY_OK;
}

struct assay_shard_id assay_shard_id_of_endpoint(const char *endpoint)
{
    struct assay_hash hash;
    struct assay_shard_id id;
    assay_hash_init(&hash, "assay.shard.v1");
    assay_hash_str(&hash, endpoint);
    struct assay_digest digest = assay_hash_final(&hash);
    memcpy(id.bytes, digest.bytes, sizeof id.bytes);
    return id;
}

static uint64_t low64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

uint64_t assay_shard_weight(const struct assay_shard_id *shard, const struct assay_digest *chunk)
{
    return mix(low64(chunk->bytes) ^ mix(low64(shard->bytes)));
}

size_t assay_shard_map_owner(const struct assay_shard_map *map, const struct assay_chunk_key *chunk)
{
    size_t best = ASSAY_SHARD_NONE;
    uint64_t best_weight = 0;
    for (size_t i = 0; i < map->count; i++) {
        if (map->shards[i].leaving)
            continue;
        uint64_t weight = assay_shard_weight(&map->shards[i].id, &chunk->digest);
        if (best == ASSAY_SHARD_NONE || weight > best_weight) {
            best = i;
            best_weight = weight;
        }
    }
    return best;
}

size_t assay_shard_map_find(const struct assay_shard_map *map, const struct assay_shard_id *id)
{
    for (size_t i = 0; i < map->count; i++)
        if (assay_shard_id_compare(&map->shards[i].id, id) == 0)
            return i;
    return ASSAY_SHARD_NONE;
}

size_t assay_shard_map_owners(const struct assay_shard_map *map)
{
    size_t owners = 0;
    for (size_t i = 0; i < map->count; i++)
        owners += !map->shards[i].leaving;
    return owners;
}

bool assay_shard_map_add(struct assay_shard_map *map, const struct assay_shard *shard)
{
    size_t at = 0;
    while (at < map->count && assay_shard_id_compare(&map->shards[at].id, &shard->id) < 0)
        at++;
    if (at < map->count && assay_shard_id_compare(&map->shards[at].id, &shard->id) == 0) {
        map->shards[at] = *shard;
        return true;
    }
    if (map->count == ASSAY_SHARDS_MAX)
        return false;
    memmove(&map->shards[at + 1], &map->shards[at], (map->count - at) * sizeof map->shards[0]);
    map->shards[at] = *shard;
    map->count++;
    return true;
}

void assay_shard_map_remove(struct assay_shard_map *map, size_t index)
{
    map->count--;
    memmove(&map->shards[index], &map->shards[index + 1], (map->count - index) * sizeof map->shards[0]);
}

bool assay_shard_map_same(const struct assay_shard_map *a, const struct assay_shard_map *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++)
        same = assay_shard_id_compare(&a->shards[i].id, &b->shards[i].id) == 0 &&
               a->shards[i].leaving == b->shards[i].leaving &&
               strcmp(a->shards[i].endpoint, b->shards[i].endpoint) == 0;
    return same;
}
