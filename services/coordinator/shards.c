#include "services/coordinator/shards.h"

#include <stdlib.h>
#include <string.h>

void assay_shards_init(struct assay_shards *shards, const struct assay_shard_map *before, int64_t now_ms)
{
    shards->map = *before;
    shards->expected_until_ms = now_ms + ASSAY_SHARDS_EXPECT_MS;
}

/* The live evaluator with the id that registered last; NULL when there is none. *ret_known: one is listed at all. */
static const struct assay_service *find_service(const struct assay_registry *registry, const struct assay_shard_id *id,
                                                bool *ret_known)
{
    const struct assay_service *service = NULL;
    *ret_known = false;
    while ((service = assay_registry_next(registry, ASSAY_SERVICE_EVALUATOR, service))) {
        if (assay_shard_id_compare(&service->shard_id, id) != 0)
            continue;
        *ret_known = true;
        if (service->health != ASSAY_HEALTH_DEAD)
            return service;
    }
    return NULL;
}

static void drop_absent(struct assay_shard_map *map, const struct assay_registry *registry, bool expecting)
{
    for (size_t i = map->count; i-- > 0;) {
        bool known;
        const struct assay_service *service = find_service(registry, &map->shards[i].id, &known);
        bool expected = expecting && !known && !map->shards[i].leaving;
        if (!service && !expected)
            assay_shard_map_remove(map, i);
    }
}

static void add_present(struct assay_shard_map *map, const struct assay_registry *registry)
{
    const struct assay_service *service = NULL;
    while ((service = assay_registry_next(registry, ASSAY_SERVICE_EVALUATOR, service))) {
        bool known;
        if (service->health == ASSAY_HEALTH_DEAD || find_service(registry, &service->shard_id, &known) != service)
            continue;
        struct assay_shard shard = {.id = service->shard_id, .leaving = service->leaving};
        memcpy(shard.endpoint, service->endpoint, sizeof shard.endpoint);
        assay_shard_map_add(map, &shard); /* those beyond the ceiling are not used */
    }
}

/* The same owners, whoever is leaving. */
static bool same_owners(const struct assay_shard_map *a, const struct assay_shard_map *b)
{
    size_t i = 0, j = 0;
    for (;;) {
        while (i < a->count && a->shards[i].leaving)
            i++;
        while (j < b->count && b->shards[j].leaving)
            j++;
        if (i == a->count || j == b->count)
            return i == a->count && j == b->count;
        if (assay_shard_id_compare(&a->shards[i].id, &b->shards[j].id) != 0 ||
            strcmp(a->shards[i].endpoint, b->shards[j].endpoint) != 0)
            return false;
        i++;
        j++;
    }
}

bool assay_shards_update(struct assay_shards *shards, const struct assay_registry *registry, int64_t now_ms,
                         uint64_t epoch_min)
{
    struct assay_shard_map *map = malloc(sizeof *map);
    if (!map)
        return false; /* the next look may do better */
    *map = shards->map;
    drop_absent(map, registry, now_ms < shards->expected_until_ms);
    add_present(map, registry);
    bool changed = !assay_shard_map_same(map, &shards->map);
    if (changed && !same_owners(map, &shards->map))
        map->epoch = ASSAY_MAX(map->epoch + 1, epoch_min);
    if (changed)
        shards->map = *map;
    free(map);
    return changed;
}
