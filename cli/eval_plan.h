/* `assay eval --dry-run`: what a job would do and about how long it would take; nothing is started. */
#pragma once

#include "common/base/buf.h"
#include "common/base/pool.h"
#include "common/nn/model.h"
#include "proto/control.pb-c.h"

/* Times of this machine for a model's shapes, from a short measurement with random numbers. */
struct assay_speed {
    double us_per_chunk;    /* forward pass: products and attention of one layer, times the layers */
    double us_per_position; /* scoring: products of the head */
};

/* Takes about a second. RESOURCE_EXHAUSTED when out of memory. */
enum assay_status assay_speed_measure(const struct assay_model_config *config, size_t window_tokens,
                                      struct assay_pool *pool, struct assay_speed *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* What the plan costs. Seconds of variants that the coordinator has no measured time for come from `speed`. */
struct assay_plan_cost {
    double run_seconds, score_seconds;
    uint64_t record_bytes; /* that would be new */
    uint64_t chunks_to_run, chunks_cached;
};
struct assay_plan_cost assay_plan_cost_of(const Assay__V1__JobPlan *plan, const struct assay_speed *speed);

/* The plan as a table or as JSON. */
void assay_plan_print(const Assay__V1__JobPlan *plan, const struct assay_speed *speed, bool json,
                      struct assay_buf *out);
