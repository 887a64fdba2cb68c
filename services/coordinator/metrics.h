/* What the coordinator counts. All pointers NULL, as before assay_coordinator_measure: nothing is counted. */
#pragma once

#include "common/obs/metrics.h"

struct assay_coordinator;

struct assay_coordinator_metrics {
    /* Counted as it happens. */
    struct assay_metric *chunks_run, *tokens_run, *compute; /* precision */
    struct assay_metric *records_found;                     /* outcome */
    struct assay_metric *jobs_ended;                        /* state */
    struct assay_metric *late_answers, *decisions;
    /* Looked at when they are printed, or every tick. */
    struct assay_metric *leases, *leases_copied, *leases_ended, *leases_open;
    struct assay_metric *chunks_leased, *chunks_retried, *chunks_dead;
    struct assay_metric *jobs, *chunks, *services, *parked, *watchers;
};

/* The coordinator outlives the registry's prints. */
void assay_coordinator_measure(struct assay_coordinator *coordinator, struct assay_metrics *metrics);
