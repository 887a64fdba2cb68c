#include <math.h>
#include <stdlib.h>

#include "services/evaluator/score_internal.h"

/* Chunks that are looked at: the error is a property of the rounding, few tell it. */
#define CHUNKS_MAX 16

struct tally {
    double error_sum, kl_sum;
    struct assay_dtype_error error;
};

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

static void compare(const struct score_job *job, size_t pair, size_t unique, const struct assay_position *positions,
                    struct tally *tally)
{
    const double *kl = job->series[pair].kl + job->plan.offsets[job->plan.unique_first[unique]];
    for (size_t row = 0; row < job->plan.unique_rows[unique]; row++) {
        double error = fabs(kl[row] - positions[row].kl);
        if (!isfinite(error))
            continue;
        tally->error_sum += error;
        tally->kl_sum += positions[row].kl;
        tally->error.max_nats = fmax(tally->error.max_nats, error);
        tally->error.n++;
    }
}

/* Scores one chunk from its f32 records; *ret_found is false when they are not there. */
static enum assay_status measure_chunk(struct score_job *job, size_t pair, size_t unique, struct tally *tally,
                                       bool *ret_found, struct assay_err *err)
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
    compare(job, pair, unique, positions, tally);
    *ret_found = true;
    return ASSAY_OK;
}

enum assay_status score_dtype_error(struct score_job *job, size_t pair, struct assay_dtype_error *ret,
                                    struct assay_err *err)
{
    struct tally tally = {0};
    size_t chunks = 0;
    enum assay_status status = score_need_head(job, 0, err);
    if (status == ASSAY_OK)
        status = score_need_head(job, job->plan.pair_sources[pair], err);
    for (size_t unique = 0; unique < job->plan.uniques_count && chunks < CHUNKS_MAX && status == ASSAY_OK; unique++) {
        bool found = false;
        if (job->sink->cancelled(job->sink->arg))
            return assay_err_set(err, ASSAY_CANCELLED, "scoring was cancelled");
        status = measure_chunk(job, pair, unique, &tally, &found, err);
        chunks += found;
    }
    if (status != ASSAY_OK)
        return status;
    if (tally.error.n > 0) {
        tally.error.mean_nats = tally.error_sum / (double)tally.error.n;
        tally.error.relative = tally.kl_sum > 0 ? tally.error_sum / tally.kl_sum : NAN;
    }
    *ret = tally.error;
    return ASSAY_OK;
}
