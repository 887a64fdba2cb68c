#include "cli/report_assess.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/words.h"

const char *const assay_assess_rules[] = {
    "Not acceptable: a gated figure FAILs, its 95 % interval lies beyond the threshold.",
    "Undecided: a gated figure is INCONCLUSIVE, or none was measured.",
    "Acceptable: all gated figures PASS; with care when there is a weakness besides size.",
    "Strength: the whole 95 % interval of dPPL lies below 1 %; mean KL < 0.01 (negligible); the same first choice at "
    "97 % "
    "of positions or more; every quantized tensor has a cosine > 0.95; 1.8 times smaller than FP16 or more.",
    "Weakness: dPPL > 3 %; mean KL >= 0.05 (moderate, high); KL > 0.5 nats at the 99th percentile; the same first "
    "choice "
    "at less than 95 % of positions; a tensor with a cosine <= 0.95; less than 1.2 times smaller than FP16.",
    "Dominated: another variant is not larger and its mean KL is not higher, and one of the two is better.",
    "Quality first: the acceptable variant with the lowest mean KL. Memory first: the smallest acceptable one. "
    "Default: "
    "the acceptable one with the least KL for each GB saved. Dominated variants are not recommended.",
    NULL,
};

const char *assay_acceptance_word(enum assay_acceptance acceptance)
{
    static const char *const words[] = {"undecided", "acceptable", "acceptable with care", "not acceptable"};
    return words[acceptance];
}

/* --- text --- */

static const char *format_text(struct assay_assessment *assessment, const char *format, va_list args)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    const char *copy = assay_arena_strdup(&assessment->arena, text);
    assessment->failed = assessment->failed || !copy;
    return copy ? copy : "";
}

const char *assay_assess_text(struct assay_assessment *assessment, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = format_text(assessment, format, args);
    va_end(args);
    return text;
}

void assay_assess_line(struct assay_assessment *assessment, struct assay_lines *lines, const char *format, ...)
{
    va_list args;
    if (lines->count == ASSAY_LINES_MAX)
        return;
    va_start(args, format);
    lines->at[lines->count++] = format_text(assessment, format, args);
    va_end(args);
}

/* --- figures --- */

struct assay_figure assay_kl_figure(const Assay__V1__VariantResult *result)
{
    const Assay__V1__Distribution *kl = result->score ? result->score->kl_nats : NULL;
    if (!kl || !kl->has_mean)
        return (struct assay_figure){.missing = "the evaluator sent no such figure"};
    if (!isfinite(kl->mean))
        return (struct assay_figure){.missing = "the figure is not a finite number"};
    return (struct assay_figure){.present = true, .value = kl->mean};
}

static struct assay_figure saved_gb(const Assay__V1__VariantResult *result)
{
    const Assay__V1__ArtifactSummary *artifact = result->artifact;
    if (!artifact || !artifact->has_artifact_bytes || !artifact->has_fp16_bytes)
        return (struct assay_figure){.missing = "the quantizer sent no sizes"};
    return (struct assay_figure){.present = true,
                                 .value = ((double)artifact->fp16_bytes - (double)artifact->artifact_bytes) / 1e9};
}

static struct assay_figure kl_per_gb(const Assay__V1__VariantResult *result, struct assay_figure saved)
{
    struct assay_figure kl = assay_kl_figure(result);
    if (!kl.present || !saved.present)
        return kl.present ? saved : kl;
    if (!(saved.value > 0))
        return (struct assay_figure){.missing = "it is not smaller than FP16"};
    return (struct assay_figure){.present = true, .value = kl.value / saved.value};
}

/* --- strengths and weaknesses --- */

static void judge_perplexity(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    const Assay__V1__VariantScore *score = variant->result->score;
    const Assay__V1__Estimate *estimate = score ? score->perplexity_increase_percent : NULL;
    struct assay_figure increase = assay_estimate_figure(estimate);
    if (!increase.present) {
        assay_assess_line(assessment, &variant->weaknesses, "change of perplexity not known: %s", increase.missing);
        return;
    }
    if (estimate->has_interval_low && estimate->has_interval_high) {
        if (estimate->interval_low <= 0 && estimate->interval_high >= 0 &&
            estimate->interval_high < ASSAY_RULE_INCREASE_SMALL_PERCENT)
            assay_assess_line(assessment, &variant->strengths,
                              "no change of perplexity can be told from none: %+.3f %% [%+.3f, %+.3f]", increase.value,
                              estimate->interval_low, estimate->interval_high);
        else if (estimate->interval_high < ASSAY_RULE_INCREASE_SMALL_PERCENT)
            assay_assess_line(assessment, &variant->strengths, "perplexity changes by %+.3f %% [%+.3f, %+.3f]",
                              increase.value, estimate->interval_low, estimate->interval_high);
    }
    if (increase.value > ASSAY_RULE_INCREASE_LARGE_PERCENT)
        assay_assess_line(assessment, &variant->weaknesses, "perplexity rises by %.3f %%", increase.value);
}

static void judge_kl(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    const Assay__V1__Distribution *kl = variant->result->score ? variant->result->score->kl_nats : NULL;
    struct assay_figure mean = assay_kl_figure(variant->result);
    if (!mean.present) {
        assay_assess_line(assessment, &variant->weaknesses, "KL not known: %s", mean.missing);
        return;
    }
    if (mean.value < 0.01)
        assay_assess_line(assessment, &variant->strengths, "mean KL %.3g nats is negligible", mean.value);
    else if (mean.value >= 0.05)
        assay_assess_line(assessment, &variant->weaknesses, "mean KL %.3g nats is %s", mean.value,
                          assay_kl_band(mean.value));
    if (kl->has_p99 && kl->p99 > ASSAY_RULE_KL_TAIL_NATS)
        assay_assess_line(assessment, &variant->weaknesses,
                          "the answers differ much at some positions: KL %.3g nats at the 99th percentile", kl->p99);
}

static void judge_top1(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    const Assay__V1__VariantScore *score = variant->result->score;
    struct assay_figure top1 = assay_estimate_figure(score ? score->same_top1_percent : NULL);
    if (!top1.present)
        assay_assess_line(assessment, &variant->weaknesses, "agreement of first choices not known: %s", top1.missing);
    else if (top1.value >= ASSAY_RULE_TOP1_HIGH_PERCENT)
        assay_assess_line(assessment, &variant->strengths, "the same first choice at %.2f %% of positions", top1.value);
    else if (top1.value < ASSAY_RULE_TOP1_LOW_PERCENT)
        assay_assess_line(assessment, &variant->weaknesses, "another first choice at %.2f %% of positions",
                          100 - top1.value);
}

/* The layers with the least mean cosine, worst first, as "2 (0.99120), 0 (0.99240)"; "" when there are none. */
static const char *worst_layers(struct assay_assessment *assessment, const Assay__V1__VariantResult *result)
{
    int32_t first, last, worst[ASSAY_WORST_LAYERS_MAX];
    double means[ASSAY_WORST_LAYERS_MAX];
    size_t count = 0, used = 0;
    char text[256] = "";
    if (!assay_weight_layers(result, &first, &last))
        return "";
    for (int32_t layer = first; layer <= last; layer++) {
        struct assay_cosines cosines = assay_weight_cosines(result, layer);
        if (cosines.tensors == 0)
            continue;
        size_t at = count;
        while (at > 0 && means[at - 1] > cosines.mean)
            at--;
        if (at == ASSAY_WORST_LAYERS_MAX)
            continue;
        count = ASSAY_MIN(count + 1, (size_t)ASSAY_WORST_LAYERS_MAX);
        for (size_t k = count - 1; k > at; k--) {
            means[k] = means[k - 1];
            worst[k] = worst[k - 1];
        }
        means[at] = cosines.mean;
        worst[at] = layer;
    }
    for (size_t i = 0; i < count && used < sizeof text; i++) {
        int len =
            snprintf(text + used, sizeof text - used, "%s%" PRId32 " (%.6f)", i > 0 ? ", " : "", worst[i], means[i]);
        used += len > 0 ? (size_t)len : 0;
    }
    return assay_assess_text(assessment, "%s", text);
}

static void judge_weights(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    struct assay_cosines all = assay_weight_cosines(variant->result, ASSAY_LAYERS_ALL);
    if (all.tensors == 0)
        return; /* fp16 and the like quantize no tensor: no weakness */
    const char *layers = worst_layers(assessment, variant->result);
    if (all.min > ASSAY_RULE_COSINE_LOW)
        assay_assess_line(assessment, &variant->strengths,
                          "weights are kept: cosine %.6f on average, %.6f at least%s%s", all.mean, all.min,
                          layers[0] ? "; the layers furthest off are " : "", layers);
    else
        assay_assess_line(assessment, &variant->weaknesses, "%.200s is far off: cosine %.6f, %.6f on average%s%s",
                          assay_word_or(all.worst, "a tensor"), all.min, all.mean,
                          layers[0] ? "; the layers furthest off are " : "", layers);
}

/* Size is no harm: returns whether a weakness was added for it. */
static size_t judge_size(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    struct assay_figure ratio = assay_compression_ratio(variant->result);
    if (!ratio.present)
        assay_assess_line(assessment, &variant->weaknesses, "size not known: %s", ratio.missing);
    else if (ratio.value >= ASSAY_RULE_RATIO_HIGH)
        assay_assess_line(assessment, &variant->strengths, "%.2f times smaller than FP16", ratio.value);
    else if (ratio.value < ASSAY_RULE_RATIO_LOW)
        assay_assess_line(assessment, &variant->weaknesses, "it saves little: FP16 / size is %.2f", ratio.value);
    return !ratio.present || ratio.value < ASSAY_RULE_RATIO_LOW;
}

/* --- the verdict --- */

static const Assay__V1__CriterionResult *criterion_with(const Assay__V1__VariantResult *result,
                                                        Assay__V1__Verdict verdict)
{
    for (size_t i = 0; i < result->n_criteria; i++)
        if (result->criteria[i]->verdict == verdict)
            return result->criteria[i];
    return NULL;
}

static const char *why(struct assay_assessment *assessment, const Assay__V1__CriterionResult *criterion,
                       const char *how)
{
    const char *name = assay_word_or(criterion->name, "a gated figure");
    if (!criterion->has_value)
        return assay_assess_text(assessment, "%.80s %s: %.200s", name, how,
                                 assay_word_or(criterion->missing, "no value was computed"));
    if (criterion->has_interval_low && criterion->has_interval_high)
        return assay_assess_text(assessment, "%.80s %s: %.4g [%.4g, %.4g], wanted %s %.4g", name, how, criterion->value,
                                 criterion->interval_low, criterion->interval_high, assay_criterion_relation(criterion),
                                 criterion->threshold);
    return assay_assess_text(assessment, "%.80s %s: %.4g, wanted %s %.4g", name, how, criterion->value,
                             assay_criterion_relation(criterion), criterion->threshold);
}

static void decide(struct assay_assessment *assessment, struct assay_variant_assessment *variant, size_t harmless)
{
    const Assay__V1__VariantResult *result = variant->result;
    const Assay__V1__CriterionResult *failed = criterion_with(result, ASSAY__V1__VERDICT__VERDICT_FAIL);
    const Assay__V1__CriterionResult *open = criterion_with(result, ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
    if (failed) {
        variant->acceptance = ASSAY_ACCEPTANCE_NO;
        variant->verdict = why(assessment, failed, "is beyond its threshold");
    } else if (result->verdict != ASSAY__V1__VERDICT__VERDICT_PASS) {
        variant->acceptance = ASSAY_ACCEPTANCE_UNDECIDED;
        variant->verdict =
            open ? why(assessment, open, "is not decided by these data") : "no gated figure was measured";
    } else if (variant->weaknesses.count > harmless) {
        variant->acceptance = ASSAY_ACCEPTANCE_WITH_CARE;
        variant->verdict = "all gated figures lie within their thresholds; mind the weaknesses";
    } else {
        variant->acceptance = ASSAY_ACCEPTANCE_YES;
        variant->verdict = "all gated figures lie within their thresholds";
    }
}

/* Figures of some chunks are not judged. */
static void leave_open(const Assay__V1__Job *job, struct assay_assessment *assessment,
                       struct assay_variant_assessment *variant)
{
    variant->acceptance = ASSAY_ACCEPTANCE_UNDECIDED;
    variant->verdict =
        assay_assess_text(assessment, "the job was cancelled with %" PRIu64 " of %" PRIu64 " chunks scored",
                          variant->result->chunks_scored, job->chunks);
}

static void judge(struct assay_assessment *assessment, struct assay_variant_assessment *variant)
{
    judge_perplexity(assessment, variant);
    judge_kl(assessment, variant);
    judge_top1(assessment, variant);
    judge_weights(assessment, variant);
    decide(assessment, variant, judge_size(assessment, variant));
}

enum assay_status assay_assess(const struct assay_report *report, struct assay_assessment *ret, struct assay_err *err)
{
    struct assay_assessment assessment = {.conclusion = ""};
    const Assay__V1__Job *job = report->job;
    assessment.count = job->n_results > 0 ? job->n_results - 1 : 0;
    assessment.variants = assay_arena_alloc(&assessment.arena, (assessment.count + 1) * sizeof *assessment.variants);
    if (!assessment.variants)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the report");
    for (size_t i = 0; i < assessment.count; i++) {
        struct assay_variant_assessment *variant = &assessment.variants[i];
        variant->result = job->results[i + 1];
        variant->dominated_by = ASSAY_NOT_DOMINATED;
        variant->saved_gb = saved_gb(variant->result);
        variant->increase_per_gb = assay_increase_per_gb_saved(variant->result);
        variant->kl_per_gb = kl_per_gb(variant->result, variant->saved_gb);
        if (job->partial)
            leave_open(job, &assessment, variant);
        else
            judge(&assessment, variant);
    }
    assay_advise(report, &assessment);
    if (assessment.failed) {
        assay_assessment_release(&assessment);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the report");
    }
    *ret = assessment;
    return ASSAY_OK;
}

void assay_assessment_release(struct assay_assessment *assessment)
{
    assay_arena_release(&assessment->arena);
    *assessment = (struct assay_assessment){0};
}
