/* The worker's place in a stack: the coordinator, leases, membership. Messages of the registration end here. */
#pragma once

#include "common/obs/metrics.h"
#include "services/inference/worker.h"

struct assay_inference_options {
    const char *coordinator; /* endpoint */
    const char *precision, *device;
    struct assay_pool *pool;
    size_t batch_tokens;
    uint64_t memory_bytes; /* that models may take together; 0: unused ones stay within an eighth of the machine's */
    const char *cache_dir; /* where artifacts go that are not visible here */
};

struct assay_inference;

/* Connects; nothing works yet. Strings, pool and loop outlive it. */
enum assay_status assay_inference_new(struct assay_loop *loop, const struct assay_inference_options *options,
                                      struct assay_inference **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Fills what the coordinator is to know of it. */
void assay_inference_describe(const struct assay_inference *inference, Assay__V1__RegisterRequest *registration);
/* The table of loaded models, for other services of the process; it lives as long as `inference`. */
struct assay_models *assay_inference_models(struct assay_inference *inference);
/* assay_member_counters_fn */
void assay_inference_count(void *inference, Assay__V1__ServiceCounters *counters);
/* Adds what it counts to the registry; it outlives the registry's prints. */
void assay_inference_measure(struct assay_inference *inference, struct assay_metrics *metrics);
/* Works until it is stopped. The member outlives assay_inference_stop. */
enum assay_status assay_inference_start(struct assay_inference *inference, struct assay_member *member,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* Finishes the batch in hand, gives the rest back. The loop runs still. Not started, or NULL, is fine. */
void assay_inference_stop(struct assay_inference *inference);
struct assay_worker_counts assay_inference_counts(const struct assay_inference *inference);
/* Stopped before; before the loop is freed. NULL is fine. */
void assay_inference_free(struct assay_inference *inference);
