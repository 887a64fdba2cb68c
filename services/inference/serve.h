/* The worker's place in a stack: its own endpoint (Health), the coordinator, membership. Messages of the registration
 * end here. */
#pragma once

#include "services/inference/worker.h"

struct assay_inference_options {
    const char *listen, *coordinator; /* endpoints */
    const char *precision, *device;
    struct assay_pool *pool;
    size_t batch_tokens;
};

struct assay_inference;

/* Serves, registers and works, until stopped. Strings and pool outlive it. */
enum assay_status assay_inference_start(const struct assay_inference_options *options, struct assay_inference **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* The endpoint that is served, with the real port. */
const char *assay_inference_endpoint(const struct assay_inference *inference);
/* Finishes the batch in hand, gives the rest back, ends everything, frees. Returns the counts. NULL is fine: zeros. */
struct assay_worker_counts assay_inference_stop(struct assay_inference *inference);
