/* A job whose records lie in several stores: each store scores its share, and what they find, position by position, is
 * put together here. The figures are computed from all positions in the order of the job, by the code that a job with
 * one store runs: they have the same bits. */
#pragma once

#include "services/evaluator/score_job.h"

/* Who scores a share. run has assay_score_run's contract, with a sink that wants samples; it runs on a thread of its
 * own. A status that another try may mend (a store that died) is UNAVAILABLE. */
struct assay_score_share {
    enum assay_status (*run)(void *arg, const struct assay_score_spec *spec, const struct assay_score_sink *sink,
                             struct assay_err *err);
    void *arg;
};

/* owner(arg, chunk): the index of the share that has the chunk, below shares_count. Each share gets its chunks once, in
 * the order of the job. Errors are the shares' own; FAILED_PRECONDITION: shares scored records of different numerics
 * ids. */
enum assay_status assay_score_merge(const struct assay_score_spec *spec, const struct assay_score_share *shares,
                                    size_t shares_count,
                                    size_t (*owner)(void *arg, const struct assay_chunk_key *chunk), void *arg,
                                    const struct assay_score_sink *sink, struct assay_err *err) ASSAY_MUST_USE;
