#include "cli/report_assess.h"

#include <math.h>

#include "cli/words.h"

static bool usable(const struct assay_variant_assessment *variant)
{
    return variant->dominated_by == ASSAY_NOT_DOMINATED &&
           (variant->acceptance == ASSAY_ACCEPTANCE_YES || variant->acceptance == ASSAY_ACCEPTANCE_WITH_CARE);
}

static const char *label(const struct assay_variant_assessment *variant)
{
    return assay_result_label(variant->result);
}

static double megabytes(const struct assay_variant_assessment *variant)
{
    return (double)variant->result->artifact->artifact_bytes / 1e6;
}

/* --- dominance --- */

/* Whether the intervals of two mean KLs have a point in common; true when one is not known. */
static bool overlap(const Assay__V1__Distribution *a, const Assay__V1__Distribution *b)
{
    if (!a->has_interval_low || !a->has_interval_high || !b->has_interval_low || !b->has_interval_high)
        return true;
    return a->interval_low <= b->interval_high && b->interval_low <= a->interval_high;
}

static bool dominates(const struct assay_variant_assessment *better, const struct assay_variant_assessment *worse)
{
    struct assay_figure kl = assay_kl_figure(better->result), other = assay_kl_figure(worse->result);
    if (!kl.present || !other.present || !better->saved_gb.present || !worse->saved_gb.present)
        return false;
    return kl.value <= other.value && better->saved_gb.value >= worse->saved_gb.value &&
           (kl.value < other.value || better->saved_gb.value > worse->saved_gb.value);
}

static void find_dominated(struct assay_assessment *assessment)
{
    for (size_t i = 0; i < assessment->count; i++) {
        struct assay_variant_assessment *variant = &assessment->variants[i];
        double best = INFINITY;
        for (size_t k = 0; k < assessment->count; k++) {
            const struct assay_variant_assessment *other = &assessment->variants[k];
            double kl = assay_kl_figure(other->result).value;
            if (k == i || !dominates(other, variant) || !(kl < best))
                continue;
            best = kl;
            variant->dominated_by = k;
        }
        if (variant->dominated_by == ASSAY_NOT_DOMINATED)
            continue;
        const struct assay_variant_assessment *other = &assessment->variants[variant->dominated_by];
        variant->dominance = assay_assess_text(
            assessment, "%.80s is dominated by %.80s: %.2f MB against %.2f MB, mean KL %.3g against %.3g nats%s",
            label(variant), label(other), megabytes(variant), megabytes(other), assay_kl_figure(variant->result).value,
            assay_kl_figure(other->result).value,
            overlap(variant->result->score->kl_nats, other->result->score->kl_nats)
                ? " (their intervals overlap: the quality may be equal)"
                : "");
    }
}

/* --- recommendations --- */

typedef struct assay_figure (*figure_fn)(const struct assay_variant_assessment *variant);

static struct assay_figure mean_kl(const struct assay_variant_assessment *variant)
{
    return assay_kl_figure(variant->result);
}

static struct assay_figure size_left(const struct assay_variant_assessment *variant)
{
    struct assay_figure figure = variant->saved_gb;
    figure.value = -figure.value;
    return figure;
}

static struct assay_figure kl_for_room(const struct assay_variant_assessment *variant)
{
    return variant->kl_per_gb;
}

/* The usable variant with the least figure; NULL when there is none. */
static const struct assay_variant_assessment *least(const struct assay_assessment *assessment, figure_fn figure)
{
    const struct assay_variant_assessment *best = NULL;
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        if (usable(variant) && figure(variant).present && (!best || figure(variant).value < figure(best).value))
            best = variant;
    }
    return best;
}

static void recommend_uses(struct assay_assessment *assessment)
{
    const struct assay_variant_assessment *quality = least(assessment, mean_kl), *small = least(assessment, size_left),
                                          *trade = least(assessment, kl_for_room);
    struct assay_lines *lines = &assessment->recommendations;
    if (trade)
        assay_assess_line(assessment, lines,
                          "Use %.80s by default: the least mean KL for each GB saved (%.3g nats a GB, %.4f GB saved).",
                          label(trade), trade->kl_per_gb.value, trade->saved_gb.value);
    if (quality)
        assay_assess_line(assessment, lines, "Use %.80s if quality comes first: the lowest mean KL, %.3g nats.",
                          label(quality), mean_kl(quality).value);
    if (small)
        assay_assess_line(assessment, lines, "Use %.80s if memory comes first: the smallest, %.2f MB.", label(small),
                          megabytes(small));
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        if (usable(variant) && variant->acceptance == ASSAY_ACCEPTANCE_WITH_CARE && variant->weaknesses.count > 0)
            assay_assess_line(assessment, lines, "Use %.80s with care: %.400s.", label(variant),
                              variant->weaknesses.at[0]);
    }
    if (!trade && !quality && !small)
        assay_assess_line(assessment, lines, "Keep the reference: no variant is acceptable on these data.");
}

static void recommend_against(struct assay_assessment *assessment)
{
    struct assay_lines *lines = &assessment->recommendations;
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        struct assay_cosines all = assay_weight_cosines(variant->result, ASSAY_LAYERS_ALL);
        if (variant->acceptance == ASSAY_ACCEPTANCE_NO)
            assay_assess_line(assessment, lines, "Avoid %.80s: %.400s.", label(variant), variant->verdict);
        else if (variant->acceptance == ASSAY_ACCEPTANCE_UNDECIDED)
            assay_assess_line(assessment, lines, "Do not decide on %.80s yet: %.400s; more chunks narrow the interval.",
                              label(variant), variant->verdict);
        else if (variant->dominance)
            assay_assess_line(assessment, lines, "Avoid %.80s: %.400s.", label(variant), variant->dominance);
        if (all.tensors > 0 && all.min <= ASSAY_RULE_COSINE_LOW)
            assay_assess_line(assessment, lines,
                              "If %.80s must be used, keep %.200s in high precision: its weight cosine is %.4f.",
                              label(variant), assay_word_or(all.worst, "the worst tensor"), all.min);
    }
}

/* --- findings and conclusion --- */

static size_t count_of(const struct assay_assessment *assessment, enum assay_acceptance acceptance)
{
    size_t count = 0;
    for (size_t i = 0; i < assessment->count; i++)
        count += assessment->variants[i].acceptance == acceptance;
    return count;
}

static void find(struct assay_assessment *assessment)
{
    const struct assay_variant_assessment *best = NULL, *worst = NULL;
    struct assay_lines *lines = &assessment->findings;
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        struct assay_figure kl = mean_kl(variant);
        if (kl.present && (!best || kl.value < mean_kl(best).value))
            best = variant;
        if (kl.present && (!worst || kl.value > mean_kl(worst).value))
            worst = variant;
    }
    assay_assess_line(assessment, lines,
                      "Of %zu variants %zu acceptable, %zu acceptable with care, %zu undecided, %zu not acceptable.",
                      assessment->count, count_of(assessment, ASSAY_ACCEPTANCE_YES),
                      count_of(assessment, ASSAY_ACCEPTANCE_WITH_CARE),
                      count_of(assessment, ASSAY_ACCEPTANCE_UNDECIDED), count_of(assessment, ASSAY_ACCEPTANCE_NO));
    if (best && worst && best != worst)
        assay_assess_line(assessment, lines,
                          "Closest to the reference is %.80s (mean KL %.3g nats), furthest %.80s (%.3g).", label(best),
                          mean_kl(best).value, label(worst), mean_kl(worst).value);
    for (size_t i = 0; i < assessment->count; i++)
        if (assessment->variants[i].dominance)
            assay_assess_line(assessment, lines, "%s.", assessment->variants[i].dominance);
}

static void advise_to_finish(struct assay_assessment *assessment)
{
    for (size_t i = 0; i < assessment->count; i++)
        assay_assess_line(assessment, &assessment->findings, "%.80s: %s.", label(&assessment->variants[i]),
                          assessment->variants[i].verdict);
    assay_assess_line(assessment, &assessment->recommendations,
                      "Let the job run to its end (`assay retry`, or the same command again): what was scored is found "
                      "in the cache.");
    assessment->conclusion = "The result is partial: nothing is concluded from it.";
}

void assay_advise(const struct assay_report *report, struct assay_assessment *assessment)
{
    if (report->job->partial) {
        advise_to_finish(assessment);
        return;
    }
    find_dominated(assessment);
    find(assessment);
    recommend_uses(assessment);
    recommend_against(assessment);
    const struct assay_variant_assessment *best = least(assessment, kl_for_room);
    if (!best)
        best = least(assessment, mean_kl);
    const char *verdict = assay_word_verdict(report->job->verdict);
    if (best)
        assessment->conclusion = assay_assess_text(
            assessment,
            "The job's verdict is %s. %.80s is the best trade-off of the acceptable variants on this corpus.", verdict,
            label(best));
    else
        assessment->conclusion = assay_assess_text(
            assessment, "The job's verdict is %s. No variant is acceptable on these data: the reference stays.",
            verdict);
}
