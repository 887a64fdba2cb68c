/* What every process says about itself: CPU, memory, files, threads, when it started, what it is. */
#pragma once

#include "common/obs/metrics.h"

/* `service` ("coordinator") and `precision` ("int8", or "" where it has none) are copied into labels of
 * assay_build_info. */
void assay_process_metrics_add(struct assay_metrics *metrics, const char *service, const char *precision);

/* Resident bytes of this process, 0 when they cannot be told. Any thread. */
uint64_t assay_process_rss_bytes(void);
