/* What a worker counts, for the registry. */
#pragma once

#include "common/obs/metrics.h"
#include "services/inference/worker.h"

/* One worker a process. `look` is called before each print; arg outlives the prints. */
void assay_worker_measure(struct assay_metrics *metrics, void (*look)(void *arg, struct assay_worker_counts *ret),
                          void *arg);
