/* What several evaluators say of their stores, as one answer. */
#pragma once

#include "common/base/shard_map.h"
#include "common/wire/client.h"
#include "proto/record.pb-c.h"

struct assay_cache_sum {
    Assay__V1__CacheStatReply total; /* a variant's records are counted over all; the largest variant first */
    struct assay_reply *replies[ASSAY_SHARDS_MAX];
    const char *endpoints[ASSAY_SHARDS_MAX];
    size_t count;
    Assay__V1__CacheVariant *variants; /* of the total; strings and ids are the replies' */
};

/* Takes the reply over, whatever the outcome; the endpoint outlives the sum. *sum is zeroed before the first. */
enum assay_status assay_cache_sum_add(struct assay_cache_sum *sum, const char *endpoint, struct assay_reply *reply,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* Fills the total. */
enum assay_status assay_cache_sum_end(struct assay_cache_sum *sum, struct assay_err *err) ASSAY_MUST_USE;
void assay_cache_sum_release(struct assay_cache_sum *sum);
