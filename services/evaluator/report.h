/* Figures as messages. */
#pragma once

#include "common/wire/server.h"
#include "proto/metric.pb-c.h"
#include "services/evaluator/score_job.h"

/* Fills a reply and calls send with it; everything in it lives until send returns. RESOURCE_EXHAUSTED: out of memory.
 */
typedef enum assay_status (*assay_report_send_fn)(void *arg, const Assay__V1__ScoreReply *reply, struct assay_err *err);
enum assay_status assay_report_progress(const struct assay_score_progress *progress, assay_report_send_fn send,
                                        void *arg, struct assay_err *err) ASSAY_MUST_USE;

/* Sends the figures of a chunk by position. CANCELLED: the client is gone. */
enum assay_status assay_report_samples(const struct assay_score_samples *samples, struct assay_call *call,
                                       struct assay_err *err) ASSAY_MUST_USE;
