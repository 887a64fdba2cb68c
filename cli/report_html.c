#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report_cells.h"
#include "cli/report_grids.h"
#include "cli/report_plots.h"
#include "cli/report_svg.h"
#include "cli/words.h"
#include "common/base/version.h"

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:70rem;margin:2rem auto;padding:0 "
    "1rem}"
    "h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-bottom:1px solid "
    "#ddd;padding-bottom:.2rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}"
    "table{border-collapse:collapse;font-size:.86rem;display:block;overflow-x:auto;margin:.6rem 0}"
    "th,td{padding:.28rem .6rem;border-bottom:1px solid #e4e4e4;vertical-align:top}th{background:#f6f6f6;"
    "text-align:left}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "figure{margin:1.2rem 0}figcaption{font-weight:600;margin-bottom:.3rem}svg{max-width:100%;height:auto}"
    ".legend span{margin-right:1rem;white-space:nowrap}.legend i{display:inline-block;width:.8rem;height:.8rem;"
    "border-radius:50%;margin-right:.35rem;vertical-align:-.08rem}.note,.legend{color:#555;font-size:.86rem}"
    ".missing{color:#8a5300}.verdict{display:inline-block;padding:.1rem .7rem;border-radius:.3rem;font-weight:600}"
    ".PASS{background:#d9f2e3;color:#0b5a2c}.FAIL{background:#fbdcd6;color:#8c1d07}"
    ".INCONCLUSIVE,.PARTIAL{background:#fdf0cc;color:#6b4a00}ul{margin:.2rem 0 .6rem;padding-left:1.3rem}"
    "@media print{body{margin:0}}";

static void heading(struct assay_buf *out, int level, const char *text)
{
    assay_buf_printf(out, "<h%d>", level);
    assay_html_text(out, text);
    assay_buf_printf(out, "</h%d>\n", level);
}

static void paragraph(struct assay_buf *out, const char *class, const char *text)
{
    assay_buf_printf(out, "<p%s%s%s>", class ? " class=\"" : "", class ? class : "", class ? "\"" : "");
    assay_html_text(out, text);
    assay_buf_str(out, "</p>\n");
}

static void list(struct assay_buf *out, const char *const *lines, size_t count)
{
    if (count == 0)
        return;
    assay_buf_str(out, "<ul>\n");
    for (size_t i = 0; i < count; i++) {
        assay_buf_str(out, "<li>");
        assay_html_text(out, lines[i]);
        assay_buf_str(out, "</li>\n");
    }
    assay_buf_str(out, "</ul>\n");
}

/* Takes the grid over. */
static void table(struct assay_buf *out, struct assay_grid *grid)
{
    assay_buf_str(out, "<table>\n");
    for (size_t row = 0; row < grid->rows; row++) {
        const char *tag = row == 0 ? "th" : "td";
        assay_buf_str(out, "<tr>");
        for (size_t column = 0; column < grid->columns; column++) {
            size_t index = row * grid->columns + column;
            assay_buf_printf(out, "<%s%s>", tag, grid->left[column] ? "" : " class=\"n\"");
            assay_html_text(out, index < grid->at ? grid->cells[index] : "");
            assay_buf_printf(out, "</%s>", tag);
        }
        assay_buf_str(out, "</tr>\n");
    }
    assay_buf_str(out, "</table>\n");
    out->failed = out->failed || grid->failed;
    assay_grid_release(grid);
}

static void add_coverage(const Assay__V1__Job *job, struct assay_buf *out)
{
    assay_auto(assay_buf_release) struct assay_buf coverage = ASSAY_BUF_INIT;
    assay_report_coverage(job, &coverage);
    out->failed = out->failed || coverage.failed;
    assay_buf_str(out, "<p class=\"missing\"><strong>PARTIAL RESULT:</strong> ");
    assay_html_text(out, assay_buf_cstr(&coverage));
    assay_buf_str(out, ".</p>\n");
    paragraph(out, "missing", ASSAY_PARTIAL_NOTE);
}

static void add_summary(const struct assay_report *report, const struct assay_assessment *assessment,
                        struct assay_buf *out)
{
    const char *verdict = assay_report_verdict(report->job);
    assay_buf_printf(out, "<p><span class=\"verdict %s\">%s</span></p>\n", verdict, verdict);
    paragraph(out, NULL, assessment->conclusion);
    heading(out, 2, "Key findings");
    list(out, assessment->findings.at, assessment->findings.count);
    heading(out, 2, "Recommendations");
    list(out, assessment->recommendations.at, assessment->recommendations.count);
}

static void add_results(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid quality = ASSAY_GRID_INIT, cost = ASSAY_GRID_INIT, thresholds = ASSAY_GRID_INIT;
    heading(out, 2, "Results");
    assay_cells_results(&quality, report, ASSAY_CELLS_QUALITY);
    table(out, &quality);
    assay_cells_results(&cost, report, ASSAY_CELLS_COST);
    table(out, &cost);
    paragraph(out, "note",
              "SE takes tokens as independent; the 95 % intervals are by chunk. KL bands: < 0.01 negligible, 0.01-0.05 "
              "low, 0.05-0.1 moderate, > 0.1 high. \"-\": not measured; the reasons are in the JSON files.");
    if (report->job->partial)
        return;
    heading(out, 2, "Thresholds");
    assay_grid_thresholds(report, &thresholds);
    table(out, &thresholds);
    paragraph(out, "note",
              "PASS: the 95 % interval of every gated figure lies within its threshold. FAIL: one lies beyond. "
              "INCONCLUSIVE: the data do not decide.");
}

static void add_plots(const struct assay_report *report, const struct assay_assessment *assessment,
                      struct assay_buf *out)
{
    heading(out, 2, "Plots");
    if (!report->job->partial)
        assay_plot_trade_off(assessment, out);
    assay_plot_increase(report, out);
    assay_plot_kl_percentiles(report, out);
    assay_plot_chunks(report, out);
    assay_plot_weights(report, out);
}

static void add_harm(const struct assay_assessment *assessment, struct assay_buf *out)
{
    size_t rules = 0;
    heading(out, 2, "Harm assessment");
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        char title[240];
        snprintf(title, sizeof title, "%.160s: %s", assay_result_label(variant->result),
                 assay_acceptance_word(variant->acceptance));
        heading(out, 3, title);
        paragraph(out, NULL, variant->verdict);
        if (variant->strengths.count > 0)
            paragraph(out, "note", "Strengths");
        list(out, variant->strengths.at, variant->strengths.count);
        if (variant->weaknesses.count > 0)
            paragraph(out, "note", "Weaknesses");
        list(out, variant->weaknesses.at, variant->weaknesses.count);
    }
    while (assay_assess_rules[rules])
        rules++;
    heading(out, 3, "Rules");
    list(out, assay_assess_rules, rules);
}

static void add_trade_off(const struct assay_report *report, const struct assay_assessment *assessment,
                          struct assay_buf *out)
{
    struct assay_grid trade = ASSAY_GRID_INIT, sizes = ASSAY_GRID_INIT;
    if (!report->job->partial) {
        heading(out, 2, "Trade-off analysis");
        assay_grid_trade_off(assessment, &trade);
        table(out, &trade);
    }
    for (size_t i = 0; i < assessment->count; i++)
        if (assessment->variants[i].dominance)
            paragraph(out, NULL, assessment->variants[i].dominance);
    heading(out, 2, "Sizes by component (MB = 1,000,000 bytes of tensors)");
    assay_grid_sizes(report, &sizes);
    table(out, &sizes);
}

static void add_weights(const struct assay_report *report, struct assay_buf *out)
{
    heading(out, 2, "Weight accuracy by layer");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        struct assay_grid grid = ASSAY_GRID_INIT;
        heading(out, 3, assay_result_label(result));
        if (assay_grid_layers(result, &grid)) {
            table(out, &grid);
            continue;
        }
        assay_buf_str(out, "<p class=\"missing\">Not measured: ");
        assay_html_text(out, assay_no_cosine_reason(result));
        assay_buf_str(out, "</p>\n");
    }
}

static void add_circumstances(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid numerics = ASSAY_GRID_INIT, environment = ASSAY_GRID_INIT, unmeasured = ASSAY_GRID_INIT;
    heading(out, 2, "Numerics");
    assay_grid_numerics(report, &numerics);
    table(out, &numerics);
    heading(out, 2, "Environment");
    assay_grid_environment(report, &environment);
    table(out, &environment);
    if (report->services) {
        struct assay_grid processes = ASSAY_GRID_INIT;
        heading(out, 2, "Processes");
        assay_grid_processes(report, &processes);
        table(out, &processes);
    }
    if (report->last_event && report->last_event->n_phases > 0) {
        struct assay_grid phases = ASSAY_GRID_INIT;
        heading(out, 2, "Cost of this run");
        assay_grid_phases(report->last_event, &phases);
        table(out, &phases);
    }
    heading(out, 2, "Not measured");
    assay_grid_unmeasured(&unmeasured);
    table(out, &unmeasured);
}

void assay_report_html(const struct assay_report *report, const struct assay_assessment *assessment,
                       struct assay_buf *out)
{
    const Assay__V1__SubmitJobRequest *request = report->job->request;
    const char *model = request ? assay_word_or(request->model_dir, "?") : "?";
    const char *name = assay_word_or(request ? request->name : NULL, model);
    assay_buf_str(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                       "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>");
    assay_buf_str(out, report->job->partial ? "PARTIAL: " : "");
    assay_html_text(out, name);
    assay_buf_printf(out, " - assay</title>\n<style>%s</style>\n</head>\n<body>\n<h1>Quantization evaluation: ", style);
    assay_html_text(out, name);
    assay_buf_str(out, "</h1>\n");
    if (report->job->partial)
        add_coverage(report->job, out);
    add_summary(report, assessment, out);
    add_results(report, out);
    add_plots(report, assessment, out);
    if (!report->job->partial)
        add_harm(assessment, out);
    add_trade_off(report, assessment, out);
    add_weights(report, out);
    add_circumstances(report, out);
    assay_buf_str(out, "<p class=\"note\">assay " ASSAY_VERSION "</p>\n</body>\n</html>\n");
}
