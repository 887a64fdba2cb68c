#include <math.h>

#include "common/nn/scoring_row.h"
#include "common/stats/stats.h"

struct assay_row_figures assay_row_reduce(const struct assay_score_ops *ops, const float *logits, size_t vocab)
{
    size_t top;
    double max = ops->top(logits, vocab, &top);
    double log_sum = log(ops->sum_exp(logits, vocab, max));
    return (struct assay_row_figures){.max = max, .log_sum = log_sum, .top = top, .valid = !isnan(log_sum)};
}

double assay_row_nll(const struct assay_row_figures *figures, const float *logits, int32_t label)
{
    /* In this order a label that has nearly all of the probability keeps its digits. */
    return (figures->max - (double)logits[label]) + figures->log_sum;
}

struct assay_position assay_row_compare(const struct assay_score_ops *ops, const struct assay_row_figures *ref_figures,
                                        const float *ref, const float *var, size_t vocab, int32_t label)
{
    struct assay_row_figures var_figures = assay_row_reduce(ops, var, vocab);
    return (struct assay_position){
        .nll_ref = assay_row_nll(ref_figures, ref, label),
        .nll_var = assay_row_nll(&var_figures, var, label),
        .kl = ops->kl(ref, var, vocab, ref_figures->max + ref_figures->log_sum, var_figures.max + var_figures.log_sum),
        .top_ref = ref_figures->valid ? (uint32_t)ref_figures->top : ASSAY_TOP_NONE_REF,
        .top_var = var_figures.valid ? (uint32_t)var_figures.top : ASSAY_TOP_NONE_VAR,
    };
}

struct assay_position assay_score_row(const struct assay_kernels *kernels, const float *ref, const float *var,
                                      size_t vocab, int32_t label)
{
    const struct assay_score_ops *ops = assay_score_ops(kernels);
    struct assay_row_figures figures = assay_row_reduce(ops, ref, vocab);
    return assay_row_compare(ops, &figures, ref, var, vocab, label);
}

static struct assay_row_figures reduce_f64(const float *logits, size_t vocab)
{
    size_t top = 0;
    struct assay_sum sum = ASSAY_SUM_INIT;
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[top])
            top = i;
    for (size_t i = 0; i < vocab; i++)
        assay_sum_add(&sum, exp((double)logits[i] - (double)logits[top]));
    double log_sum = log(assay_sum_value(&sum));
    return (struct assay_row_figures){.max = logits[top], .log_sum = log_sum, .top = top, .valid = !isnan(log_sum)};
}

struct assay_position assay_score_row_f64(const float *ref, const float *var, size_t vocab, int32_t label)
{
    struct assay_row_figures r = reduce_f64(ref, vocab), v = reduce_f64(var, vocab);
    double lse_ref = r.max + r.log_sum, lse_var = v.max + v.log_sum;
    struct assay_sum kl = ASSAY_SUM_INIT;
    for (size_t i = 0; i < vocab; i++) {
        double ln_p = (double)ref[i] - lse_ref, ln_q = (double)var[i] - lse_var, p = exp(ln_p);
        /* The limit for p -> 0; written so that NaN goes on. */
        assay_sum_add(&kl, p == 0.0 && !isnan(lse_var) ? 0.0 : p * (ln_p - ln_q));
    }
    return (struct assay_position){
        .nll_ref = assay_row_nll(&r, ref, label),
        .nll_var = assay_row_nll(&v, var, label),
        .kl = assay_sum_value(&kl),
        .top_ref = r.valid ? (uint32_t)r.top : ASSAY_TOP_NONE_REF,
        .top_var = v.valid ? (uint32_t)v.top : ASSAY_TOP_NONE_VAR,
    };
}
