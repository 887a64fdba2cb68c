/* Service assay.v1.Quantizer: messages to jobs and back. One thread makes artifacts, one after the other, so that a
 * second request for the same artifact finds it made. */
#pragma once

#include "common/base/pool.h"
#include "common/obs/metrics.h"
#include "common/wire/server.h"

struct assay_quantizer;

/* Adds the service to a server whose loop does not run yet and starts the thread. artifacts_dir is copied; the pool is
 * used by this thread alone. */
enum assay_status assay_quantizer_start(struct assay_loop *loop, struct assay_server *server, const char *artifacts_dir,
                                        struct assay_pool *pool, struct assay_quantizer **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* Adds what it counts to the registry; it outlives the registry's prints. Before the loop runs. */
void assay_quantizer_measure(struct assay_quantizer *quantizer, struct assay_metrics *metrics);
/* Calls that wait or are under way end with UNAVAILABLE; half-made artifacts are removed. The loop still runs. NULL is
 * fine. */
void assay_quantizer_stop(struct assay_quantizer *quantizer);
/* After the loop has ended. NULL is fine. */
void assay_quantizer_free(struct assay_quantizer *quantizer);
