/* What the figures of a job say about each variant, by rules that the report prints: is the harm acceptable, what does
 * it buy, which variant for whom. Pure; works on the report alone. */
#pragma once

#include "cli/report.h"
#include "common/base/arena.h"

/* The bounds of the rules. */
#define ASSAY_RULE_INCREASE_SMALL_PERCENT 1.0 /* of perplexity */
#define ASSAY_RULE_INCREASE_LARGE_PERCENT 3.0
#define ASSAY_RULE_TOP1_HIGH_PERCENT 97.0
#define ASSAY_RULE_TOP1_LOW_PERCENT 95.0
#define ASSAY_RULE_KL_TAIL_NATS 0.5 /* at the 99th percentile */
#define ASSAY_RULE_COSINE_LOW 0.95
#define ASSAY_RULE_RATIO_HIGH 1.8 /* FP16 bytes / bytes */
#define ASSAY_RULE_RATIO_LOW 1.2
#define ASSAY_WORST_LAYERS_MAX 3

/* One line for each rule, in order; ends with NULL. */
extern const char *const assay_assess_rules[];

enum assay_acceptance {
    ASSAY_ACCEPTANCE_UNDECIDED, /* a gated figure is inconclusive, or there is none; always of a partial result */
    ASSAY_ACCEPTANCE_YES,
    ASSAY_ACCEPTANCE_WITH_CARE, /* within the thresholds, with a weakness */
    ASSAY_ACCEPTANCE_NO,
};
const char *assay_acceptance_word(enum assay_acceptance acceptance); /* "acceptable" */

#define ASSAY_LINES_MAX 160
struct assay_lines {
    const char *at[ASSAY_LINES_MAX];
    size_t count;
};

/* Which of a variant's neighbours makes it pointless. */
#define ASSAY_NOT_DOMINATED SIZE_MAX

struct assay_variant_assessment {
    const Assay__V1__VariantResult *result;
    enum assay_acceptance acceptance;
    const char *verdict; /* a sentence: why */
    struct assay_lines strengths, weaknesses;
    struct assay_figure saved_gb; /* 1e9 bytes less than FP16; negative when it is larger */
    struct assay_figure increase_per_gb, kl_per_gb;
    size_t dominated_by;   /* index in the assessment, or ASSAY_NOT_DOMINATED */
    const char *dominance; /* a sentence, NULL when it is not dominated */
};

struct assay_assessment {
    size_t count; /* of variants: results[i + 1] of the job */
    struct assay_variant_assessment *variants;
    struct assay_lines findings, recommendations;
    const char *conclusion;
    struct assay_arena arena; /* of all the text */
    bool failed;              /* out of memory */
};

/* RESOURCE_EXHAUSTED when out of memory. A partial result is not judged: all variants are undecided, with their
 * coverage. The report outlives the assessment, which the caller releases. */
enum assay_status assay_assess(const struct assay_report *report, struct assay_assessment *ret,
                               struct assay_err *err) ASSAY_MUST_USE;
void assay_assessment_release(struct assay_assessment *assessment);

/* A sentence in the arena of the assessment, added to the lines. */
void assay_assess_line(struct assay_assessment *assessment, struct assay_lines *lines, const char *format, ...)
    ASSAY_PRINTF(3, 4);
const char *assay_assess_text(struct assay_assessment *assessment, const char *format, ...) ASSAY_PRINTF(2, 3);

/* report_advice.c: dominance, recommendations, findings, conclusion; after the variants were assessed. */
void assay_advise(const struct assay_report *report, struct assay_assessment *assessment);

/* Mean KL of a variant. */
struct assay_figure assay_kl_figure(const Assay__V1__VariantResult *result);
