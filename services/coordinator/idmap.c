#include "services/coordinator/idmap.h"

#include <stdlib.h>

static size_t home(const struct assay_idmap *map, uint64_t id)
{
    return (size_t)((id * 0x9e3779b97f4a7c15u) >> 20) & (map->capacity - 1);
}

/* Where the id stands, or the free slot where it would. The map has a free slot. */
static size_t find(const struct assay_idmap *map, uint64_t id)
{
    size_t at = home(map, id);
    while (map->slots[at].value && map->slots[at].id != id)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

void assay_idmap_release(struct assay_idmap *map)
{
    free(map->slots);
    *map = (struct assay_idmap){0};
}

void *assay_idmap_get(const struct assay_idmap *map, uint64_t id)
{
    return map->capacity ? map->slots[find(map, id)].value : NULL;
}

static bool grow(struct assay_idmap *map)
{
    struct assay_idmap grown = {.capacity = ASSAY_MAX(16, 2 * map->capacity)};
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (!grown.slots)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].value)
            grown.slots[find(&grown, map->slots[i].id)] = map->slots[i];
    grown.count = map->count;
    free(map->slots);
    *map = grown;
    return true;
}

bool assay_idmap_put(struct assay_idmap *map, uint64_t id, void *value)
{
    if (4 * (map->count + 1) > 3 * map->capacity && !grow(map))
        return false;
    struct assay_idmap_slot *slot = &map->slots[find(map, id)];
    map->count += slot->value == NULL;
    *slot = (struct assay_idmap_slot){id, value};
    return true;
}

void assay_idmap_remove(struct assay_idmap *map, uint64_t id)
{
    if (!map->capacity)
        return;
    size_t hole = find(map, id);
    if (!map->slots[hole].value)
        return;
    map->count--;
    map->slots[hole].value = NULL;
    /* What stands behind moves up as far as its home allows, so that no search ends early. */
    for (size_t at = (hole + 1) & (map->capacity - 1); map->slots[at].value; at = (at + 1) & (map->capacity - 1)) {
        size_t wanted = home(map, map->slots[at].id);
        if (((at - wanted) & (map->capacity - 1)) >= ((at - hole) & (map->capacity - 1))) {
            map->slots[hole] = map->slots[at];
            map->slots[at].value = NULL;
            hole = at;
        }
    }
}
