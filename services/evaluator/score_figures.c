#include "services/evaluator/score_figures.h"

#include <math.h>
#include <stdlib.h>

enum assay_status score_figures_init(struct score_figures *figures, const struct assay_score_plan *plan,
                                     struct assay_err *err)
{
    *figures = (struct score_figures){.pairs_count = plan->pairs_count,
                                      .nll_ref = calloc(plan->positions, sizeof *figures->nll_ref),
                                      .series = calloc(plan->pairs_count, sizeof *figures->series)};
    bool made = figures->nll_ref && figures->series;
    for (size_t i = 0; made && i < plan->pairs_count; i++) {
        struct score_series *series = &figures->series[i];
        series->nll_var = calloc(plan->positions, sizeof *series->nll_var);
        series->kl = calloc(plan->positions, sizeof *series->kl);
        series->same_top = calloc(plan->positions, 1);
        made = series->nll_var && series->kl && series->same_top;
    }
    if (made)
        return ASSAY_OK;
    score_figures_release(figures);
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                         "out of memory for the figures of %zu positions and %zu variants", plan->positions,
                         plan->pairs_count);
}

void score_figures_release(struct score_figures *figures)
{
    for (size_t i = 0; figures->series && i < figures->pairs_count; i++) {
        free(figures->series[i].nll_var);
        free(figures->series[i].kl);
        free(figures->series[i].same_top);
    }
    free(figures->series);
    free(figures->nll_ref);
    *figures = (struct score_figures){0};
}

void score_figures_fill(struct score_figures *figures, const struct assay_score_plan *plan, uint32_t unique,
                        size_t first_pair, size_t pairs, const struct assay_position *positions)
{
    size_t rows = plan->unique_rows[unique];
    for (uint32_t at = plan->unique_first[unique]; at != UINT32_MAX; at = plan->occurrence_next[at]) {
        size_t first = plan->offsets[at];
        for (size_t i = 0; i < pairs; i++) {
            struct score_series *series = &figures->series[first_pair + i];
            for (size_t row = 0; row < rows; row++) {
                const struct assay_position *position = &positions[i * rows + row];
                figures->nll_ref[first + row] = position->nll_ref;
                series->nll_var[first + row] = position->nll_var;
                series->kl[first + row] = position->kl;
                series->same_top[first + row] = position->top_ref == position->top_var;
            }
        }
    }
}

/* --- what f16 costs --- */

void score_dtype_add(struct score_dtype_tally *tally, const struct score_figures *figures,
                     const struct assay_score_plan *plan, size_t pair, size_t unique,
                     const struct assay_position *positions)
{
    const double *kl = figures->series[pair].kl + plan->offsets[plan->unique_first[unique]];
    for (size_t row = 0; row < plan->unique_rows[unique]; row++) {
        double error = fabs(kl[row] - positions[row].kl);
        if (!isfinite(error))
            continue;
        tally->error_sum += error;
        tally->kl_sum += positions[row].kl;
        tally->error.max_nats = fmax(tally->error.max_nats, error);
        tally->error.n++;
    }
}

struct assay_dtype_error score_dtype_total(const struct score_dtype_tally *tally)
{
    struct assay_dtype_error error = tally->error;
    if (error.n > 0) {
        error.mean_nats = tally->error_sum / (double)error.n;
        error.relative = tally->kl_sum > 0 ? tally->error_sum / tally->kl_sum : NAN;
    }
    return error;
}

/* --- the end --- */

static void figure_reference(const struct score_ending *ending, struct assay_score_result *ret)
{
    struct assay_clusters chunks = {ending->plan->sizes, ending->plan->occurrences_count};
    ret->is_reference = true;
    ret->variant = ending->plan->sources[0].variant;
    ret->numerics = ending->numerics[0];
    ret->pair.perplexity = assay_stats_perplexity(ending->figures->nll_ref, &chunks);
    ret->pair.mean_nll = assay_stats_clustered_mean(ending->figures->nll_ref, &chunks);
}

static enum assay_status figure_variant(const struct score_ending *ending, size_t pair, double *chunk_kl,
                                        struct assay_score_result *ret, struct assay_err *err)
{
    const struct assay_score_plan *plan = ending->plan;
    const struct score_series *at = &ending->figures->series[pair];
    uint32_t source = plan->pair_sources[pair];
    struct assay_pair_series series = {
        ending->figures->nll_ref, at->nll_var, at->kl, at->same_top, {plan->sizes, plan->occurrences_count}};
    ret->variant = plan->sources[source].variant;
    ret->numerics = ending->numerics[source];
    ret->chunk_kl = chunk_kl;
    ret->chunks_count = plan->occurrences_count;
    if (ending->errors)
        ret->f16_error = ending->errors[pair];
    return assay_stats_pair(&series, chunk_kl, &ret->pair, err);
}

enum assay_status score_figures_send(const struct score_ending *ending,
                                     enum assay_status (*send)(void *arg, const struct assay_score_result *results,
                                                               size_t count, struct assay_err *err),
                                     void *arg, struct assay_err *err)
{
    size_t variants = ending->variants_count, chunks = ending->plan->occurrences_count;
    struct assay_score_result *results = calloc(variants + 1, sizeof *results);
    double *chunk_kl = calloc(variants * chunks + 1, sizeof *chunk_kl);
    enum assay_status status = ASSAY_OK;
    if (!results || !chunk_kl)
        status =
            assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the figures of %zu variants", variants);
    else
        figure_reference(ending, &results[0]);
    for (size_t i = 0; i < variants && status == ASSAY_OK; i++)
        status = figure_variant(ending, i, chunk_kl + i * chunks, &results[i + 1], err);
    for (size_t i = 0; i <= variants && status == ASSAY_OK; i++)
        results[i].dtype = ending->dtype;
    if (status == ASSAY_OK)
        status = send(arg, results, variants + 1, err);
    free(chunk_kl);
    free(results);
    return status;
}
