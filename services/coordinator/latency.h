/* How long something took, as a histogram: bucket i counts what took less than 2^i microseconds, and not less than
 * half of that. Pure; the caller locks. */
#pragma once

#include "common/base/status.h"

#define ASSAY_LATENCY_BUCKETS 24

struct assay_latency {
    uint64_t buckets[ASSAY_LATENCY_BUCKETS]; /* the last one counts all that took longer, too */
    uint64_t count, sum_us;
};

static inline void assay_latency_note(struct assay_latency *latency, int64_t us)
{
    uint64_t took_us = us > 0 ? (uint64_t)us : 0;
    unsigned bucket = took_us ? 64u - (unsigned)__builtin_clzll(took_us) : 0;
    latency->buckets[ASSAY_MIN(bucket, ASSAY_LATENCY_BUCKETS - 1u)]++;
    latency->count++;
    latency->sum_us += took_us;
}
