/* Figures of a job from its figures by position. The same positions give the same bits, whoever found them: all sums go
 * over the positions of the job in order, when all are there. */
#pragma once

#include "common/nn/scoring.h"
#include "services/evaluator/score_job.h"

/* Figures by position, for one pair; positions of occurrences in order. */
struct score_series {
    double *nll_var, *kl;
    uint8_t *same_top;
};

struct score_figures {
    size_t pairs_count;
    double *nll_ref;
    struct score_series *series; /* by pair */
};

enum assay_status score_figures_init(struct score_figures *figures, const struct assay_score_plan *plan,
                                     struct assay_err *err) ASSAY_MUST_USE;
void score_figures_release(struct score_figures *figures); /* zeroed is fine */

/* positions[pair - first_pair][row] of a chunk into the places of all its occurrences. */
void score_figures_fill(struct score_figures *figures, const struct assay_score_plan *plan, uint32_t unique,
                        size_t first_pair, size_t pairs, const struct assay_position *positions);

/* What records of f16 changed: chunks are added in the order of the plan. */
#define SCORE_DTYPE_CHUNKS_MAX 16 /* the error is a property of the rounding, few tell it */
struct score_dtype_tally {
    double error_sum, kl_sum;
    struct assay_dtype_error error;
};
/* positions[row]: of the chunk, from records of f32. */
void score_dtype_add(struct score_dtype_tally *tally, const struct score_figures *figures,
                     const struct assay_score_plan *plan, size_t pair, size_t unique,
                     const struct assay_position *positions);
struct assay_dtype_error score_dtype_total(const struct score_dtype_tally *tally);

/* What the figures are made of. */
struct score_ending {
    const struct assay_score_plan *plan;
    const struct score_figures *figures;
    const char *const *numerics; /* by source */
    enum assay_record_dtype dtype;
    const struct assay_dtype_error *errors; /* by pair; NULL unless dtype is F16 */
    size_t variants_count;
};
/* Calls send(arg, results, count) once: the reference, then the variants in order. */
enum assay_status score_figures_send(const struct score_ending *ending,
                                     enum assay_status (*send)(void *arg, const struct assay_score_result *results,
                                                               size_t count, struct assay_err *err),
                                     void *arg, struct assay_err *err) ASSAY_MUST_USE;
