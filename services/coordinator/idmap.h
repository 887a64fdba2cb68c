/* A map from 64-bit ids to pointers; O(1) expected. The ids are random or made by ourselves, so nobody can choose ones
 * that collide. Pure; the caller locks. */
#pragma once

#include "common/base/status.h"

struct assay_idmap_slot {
    uint64_t id;
    void *value; /* NULL = free */
};

struct assay_idmap {
    struct assay_idmap_slot *slots;
    size_t count, capacity; /* a power of two, or 0 */
};

void assay_idmap_release(struct assay_idmap *map);
/* NULL when there is none. */
void *assay_idmap_get(const struct assay_idmap *map, uint64_t id);
/* Adds or replaces; value is not NULL. False: out of memory. */
bool assay_idmap_put(struct assay_idmap *map, uint64_t id, void *value);
void assay_idmap_remove(struct assay_idmap *map, uint64_t id); /* not there is fine */
