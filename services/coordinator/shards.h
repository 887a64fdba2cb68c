/* Which evaluators keep the records of the stack. Pure: every call gets the time; the caller locks.
 *
 *   absent --registered--> owner --LeaveShards--> leaving --gone, silent--> absent
 *                            '------ silent ------------------------------->'
 *
 * An evaluator is known by the id of its store, so one that is started again is the same one. After a start of the
 * coordinator the evaluators of before are expected for a while: records must not move because one registers first. */
#pragma once

#include "common/base/shard_map.h"
#include "services/coordinator/registry.h"

/* How long an evaluator of before is expected after a start: as long as opening a large store may take. */
#define ASSAY_SHARDS_EXPECT_MS 10000

struct assay_shards {
    struct assay_shard_map map;
    int64_t expected_until_ms; /* until then owners stay that have not registered */
};

/* Begins with the map of before, which may be empty. */
void assay_shards_init(struct assay_shards *shards, const struct assay_shard_map *before, int64_t now_ms);

/* Makes the map that follows from the registry. True: it is another one. The epoch grows, to at least epoch_min, when
 * owners or endpoints changed; it stays when only leaving ones are gone. */
bool assay_shards_update(struct assay_shards *shards, const struct assay_registry *registry, int64_t now_ms,
                         uint64_t epoch_min);
