#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/report_cells.h"
#include "cli/report_grids.h"
#include "cli/words.h"

static void add_grid(struct assay_buf *out, struct assay_grid *grid)
{
    assay_grid_markdown(grid, out);
    assay_buf_str(out, "\n");
    assay_grid_release(grid);
}

/* --- executive summary --- */

static void add_finding(const Assay__V1__Job *job, const Assay__V1__VariantResult *result, struct assay_buf *out)
{
    const Assay__V1__VariantScore *score = result->score;
    struct assay_figure increase = assay_estimate_figure(score ? score->perplexity_increase_percent : NULL);
    struct assay_figure top1 = assay_estimate_figure(score ? score->same_top1_percent : NULL);
    struct assay_figure ratio = assay_compression_ratio(result);
    struct assay_cosines cosines = assay_weight_cosines(result, ASSAY_LAYERS_ALL);
    assay_buf_printf(out, "* **%s: %s** - ", assay_result_label(result), assay_result_verdict(job, result));
    if (increase.present)
        assay_buf_printf(out, "perplexity %+.3f %%", increase.value);
    else
        assay_buf_printf(out, "perplexity change not measured (%s)", increase.missing);
    if (score && score->kl_nats && score->kl_nats->has_mean)
        assay_buf_printf(out, ", mean KL %.3g nats (%s)", score->kl_nats->mean, assay_kl_band(score->kl_nats->mean));
    if (top1.present)
        assay_buf_printf(out, ", same first choice at %.2f %% of positions", top1.value);
    if (ratio.present)
        assay_buf_printf(out, ", %.2f times smaller than FP16", ratio.value);
    if (cosines.tensors > 0)
        assay_buf_printf(out, ", weight cosine %.6f (%s)", cosines.mean, assay_cosine_band(cosines.mean));
    assay_buf_str(out, ".\n");
}

static void add_summary(const struct assay_report *report, const struct assay_assessment *assessment,
                        struct assay_buf *out)
{
    const Assay__V1__Job *job = report->job;
    assay_buf_printf(out, "## Executive summary\n\n**Verdict: %s**\n\n", assay_report_verdict(job));
    for (size_t i = 1; i < job->n_results; i++)
        add_finding(job, job->results[i], out);
    assay_buf_str(out, "\nKey findings:\n\n");
    for (size_t i = 0; i < assessment->findings.count; i++)
        assay_buf_printf(out, "* %s\n", assessment->findings.at[i]);
    if (job->partial) {
        assay_buf_str(out, "\n");
        return;
    }
    assay_buf_str(out,
                  "\nPASS: the 95 % interval of every gated figure lies within its threshold. FAIL: one lies beyond. "
                  "INCONCLUSIVE: the data do not decide.\n\n");
}

/* --- what ran where --- */

static void add_environment(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Environment\n\n");
    assay_grid_environment(report, &grid);
    add_grid(out, &grid);
}

static void add_processes(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    if (!report->services)
        return;
    assay_buf_str(out, "## Processes\n\n");
    assay_grid_processes(report, &grid);
    add_grid(out, &grid);
}

/* --- results --- */

static void add_results(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Results\n\n");
    assay_cells_results(&grid, report, ASSAY_CELLS_QUALITY | ASSAY_CELLS_COST);
    add_grid(out, &grid);
    assay_buf_str(out, "SE takes tokens as independent; the 95 % intervals are by chunks. KL bands: < 0.01 negligible, "
                       "0.01-0.05 low, 0.05-0.1 moderate, > 0.1 high.\n\n");
    assay_grid_head(&grid, "<variant|<perplexity signature|<KL signature");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantScore *score = report->job->results[i]->score;
        char text[ASSAY_SIGNATURE_MAX];
        const Assay__V1__Estimate *perplexity = score ? score->perplexity : NULL;
        const Assay__V1__Distribution *kl = score ? score->kl_nats : NULL;
        assay_grid_cell(&grid, "%s", assay_result_label(report->job->results[i]));
        assay_grid_cell(&grid, "%s", assay_signature(report, "ppl", perplexity ? perplexity->n : 0, text));
        assay_grid_cell(&grid, "%s", assay_signature(report, "kl.teacher_forced(ref||var)", kl ? kl->n : 0, text));
    }
    add_grid(out, &grid);
}

static void add_thresholds(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Thresholds\n\n");
    assay_grid_thresholds(report, &grid);
    add_grid(out, &grid);
}

/* --- weights and sizes --- */

static void add_layer_table(const Assay__V1__VariantResult *result, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    if (assay_grid_layers(result, &grid))
        add_grid(out, &grid);
}

static void add_weights(const struct assay_report *report, struct assay_buf *out)
{
    assay_buf_str(out, "## Weight accuracy by layer\n\n");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        struct assay_cosines all = assay_weight_cosines(result, ASSAY_LAYERS_ALL);
        assay_buf_printf(out, "### %s\n\n", assay_result_label(result));
        if (all.tensors == 0) {
            assay_buf_printf(out, "Not measured: %s.\n\n", assay_no_cosine_reason(result));
            continue;
        }
        assay_buf_printf(
            out, "%zu quantized tensors: mean cosine %.6f (%s), least %.6f (`%s`), precision loss %.4f %% (%s).\n\n",
            all.tensors, all.mean, assay_cosine_band(all.mean), all.min, assay_word_or(all.worst, "?"),
            (1 - all.mean) * 100, assay_precision_loss_band((1 - all.mean) * 100));
        add_layer_table(result, out);
    }
}

static void add_sizes(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Sizes by component (MB = 1,000,000 bytes of tensors)\n\n");
    assay_grid_sizes(report, &grid);
    add_grid(out, &grid);
}

/* --- what the figures mean --- */

static void add_lines(struct assay_buf *out, const char *title, const struct assay_lines *lines)
{
    if (lines->count == 0)
        return;
    assay_buf_printf(out, "%s:\n\n", title);
    for (size_t i = 0; i < lines->count; i++)
        assay_buf_printf(out, "* %s\n", lines->at[i]);
    assay_buf_str(out, "\n");
}

static void add_harm(const struct assay_assessment *assessment, struct assay_buf *out)
{
    assay_buf_str(out, "## Harm assessment\n\n");
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        assay_buf_printf(out, "### %s: %s\n\nVerdict: %s.\n\n", assay_result_label(variant->result),
                         assay_acceptance_word(variant->acceptance), variant->verdict);
        add_lines(out, "Strengths", &variant->strengths);
        add_lines(out, "Weaknesses", &variant->weaknesses);
    }
    assay_buf_str(out, "Rules:\n\n");
    for (const char *const *rule = assay_assess_rules; *rule; rule++)
        assay_buf_printf(out, "* %s\n", *rule);
    assay_buf_str(out, "\n");
}

static void add_trade_off(const struct assay_assessment *assessment, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Trade-off analysis\n\n");
    assay_grid_trade_off(assessment, &grid);
    add_grid(out, &grid);
    for (size_t i = 0; i < assessment->count; i++)
        if (assessment->variants[i].dominance)
            assay_buf_printf(out, "* %s.\n", assessment->variants[i].dominance);
    assay_buf_str(out, "\nA GB is 1e9 bytes, saved against FP16. \"-\": not measured, or the variant is not smaller "
                       "than FP16.\n\n");
}

static void add_recommendations(const struct assay_assessment *assessment, struct assay_buf *out)
{
    assay_buf_str(out, "## Recommendations\n\n");
    for (size_t i = 0; i < assessment->recommendations.count; i++)
        assay_buf_printf(out, "* %s\n", assessment->recommendations.at[i]);
    assay_buf_printf(out, "\n## Conclusion\n\n%s\n\n", assessment->conclusion);
}

static void add_numerics(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Numerics\n\n");
    assay_grid_numerics(report, &grid);
    add_grid(out, &grid);
}

/* --- the rest --- */

static void add_cost(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    const Assay__V1__Event *event = report->last_event;
    assay_buf_printf(out, "## Cost of this run\n\n%.1f s in all, scoring %.1f s.\n\n```\n", report->wall_seconds,
                     (double)report->job->score_us / 1e6);
    assay_report_cost(report, out);
    assay_buf_str(out, "```\n\n");
    if (!event || event->n_phases == 0)
        return;
    assay_grid_phases(event, &grid);
    add_grid(out, &grid);
}

static void add_unmeasured(struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Not measured\n\n");
    assay_grid_unmeasured(&grid);
    add_grid(out, &grid);
}

static void add_files(const struct assay_report *report, struct assay_buf *out)
{
    char name[ASSAY_REPORT_NAME_MAX];
    assay_buf_str(out, "## Files generated\n\n");
    for (size_t i = 0; i < report->job->n_results; i++)
        assay_buf_printf(out, "* `%s`\n", assay_report_file_name(report, i, name));
    assay_buf_str(out, "* `" ASSAY_REPORT_JSON_NAME "`\n* `" ASSAY_REPORT_MARKDOWN_NAME "`\n* `" ASSAY_REPORT_HTML_NAME
                       "`\n");
}

void assay_report_markdown(const struct assay_report *report, const struct assay_assessment *assessment,
                           struct assay_buf *out)
{
    const Assay__V1__SubmitJobRequest *request = report->job->request;
    const char *model = request ? assay_word_or(request->model_dir, "?") : "?";
    assay_buf_printf(out, "# Quantization evaluation: %s\n\n", assay_word_or(request ? request->name : NULL, model));
    if (report->job->partial) {
        assay_buf_str(out, "**PARTIAL RESULT:** ");
        assay_report_coverage(report->job, out);
        assay_buf_str(out, ".\n\n" ASSAY_PARTIAL_NOTE "\n\n");
    }
    add_summary(report, assessment, out);
    add_results(report, out);
    if (!report->job->partial) {
        add_thresholds(report, out);
        add_harm(assessment, out);
        add_trade_off(assessment, out);
    }
    add_recommendations(assessment, out);
    add_sizes(report, out);
    add_weights(report, out);
    add_numerics(report, out);
    add_environment(report, out);
    add_processes(report, out);
    add_cost(report, out);
    add_unmeasured(out);
    add_files(report, out);
}
