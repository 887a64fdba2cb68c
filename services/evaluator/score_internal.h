/* What score_job.c and score_batch.c share. */
#pragma once

#include <pthread.h>

#include "common/nn/scoring.h"
#include "services/evaluator/samples.h"
#include "services/evaluator/score_figures.h"

struct score_arrival {
    uint32_t unique, source, numerics;
};

struct score_job {
    const struct assay_score_deps *deps;
    const struct assay_score_sink *sink;
    struct assay_score_plan plan;
    struct assay_join *join;
    const struct assay_head **heads; /* by source; NULL until it is needed */
    uint8_t *wrong;                  /* by record: how often it was */
    uint8_t *pinned;                 /* by record */
    struct score_figures figures;    /* not of a share */
    enum assay_record_dtype dtype;   /* of the records */
    size_t batch;                    /* chunks of the next call */
    uint64_t chunks_done, chunks_cached, tokens_scored, compute_us;
    bool warned; /* that samples could not be kept */
    bool news;   /* since the last message */
    int64_t sent_at_ms;
    int64_t heard_at_ms; /* the last arrival, or the last time that missing records were named */

    struct assay_records_watch watch;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t arrived;
    struct score_arrival *arrivals;
    size_t arrivals_count, arrivals_capacity;
    bool arrivals_failed; /* out of memory */
};

static inline const struct assay_record_key *score_record_key(const struct score_job *job, size_t unique, size_t source)
{
    return &job->plan.record_keys[unique * job->plan.sources_count + source];
}

/* Loads the head of a source unless it is there. */
enum assay_status score_need_head(struct score_job *job, uint32_t source, struct assay_err *err) ASSAY_MUST_USE;

/* What records of f16 changed in the KL of a pair, on chunks that have records of f32, too: at most
 * SCORE_DTYPE_CHUNKS_MAX of them. Of a share: tells their figures. After all chunks were scored. */
enum assay_status score_dtype_measure(struct score_job *job, size_t pair, struct assay_dtype_error *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* Scores chunks that join handed out; each is SCORED or back in join afterwards. */
enum assay_status score_batch(struct score_job *job, const uint32_t *uniques, size_t count,
                              struct assay_err *err) ASSAY_MUST_USE;
