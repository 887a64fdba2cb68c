/* A map of evaluators as a message and back. */
#pragma once

#include "common/base/shard_map.h"
#include "proto/types.pb-c.h"

/* The message and what it points to; strings and ids are the map's. Large: not for the stack. */
struct assay_shard_message {
    Assay__V1__ShardMap message;
    Assay__V1__Shard shards[ASSAY_SHARDS_MAX];
    Assay__V1__Shard *list[ASSAY_SHARDS_MAX];
};
/* The map outlives the message's use. */
void assay_shard_message_fill(struct assay_shard_message *message, const struct assay_shard_map *map);
/* On the heap; NULL when out of memory. */
struct assay_shard_message *assay_shard_message_new(const struct assay_shard_map *map);

/* INVALID_ARGUMENT: more than ASSAY_SHARDS_MAX, an id twice or of another length, an endpoint that is missing or too
 * long. *ret is written only on success. */
enum assay_status assay_shard_map_of_message(const Assay__V1__ShardMap *message, struct assay_shard_map *ret,
                                             struct assay_err *err) ASSAY_MUST_USE;
