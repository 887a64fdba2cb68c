#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/report_cells.h"
#include "cli/words.h"
#include "common/base/text.h"

void assay_cell_figure(struct assay_grid *grid, struct assay_figure figure, int decimals)
{
    if (figure.present)
        assay_grid_cell(grid, "%.*f", decimals, figure.value);
    else
        assay_grid_cell(grid, "-");
}

void assay_cell_estimate(struct assay_grid *grid, const Assay__V1__Estimate *estimate, int decimals)
{
    struct assay_figure figure = assay_estimate_figure(estimate);
    if (figure.present && estimate->has_standard_error && isfinite(estimate->standard_error))
        assay_grid_cell(grid, "%.*f ± %.*f", decimals, figure.value, decimals, estimate->standard_error);
    else
        assay_cell_figure(grid, figure, decimals);
}

void assay_cell_change(struct assay_grid *grid, const Assay__V1__Estimate *estimate, int decimals)
{
    struct assay_figure figure = assay_estimate_figure(estimate);
    if (figure.present && estimate->has_interval_low && estimate->has_interval_high)
        assay_grid_cell(grid, "%+.*f [%+.*f, %+.*f]", decimals, figure.value, decimals, estimate->interval_low,
                        decimals, estimate->interval_high);
    else if (figure.present)
        assay_grid_cell(grid, "%+.*f", decimals, figure.value);
    else
        assay_grid_cell(grid, "-");
}

void assay_cell_small(struct assay_grid *grid, bool has, double value)
{
    if (has && isfinite(value))
        assay_grid_cell(grid, "%.3g", value);
    else
        assay_grid_cell(grid, "-");
}

static void add_kl_cells(struct assay_grid *grid, const Assay__V1__Distribution *kl)
{
    static const Assay__V1__Distribution none = ASSAY__V1__DISTRIBUTION__INIT;
    if (!kl)
        kl = &none;
    if (kl->has_mean && isfinite(kl->mean) && kl->has_standard_error)
        assay_grid_cell(grid, "%.3g ± %.2g", kl->mean, kl->standard_error);
    else
        assay_cell_small(grid, kl->has_mean, kl->mean);
    assay_cell_small(grid, kl->has_median, kl->median);
    assay_cell_small(grid, kl->has_p99, kl->p99);
    assay_cell_small(grid, kl->has_max, kl->max);
}

static void add_quality_cells(struct assay_grid *grid, const Assay__V1__Job *job,
                              const Assay__V1__VariantResult *result, bool reference)
{
    const Assay__V1__VariantScore *score = result->score;
    assay_cell_estimate(grid, score ? score->perplexity : NULL, 4);
    if (reference)
        assay_grid_cell(grid, "reference");
    else
        assay_cell_change(grid, score ? score->perplexity_increase_percent : NULL, 3);
    add_kl_cells(grid, score && !reference ? score->kl_nats : NULL);
    assay_cell_figure(grid, assay_estimate_figure(score && !reference ? score->same_top1_percent : NULL), 2);
    assay_grid_cell(grid, "%s", reference ? "-" : assay_result_verdict(job, result));
}

static void add_cost_cells(struct assay_grid *grid, const Assay__V1__VariantResult *result)
{
    const Assay__V1__ArtifactSummary *artifact = result->artifact;
    struct assay_cosines cosines = assay_weight_cosines(result, ASSAY_LAYERS_ALL);
    if (cosines.tensors > 0)
        assay_grid_cell(grid, "%.6f / %.6f", cosines.mean, cosines.min);
    else
        assay_grid_cell(grid, "-");
    if (artifact && artifact->has_artifact_bytes)
        assay_grid_cell(grid, "%.2f", (double)artifact->artifact_bytes / 1e6);
    else
        assay_grid_cell(grid, "-");
    assay_cell_figure(grid, assay_compression_ratio(result), 2);
    assay_cell_figure(grid, assay_tokens_per_second(result), 0);
}

void assay_cells_results(struct assay_grid *grid, const struct assay_report *report, unsigned parts)
{
#define QUALITY "|PPL ± SE|dPPL % [95 %]|KL mean ± SE (nats)|median|p99|max|same top-1 %|<verdict"
#define COST "|weight cosine mean / min|MB|FP16 / size|tokens/s"
    assay_grid_head(grid, parts == ASSAY_CELLS_QUALITY ? "<variant" QUALITY
                          : parts == ASSAY_CELLS_COST  ? "<variant" COST
                                                       : "<variant" QUALITY COST);
    for (size_t i = 0; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        assay_grid_cell(grid, "%s", assay_result_label(result));
        if (parts & ASSAY_CELLS_QUALITY)
            add_quality_cells(grid, report->job, result, i == 0);
        if (parts & ASSAY_CELLS_COST)
            add_cost_cells(grid, result);
    }
#undef QUALITY
#undef COST
}

static void add_reason(struct assay_buf *out, const Assay__V1__VariantResult *result, const char *what,
                       struct assay_figure figure)
{
    size_t begin = out->len;
    if (figure.present)
        return;
    assay_buf_printf(out, "  %s of %s: not measured: %s", what, assay_result_label(result), figure.missing);
    assay_buf_clean(out, begin);
    assay_buf_str(out, "\n");
}

static void add_reasons(const struct assay_report *report, struct assay_buf *out)
{
    for (size_t i = 0; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        const Assay__V1__VariantScore *score = result->score;
        add_reason(out, result, "PPL", assay_estimate_figure(score ? score->perplexity : NULL));
        if (i > 0) {
            add_reason(out, result, "dPPL", assay_estimate_figure(score ? score->perplexity_increase_percent : NULL));
            add_reason(out, result, "same top-1", assay_estimate_figure(score ? score->same_top1_percent : NULL));
        }
        if (i > 0 && (!score || !score->kl_nats))
            add_reason(out, result, "KL", (struct assay_figure){.missing = "the evaluator sent no such figure"});
        if (i > 0 && assay_weight_cosines(result, ASSAY_LAYERS_ALL).tensors == 0)
            add_reason(out, result, "weight cosine", (struct assay_figure){.missing = assay_no_cosine_reason(result)});
        add_reason(out, result, "size ratio", assay_compression_ratio(result));
        add_reason(out, result, "tokens/s", assay_tokens_per_second(result));
    }
}

void assay_report_cost(const struct assay_report *report, struct assay_buf *out)
{
    const Assay__V1__Job *job = report->job;
    for (size_t i = 0; i < job->n_results; i++) {
        const Assay__V1__VariantResult *result = job->results[i];
        uint64_t known = result->chunks_run + result->chunks_cached;
        uint64_t chunks = ASSAY_MAX(job->chunks, known);
        const char *separator = "";
        size_t begin = out->len;
        assay_buf_printf(out, "%s %s: ", i == 0 ? "reference" : "variant", assay_result_label(result));
        if (result->chunks_cached > 0) {
            assay_buf_printf(out, "%" PRIu64 " of %" PRIu64 " chunks from the cache", result->chunks_cached, chunks);
            separator = ", ";
        }
        if (result->chunks_run > 0) {
            assay_buf_printf(out, "%s%" PRIu64 " of %" PRIu64 " chunks run in %.1f s of compute", separator,
                             result->chunks_run, chunks, (double)result->compute_us / 1e6);
            separator = ", ";
        }
        if (chunks > known)
            assay_buf_printf(out, "%s%" PRIu64 " of %" PRIu64 " %s", separator, chunks - known, chunks,
                             job->partial ? "not run" : "run for another job at the same time");
        if (result->artifact && result->artifact->was_cached)
            assay_buf_str(out, "; artifact from the cache");
        assay_buf_clean(out, begin);
        assay_buf_str(out, "\n");
    }
    if (job->saved_us > 0)
        assay_buf_printf(out, "the cache saved ~%.1f s of forward passes\n", (double)job->saved_us / 1e6);
}

void assay_report_table(const struct assay_report *report, struct assay_buf *out)
{
    static const unsigned tables[] = {ASSAY_CELLS_QUALITY, ASSAY_CELLS_COST};
    for (size_t i = 0; i < ASSAY_COUNT(tables); i++) {
        struct assay_grid grid = ASSAY_GRID_INIT;
        assay_cells_results(&grid, report, tables[i]);
        assay_grid_text(&grid, out);
        assay_grid_release(&grid);
        assay_buf_str(out, "\n");
    }
    add_reasons(report, out);
    assay_buf_printf(out, "verdict: %s\n", assay_report_verdict(report->job));
}
