#include <stdlib.h>

#include "services/evaluator/score_internal.h"

/* The f32 rows of a chunk; NULL when there is no such record, or one that does not fit. */
static float *read_f32(struct score_job *job, size_t unique, uint32_t source)
{
    struct assay_record_data data;
    struct assay_record_key key =
        assay_record_key_of(&job->plan.unique_keys[unique], &job->plan.sources[source].variant, ASSAY_RECORD_F32);
    uint32_t numerics = assay_join_numerics(job->join, source);
    if (assay_records_get(job->deps->records, &key, numerics, &data, NULL) != ASSAY_OK)
        return NULL;
    if (data.rows == job->plan.unique_rows[unique] && data.cols == assay_head_hidden(job->heads[source]))
        return data.hidden;
    free(data.hidden);
    return NULL;
}

/* Scores one chunk from its f32 records; *ret_found is false when they are not there. */
static enum assay_status measure_chunk(struct score_job *job, size_t pair, size_t unique,
                                       struct score_dtype_tally *tally, bool *ret_found, struct assay_err *err)
{
    const struct assay_score_plan *plan = &job->plan;
    uint32_t source = plan->pair_sources[pair];
    assay_auto(assay_free_ptr) float *variant = read_f32(job, unique, source);
    assay_auto(assay_free_ptr) float *reference = variant ? read_f32(job, unique, 0) : NULL;
    if (!reference)
        return ASSAY_OK;
    assay_auto(assay_free_ptr) struct assay_position *positions = calloc(plan->unique_rows[unique], sizeof *positions);
    if (!positions)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for scoring a chunk");
    struct assay_scoring_side sides[] = {{job->heads[0], reference}, {job->heads[source], variant}};
    enum assay_status status =
        assay_score(job->deps->pool, &sides[0], &sides[1], 1, plan->labels + plan->unique_labels[unique],
                    plan->unique_rows[unique], positions, err);
    if (status != ASSAY_OK)
        return status;
    *ret_found = true;
    if (job->sink->samples) {
        const struct assay_score_samples samples = {
            plan->unique_keys[unique], plan->unique_rows[unique], pair, 1, positions, false, true};
        return job->sink->samples(job->sink->arg, &samples, err);
    }
    score_dtype_add(tally, &job->figures, plan, pair, unique, positions);
    return ASSAY_OK;
}

enum assay_status score_dtype_measure(struct score_job *job, size_t pair, struct assay_dtype_error *ret,
                                      struct assay_err *err)
{
    struct score_dtype_tally tally = {0};
    size_t chunks = 0;
    enum assay_status status = score_need_head(job, 0, err);
    if (status == ASSAY_OK)
        status = score_need_head(job, job->plan.pair_sources[pair], err);
    for (size_t unique = 0; unique < job->plan.uniques_count && chunks < SCORE_DTYPE_CHUNKS_MAX && status == ASSAY_OK;
         unique++) {
        bool found = false;
        if (job->sink->cancelled(job->sink->arg))
            return assay_err_set(err, ASSAY_CANCELLED, "scoring was cancelled");
        status = measure_chunk(job, pair, unique, &tally, &found, err);
        chunks += found;
    }
    if (status == ASSAY_OK)
        *ret = score_dtype_total(&tally);
    return status;
}
