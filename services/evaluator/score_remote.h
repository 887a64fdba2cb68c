/* A share of a job that another evaluator scores. */
#pragma once

#include "common/wire/client.h"
#include "proto/metric.pb-c.h"
#include "services/evaluator/score_job.h"

struct score_remote {
    struct assay_loop *loop;
    const char *endpoint;
    const char *trace_id;
    const Assay__V1__ScoreRequest
        *request; /* of the whole job: variants, protocol, map and the like are taken from it */
};

/* assay_score_share's run; arg is a struct score_remote. */
enum assay_status score_remote_run(void *remote, const struct assay_score_spec *spec,
                                   const struct assay_score_sink *sink, struct assay_err *err);
