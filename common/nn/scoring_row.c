#include <math.h>
#include <stdlib.h>

#include "common/nn/scoring_row.h"
#include "common/stats/stats.h"

/* Parts whose gaps are this far from their mean are joined by their own sums. Below it no share is lost. */
#define GAP_MAX 30.0

size_t assay_row_parts(size_t vocab)
{
    return (vocab + ASSAY_SCORE_PART - 1) / ASSAY_SCORE_PART;
}

/* In this order a label that has nearly all of the probability keeps its digits. */
static double nll_of(double max, double log_sum, float label)
{
    return (max - (double)label) + log_sum;
}

struct assay_row_figures assay_row_join(const struct assay_score_part *parts, size_t count, double *shares)
{
    size_t best = 0;
    double sum = 0.0;
    for (size_t i = 1; i < count; i++)
        if (parts[i].max > parts[best].max)
            best = i;
    double max = parts[best].max;
    for (size_t i = 0; i < count; i++) {
        /* 0 * NaN where nothing is finite: then there is no distribution. */
        shares[i] = parts[i].sum * exp((double)parts[i].max - max);
        sum += shares[i];
    }
    for (size_t i = 0; i < count; i++)
        shares[i] /= sum;
    double log_sum = log(sum);
    uint32_t top = (uint32_t)best * ASSAY_SCORE_PART + parts[best].top;
    return (struct assay_row_figures){max, log_sum, isnan(log_sum) ? ASSAY_TOP_NONE_REF : top};
}

/* ln sum exp of the variant's row, NaN when that is no distribution. */
static double join_lse(const struct assay_score_gap *gaps, size_t count)
{
    double max = -INFINITY, sum = 0.0;
    for (size_t i = 0; i < count; i++)
        max = gaps[i].lse > max ? gaps[i].lse : max;
    for (size_t i = 0; i < count; i++)
        sum += exp(gaps[i].lse - max);
    return max + log(sum);
}

/* KL of the shares where they may be 0 or far apart; the parts' own beside it. */
static double join_kl_apart(const struct assay_score_part *parts, const double *shares,
                            const struct assay_score_gap *gaps, size_t count, double lse_ref, double lse_var)
{
    double kl = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (parts[i].lse - gaps[i].lse) - (lse_ref - lse_var), q = exp(gaps[i].lse - lse_var);
        if (shares[i] == 0.0)
            kl += q;
        else
            kl += shares[i] * (gaps[i].kl + (fabs(d) <= 1.0 ? d + expm1(-d) : d - 1.0)) + (fabs(d) <= 1.0 ? 0.0 : q);
    }
    return kl;
}

static bool all_near(const double *gaps, size_t count, double middle)
{
    bool near = true;
    for (size_t i = 0; i < count; i++)
        near &= fabs(gaps[i] - middle) <= GAP_MAX;
    return near;
}

static uint32_t top_of(const struct assay_score_gap *gaps, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (gaps[i].max > gaps[best].max)
            best = i;
    return (uint32_t)best * ASSAY_SCORE_PART + gaps[best].top;
}

struct assay_position assay_row_compare(const struct assay_score_ops *ops, const struct assay_row_figures *ref,
                                        const struct assay_score_part *parts, const double *shares,
                                        const struct assay_score_gap *gaps, size_t count, float label_ref,
                                        float label_var, double *gaps_room)
{
    double middle = 0.0, kl = 0.0;
    for (size_t i = 0; i < count; i++) {
        gaps_room[i] = gaps[i].gap;
        middle += shares[i] * gaps[i].gap;
        kl += shares[i] * gaps[i].kl;
    }
    struct assay_position position = {.nll_ref = nll_of(ref->max, ref->log_sum, label_ref), .top_ref = ref->top};
    double moved = (double)label_ref - (double)label_var, lse_ref = ref->max + ref->log_sum;
    if (all_near(gaps_room, count, middle)) {
        double between = log1p(ops->excess(shares, gaps_room, count, middle)), gap = middle - between;
        /* A difference of nll is as accurate as that of the logits, but for labels that are all but excluded. */
        bool near = fabs(moved - middle) <= GAP_MAX;
        double nll = near ? position.nll_ref + (moved - gap) : (lse_ref - gap) - (double)label_var;
        position.nll_var = nll < 0.0 ? 0.0 : nll;
        position.kl = kl + between;
        position.top_var = top_of(gaps, count);
        return position;
    }
    double lse_var = join_lse(gaps, count);
    position.kl = join_kl_apart(parts, shares, gaps, count, lse_ref, lse_var);
    position.nll_var = lse_var - (double)label_var;
    position.top_var = isnan(lse_var) ? ASSAY_TOP_NONE_VAR : top_of(gaps, count);
    return position;
}

struct assay_position assay_score_row(const struct assay_kernels *kernels, const float *ref, const float *var,
                                      size_t vocab, int32_t label)
{
    const struct assay_score_ops *ops = assay_score_ops(kernels);
    size_t count = assay_row_parts(vocab);
    _Alignas(64) float weights[ASSAY_SCORE_PART];
    assay_auto(assay_free_ptr) struct assay_score_part *parts = malloc(count * sizeof *parts);
    assay_auto(assay_free_ptr) struct assay_score_gap *gaps = malloc(count * sizeof *gaps);
    assay_auto(assay_free_ptr) double *shares = malloc(2 * count * sizeof *shares);
    if (!parts || !gaps || !shares)
        return (struct assay_position){NAN, NAN, NAN, ASSAY_TOP_NONE_REF, ASSAY_TOP_NONE_VAR};
    for (size_t i = 0; i < count; i++) {
        size_t first = i * ASSAY_SCORE_PART, n = ASSAY_MIN(vocab - first, (size_t)ASSAY_SCORE_PART);
        ops->reduce(ref + first, n, weights, &parts[i]);
        ops->compare(ref + first, var + first, n, weights, &parts[i], &gaps[i]);
    }
    struct assay_row_figures figures = assay_row_join(parts, count, shares);
    return assay_row_compare(ops, &figures, parts, shares, gaps, count, ref[label], var[label], shares + count);
}

struct figures_f64 {
    double max, log_sum;
    uint32_t top;
};

static struct figures_f64 reduce_f64(const float *logits, size_t vocab)
{
    uint32_t top = 0;
    struct assay_sum sum = ASSAY_SUM_INIT;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[top])
            top = i;
    for (size_t i = 0; i < vocab; i++)
        assay_sum_add(&sum, exp((double)logits[i] - (double)logits[top]));
    double log_sum = log(assay_sum_value(&sum));
    return (struct figures_f64){logits[top], log_sum, top};
}

struct assay_position assay_score_row_f64(const float *ref, const float *var, size_t vocab, int32_t label)
{
    struct figures_f64 r = reduce_f64(ref, vocab), v = reduce_f64(var, vocab);
    double lse_ref = r.max + r.log_sum, lse_var = v.max + v.log_sum;
    struct assay_sum kl = ASSAY_SUM_INIT;
    for (size_t i = 0; i < vocab; i++) {
        double ln_p = (double)ref[i] - lse_ref, ln_q = (double)var[i] - lse_var, p = exp(ln_p);
        /* The limit for p -> 0; written so that NaN goes on. */
        assay_sum_add(&kl, p == 0.0 && !isnan(lse_var) ? 0.0 : p * (ln_p - ln_q));
    }
    return (struct assay_position){
        .nll_ref = nll_of(r.max, r.log_sum, ref[label]),
        .nll_var = nll_of(v.max, v.log_sum, var[label]),
        .kl = assay_sum_value(&kl),
        .top_ref = isnan(r.log_sum) ? ASSAY_TOP_NONE_REF : r.top,
        .top_var = isnan(v.log_sum) ? ASSAY_TOP_NONE_VAR : v.top,
    };
}
