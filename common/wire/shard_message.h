/* A map of evaluators as a message and back. */
#pragma once

#include "common/base/shard_map.h"
#include "proto/types.pb-c.h"

/* The message and what it points to; strings and ids are the map's. */
struct assay_shard_message {
    Assay__V1__ShardMap message;
    Assay__V1__Shard shards[]; /* the pointers to them stand behind them */
};
/* On the heap (free), as large as the map wants it; NULL when out of memory. The map outlives it. */
struct assay_shard_message *assay_shard_message_new(const struct assay_shard_map *map);

/* INVALID_ARGUMENT: more than ASSAY_SHARDS_MAX, an id twice or of another length, an endpoint that is missing or too
 * long. *ret is written only on success. */
enum assay_status assay_shard_map_of_message(const Assay__V1__ShardMap *message, struct assay_shard_map *ret,
                                             struct assay_err *err) ASSAY_MUST_USE;
