/* Calls as metrics and as spans. */
#pragma once

#include "common/obs/metrics.h"

/* From now on every call of this process counts in the registry, and those with a trace id become spans "rpc.server"
 * and "rpc.client". Before the first loop starts; the registry outlives all loops, or is taken back with NULL after
 * them. */
void assay_rpc_metrics_install(struct assay_metrics *metrics);
