/* What this evaluator knows of the others: the map that the coordinator told last, and whether its own share is here.
 * Thread-safe.
 *
 *   alone --map--> fetching --settled--> settled --a map with another epoch--> fetching ...
 *
 * Alone: no coordinator has told a map; everything is ours. */
#pragma once

#include "common/base/shard_map.h"

struct assay_shards;

struct assay_shards *assay_shards_new(const struct assay_shard_id *self); /* NULL when out of memory */
void assay_shards_free(struct assay_shards *shards);                      /* NULL is fine */

const struct assay_shard_id *assay_shards_self(const struct assay_shards *shards);
/* 0 while alone. */
uint64_t assay_shards_epoch(struct assay_shards *shards);
void assay_shards_map(struct assay_shards *shards, struct assay_shard_map *ret);

void assay_shards_set_map(struct assay_shards *shards, const struct assay_shard_map *map);
/* All that others had of our share under this epoch is here, or is nowhere. An older epoch is no news. */
void assay_shards_settle(struct assay_shards *shards, uint64_t epoch);
/* Waits up to wait_ms until the map is another than `seen` (a counter, 0 at first; updated), or until woken. */
void assay_shards_wait(struct assay_shards *shards, uint64_t *seen, int64_t wait_ms);
void assay_shards_wake(struct assay_shards *shards);
/* True when the map is another than `seen`. */
bool assay_shards_is_news(struct assay_shards *shards, uint64_t seen);

/* For calls that name the epoch they mean. UNAVAILABLE: ours is older, or (wants_settled) our share is not here yet.
 * ABORTED: ours is newer. */
enum assay_status assay_shards_check(struct assay_shards *shards, uint64_t epoch, bool wants_settled,
                                     struct assay_err *err) ASSAY_MUST_USE;

/* Whether records of the chunk belong here. */
bool assay_shards_is_mine(struct assay_shards *shards, const struct assay_chunk_key *chunk);

/* Another one has told that it has all that it wanted from us under the epoch. */
void assay_shards_note_done(struct assay_shards *shards, const struct assay_shard_id *who, uint64_t epoch);
/* True when we are leaving under the present map and every owner has said so; also when there is no owner. */
bool assay_shards_all_done(struct assay_shards *shards);
