/* Verdicts: figures against thresholds. A threshold is a claim about a bound: PASS and FAIL need the whole 95 %
 * interval on one side; the plain comparison of the point stands beside. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/coordinator/coordinator.h"

/* Defaults. Perplexity may rise by less than 8 %; a mean KL above 0.1 nats is the band "high"; layers of int8 weights
 * keep a mean cosine above 0.85. */
#define PERPLEXITY_INCREASE_PERCENT_MAX 8.0
#define KL_MEAN_NATS_MAX 0.1
#define WEIGHT_COSINE_MIN 0.85

enum { CRITERIA_MAX = 3 };

/* What a criterion compares. `missing` is NULL when there is a value. */
struct figure {
    double value, low, high;
    const char *missing;
};

static struct figure figure_of_estimate(const Assay__V1__Estimate *estimate)
{
    if (!estimate || !estimate->has_value || !estimate->has_interval_low || !estimate->has_interval_high)
        return (struct figure){.missing = estimate && estimate->missing ? estimate->missing : "not computed"};
    return (struct figure){estimate->value, estimate->interval_low, estimate->interval_high, NULL};
}

static struct figure figure_of_kl(const Assay__V1__Distribution *kl)
{
    if (!kl || !kl->has_mean || !kl->has_interval_low || !kl->has_interval_high)
        return (struct figure){.missing = "not computed"};
    return (struct figure){kl->mean, kl->interval_low, kl->interval_high, NULL};
}

/* Weights are all there: no sampling, the interval is the point. */
static struct figure figure_of_weights(const Assay__V1__ArtifactSummary *artifact)
{
    if (!artifact || artifact->n_layer_errors == 0)
        return (struct figure){.missing = "no tensor is quantized"};
    double sum = 0;
    for (size_t i = 0; i < artifact->n_layer_errors; i++)
        sum += artifact->layer_errors[i]->cosine;
    double mean = sum / (double)artifact->n_layer_errors;
    return (struct figure){mean, mean, mean, NULL};
}

static Assay__V1__Verdict judge(const struct figure *figure, double threshold, bool below)
{
    if (figure->missing || isnan(figure->value) || isnan(figure->low) || isnan(figure->high))
        return ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE;
    double low = below ? figure->low : -figure->high, high = below ? figure->high : -figure->low;
    double bound = below ? threshold : -threshold;
    if (high < bound)
        return ASSAY__V1__VERDICT__VERDICT_PASS;
    return low >= bound ? ASSAY__V1__VERDICT__VERDICT_FAIL : ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE;
}

static bool add_criterion(Assay__V1__VariantResult *result, const char *name, struct figure figure, double threshold,
                          bool below)
{
    Assay__V1__CriterionResult *criterion = malloc(sizeof *criterion);
    if (!criterion)
        return false;
    assay__v1__criterion_result__init(criterion);
    assay_job_set_string(&criterion->name, name);
    criterion->has_threshold = criterion->has_verdict = true;
    criterion->threshold = threshold;
    criterion->has_wants_above = true;
    criterion->wants_above = !below;
    criterion->verdict = judge(&figure, threshold, below);
    if (figure.missing) {
        assay_job_set_string(&criterion->missing, figure.missing);
    } else {
        criterion->has_value = criterion->has_interval_low = criterion->has_interval_high = criterion->has_point_pass =
            true;
        criterion->value = figure.value;
        criterion->interval_low = figure.low;
        criterion->interval_high = figure.high;
        criterion->point_pass = below ? figure.value < threshold : figure.value > threshold;
    }
    result->criteria[result->n_criteria++] = criterion;
    return true;
}

/* PASS < INCONCLUSIVE < FAIL. */
static int severity(Assay__V1__Verdict verdict)
{
    return verdict == ASSAY__V1__VERDICT__VERDICT_FAIL           ? 2
           : verdict == ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE ? 1
                                                                 : 0;
}

static bool judge_variant(Assay__V1__VariantResult *result, const Assay__V1__Thresholds *thresholds)
{
    double increase_max = thresholds && thresholds->has_perplexity_increase_percent
                              ? thresholds->perplexity_increase_percent
                              : PERPLEXITY_INCREASE_PERCENT_MAX;
    double kl_max = thresholds && thresholds->has_kl_mean_nats ? thresholds->kl_mean_nats : KL_MEAN_NATS_MAX;
    for (size_t i = 0; i < result->n_criteria; i++)
        assay__v1__criterion_result__free_unpacked(result->criteria[i], NULL);
    free(result->criteria);
    result->n_criteria = 0;
    result->criteria = calloc(CRITERIA_MAX, sizeof *result->criteria);
    const Assay__V1__VariantScore *score = result->score;
    if (!result->criteria ||
        !add_criterion(result, "perplexity_increase_percent",
                       figure_of_estimate(score ? score->perplexity_increase_percent : NULL), increase_max, true) ||
        !add_criterion(result, "kl_mean_nats", figure_of_kl(score ? score->kl_nats : NULL), kl_max, true))
        return false;
    struct figure weights = figure_of_weights(result->artifact);
    if (!weights.missing && !add_criterion(result, "weight_cosine_mean", weights, WEIGHT_COSINE_MIN, false))
        return false;
    result->has_verdict = true;
    result->verdict = ASSAY__V1__VERDICT__VERDICT_PASS;
    for (size_t i = 0; i < result->n_criteria; i++)
        if (severity(result->criteria[i]->verdict) > severity(result->verdict))
            result->verdict = result->criteria[i]->verdict;
    return true;
}

bool assay_report_fill(Assay__V1__Job *record)
{
    record->has_verdict = true;
    record->verdict = ASSAY__V1__VERDICT__VERDICT_PASS;
    for (size_t i = 1; i < record->n_results; i++) {
        if (!judge_variant(record->results[i], record->request->thresholds))
            return false;
        if (severity(record->results[i]->verdict) > severity(record->verdict))
            record->verdict = record->results[i]->verdict;
    }
    return true;
}
