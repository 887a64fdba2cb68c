/* A finished job made by hand. Everything lives in the sample; nothing is freed. */
#pragma once

#include "cli/report.h"

/* A completed job of fp32 and one variant, all of it on the stack of the test. */
struct sample {
    uint8_t digest[32], id[16];
    Assay__V1__Job job;
    Assay__V1__SubmitJobRequest request;
    Assay__V1__Thresholds thresholds;
    Assay__V1__VariantSpec specs[2], *spec_list[1];
    Assay__V1__Variant variants[2];
    Assay__V1__VariantResult results[2], *result_list[2];
    Assay__V1__VariantScore scores[2];
    Assay__V1__Estimate perplexity[2], increase, top1;
    Assay__V1__Distribution kl;
    double chunk_kl[2];
    Assay__V1__ArtifactSummary artifacts[2];
    Assay__V1__LayerError errors[3], *error_list[3];
    Assay__V1__CriterionResult criteria[2], *criterion_list[2];
    struct assay_environment environment;
    struct assay_report report;
};

/* fp32 and one variant of that label, all figures there, PASS. The sample must not move. */
void assay_test_fill(struct sample *s, char *label);
