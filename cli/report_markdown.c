#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/report_cells.h"
#include "cli/words.h"
#include "common/base/version.h"

static void add_grid(struct assay_buf *out, struct assay_grid *grid)
{
    assay_grid_markdown(grid, out);
    assay_buf_str(out, "\n");
    assay_grid_release(grid);
}

static void pair(struct assay_grid *grid, const char *key, const char *value)
{
    assay_grid_cell(grid, "%s", key);
    assay_grid_cell(grid, "%s", assay_word_or(value, "-"));
}

/* --- executive summary --- */

static void add_finding(const Assay__V1__VariantResult *result, struct assay_buf *out)
{
    const Assay__V1__VariantScore *score = result->score;
    struct assay_figure increase = assay_estimate_figure(score ? score->perplexity_increase_percent : NULL);
    struct assay_figure top1 = assay_estimate_figure(score ? score->same_top1_percent : NULL);
    struct assay_figure ratio = assay_compression_ratio(result);
    struct assay_cosines cosines = assay_weight_cosines(result, ASSAY_LAYERS_ALL);
    assay_buf_printf(out, "* **%s: %s** - ", assay_result_label(result), assay_word_verdict(result->verdict));
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

static void add_summary(const struct assay_report *report, struct assay_buf *out)
{
    const Assay__V1__Job *job = report->job;
    assay_buf_printf(out, "## Executive summary\n\n**Verdict: %s**\n\n", assay_word_verdict(job->verdict));
    for (size_t i = 1; i < job->n_results; i++)
        add_finding(job->results[i], out);
    assay_buf_str(out,
                  "\nPASS: the 95 % interval of every gated figure lies within its threshold. FAIL: one lies beyond. "
                  "INCONCLUSIVE: the data do not decide.\n\n");
}

/* --- what ran where --- */

static void add_environment(const struct assay_report *report, struct assay_buf *out)
{
    const struct assay_environment *environment = report->environment;
    const Assay__V1__Job *job = report->job;
    const Assay__V1__SubmitJobRequest *request = job->request;
    struct assay_grid grid = ASSAY_GRID_INIT;
    char hex[65], text[160], time[24];
    assay_buf_str(out, "## Environment\n\n");
    assay_grid_head(&grid, "<what|<value");
    pair(&grid, "model", request ? request->model_dir : NULL);
    snprintf(text, sizeof text, "%.100s, %" PRIu64 " parameters", assay_word_or(job->architecture, "?"),
             job->parameters);
    pair(&grid, "architecture", text);
    pair(&grid, "model digest", assay_word_hex(job->model_id, 32, hex));
    pair(&grid, "corpus", request ? request->corpus_name : NULL);
    pair(&grid, "corpus digest", assay_word_hex(job->corpus_digest, 32, hex));
    pair(&grid, "tokenizer digest", assay_word_hex(job->tokenizer_digest, 32, hex));
    snprintf(text, sizeof text, "%.60s: %" PRIu64 " chunks, %" PRIu64 " scored positions, BOS %s",
             request ? assay_word_or(request->protocol, "?") : "?", job->chunks, job->scored_positions,
             job->adds_bos ? "first in each chunk" : "not added");
    pair(&grid, "protocol", text);
    for (size_t i = 0; i < job->n_results; i++) {
        snprintf(text, sizeof text, "numerics of %.60s", assay_result_label(job->results[i]));
        pair(&grid, text, job->results[i]->score ? job->results[i]->score->numerics_id : NULL);
    }
    pair(&grid, "job", assay_word_hex(job->job_id, 16, hex));
    pair(&grid, "finished", assay_word_time(job->finished_wall_ms, time));
    pair(&grid, "host", environment->host);
    pair(&grid, "system", environment->system);
    snprintf(text, sizeof text, "%s, %zu CPUs, %.1f GB", environment->cpu, environment->cpus,
             (double)environment->memory_bytes / 1e9);
    pair(&grid, "hardware", text);
    pair(&grid, "assay", ASSAY_VERSION);
    pair(&grid, "command", report->command);
    add_grid(out, &grid);
}

static void add_processes(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    if (!report->services)
        return;
    assay_buf_str(out, "## Processes\n\n");
    assay_grid_head(&grid, "<process|<precision|pid|chunks run|CPU s|resident MB");
    assay_grid_cell(&grid, "coordinator");
    assay_grid_cell(&grid, "-");
    if (report->coordinator_pid > 0)
        assay_grid_cell(&grid, "%ld", report->coordinator_pid);
    else
        assay_grid_cell(&grid, "-");
    for (int i = 0; i < 3; i++)
        assay_grid_cell(&grid, "-");
    for (size_t i = 0; i < report->services->n_services; i++) {
        const Assay__V1__ServiceInfo *service = report->services->services[i];
        if (!service->registration)
            continue;
        pair(&grid, assay_word_service_kind(service->registration->kind), service->registration->precision);
        assay_grid_cell(&grid, "%" PRIu32, service->registration->pid);
        assay_grid_cell(&grid, "%" PRIu64, service->counters ? service->counters->chunks_run : 0);
        assay_grid_cell(&grid, "%.1f", service->counters ? (double)service->counters->cpu_ms / 1e3 : 0.0);
        assay_grid_cell(&grid, "%.1f", service->counters ? (double)service->counters->rss_bytes / 1e6 : 0.0);
    }
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
    assay_grid_head(&grid, "<variant|<criterion|value [95 %]|threshold|<verdict|<plain point rule");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        for (size_t k = 0; k < result->n_criteria; k++) {
            const Assay__V1__CriterionResult *criterion = result->criteria[k];
            pair(&grid, assay_result_label(result), criterion->name);
            if (criterion->has_value && criterion->has_interval_low && criterion->has_interval_high)
                assay_grid_cell(&grid, "%.6g [%.6g, %.6g]", criterion->value, criterion->interval_low,
                                criterion->interval_high);
            else if (criterion->has_value)
                assay_grid_cell(&grid, "%.6g", criterion->value);
            else
                assay_grid_cell(&grid, "not measured: %s", assay_word_or(criterion->missing, "no reason given"));
            assay_grid_cell(&grid, "%s %.6g", assay_criterion_relation(criterion), criterion->threshold);
            assay_grid_cell(&grid, "%s", assay_word_verdict(criterion->verdict));
            assay_grid_cell(&grid, "%s",
                            !criterion->has_value || !criterion->has_point_pass ? "-"
                            : criterion->point_pass                             ? "pass"
                                                                                : "fail");
        }
    }
    add_grid(out, &grid);
}

/* --- weights and sizes --- */

static void add_layer_table(const Assay__V1__VariantResult *result, struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    int32_t first, last;
    if (!assay_weight_layers(result, &first, &last))
        return;
    assay_grid_head(&grid, "layer|tensors|mean cosine|least cosine|precision loss %|<band|<worst tensor");
    for (int32_t layer = first; layer <= last; layer++) {
        struct assay_cosines cosines = assay_weight_cosines(result, layer);
        if (cosines.tensors == 0)
            continue;
        double loss = (1 - cosines.mean) * 100;
        assay_grid_cell(&grid, "%" PRId32, layer);
        assay_grid_cell(&grid, "%zu", cosines.tensors);
        assay_grid_cell(&grid, "%.6f", cosines.mean);
        assay_grid_cell(&grid, "%.6f", cosines.min);
        assay_grid_cell(&grid, "%.4f (%s)", loss, assay_precision_loss_band(loss));
        pair(&grid, assay_cosine_band(cosines.mean), cosines.worst);
    }
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

static void cell_megabytes(struct assay_grid *grid, bool has, uint64_t bytes)
{
    if (has)
        assay_grid_cell(grid, "%.3f", (double)bytes / 1e6);
    else
        assay_grid_cell(grid, "-");
}

static void add_sizes(const struct assay_report *report, struct assay_buf *out)
{
    static const Assay__V1__ArtifactSummary none = ASSAY__V1__ARTIFACT_SUMMARY__INIT;
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Sizes by component (MB = 1,000,000 bytes of tensors)\n\n");
    assay_grid_head(&grid, "<variant|FP16|artifact|codes|scales|kept as they were|FP16 / artifact|dPPL % per GB saved|"
                           "worker resident MB");
    for (size_t i = 0; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        const Assay__V1__ArtifactSummary *artifact = result->artifact ? result->artifact : &none;
        struct assay_figure rss = assay_worker_rss(report, result);
        rss.value /= 1e6;
        assay_grid_cell(&grid, "%s", assay_result_label(result));
        cell_megabytes(&grid, artifact->has_fp16_bytes, artifact->fp16_bytes);
        cell_megabytes(&grid, artifact->has_artifact_bytes, artifact->artifact_bytes);
        cell_megabytes(&grid, artifact->has_code_bytes, artifact->code_bytes);
        cell_megabytes(&grid, artifact->has_scale_bytes, artifact->scale_bytes);
        cell_megabytes(&grid, artifact->has_kept_bytes, artifact->kept_bytes);
        assay_cell_figure(&grid, assay_compression_ratio(result), 3);
        if (i == 0)
            assay_grid_cell(&grid, "-");
        else
            assay_cell_figure(&grid, assay_increase_per_gb_saved(result), 3);
        assay_cell_figure(&grid, rss, 1);
    }
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
    assay_grid_head(&grid, "<phase|done|from the cache|of|seconds");
    for (size_t i = 0; i < event->n_phases; i++) {
        const Assay__V1__Phase *phase = event->phases[i];
        assay_grid_cell(&grid, "%s", assay_word_or(phase->name, "?"));
        assay_grid_cell(&grid, "%" PRIu64, phase->done);
        assay_grid_cell(&grid, "%" PRIu64, phase->cached);
        assay_grid_cell(&grid, "%" PRIu64 " %s", phase->total, assay_word_or(phase->unit, ""));
        assay_grid_cell(&grid, "%.1f", (double)phase->elapsed_ms / 1e3);
    }
    add_grid(out, &grid);
}

static void add_unmeasured(struct assay_buf *out)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    assay_buf_str(out, "## Not measured\n\n");
    assay_grid_head(&grid, "<metric|<reason");
    for (const struct assay_unmeasured *row = assay_unmeasured; row->metric; row++)
        pair(&grid, row->metric, row->reason);
    add_grid(out, &grid);
}

static void add_files(const struct assay_report *report, struct assay_buf *out)
{
    char name[ASSAY_REPORT_NAME_MAX];
    assay_buf_str(out, "## Files generated\n\n");
    for (size_t i = 0; i < report->job->n_results; i++)
        assay_buf_printf(out, "* `%s`\n", assay_report_file_name(report, i, name));
    assay_buf_str(out, "* `" ASSAY_REPORT_JSON_NAME "`\n* `" ASSAY_REPORT_MARKDOWN_NAME "`\n");
}

void assay_report_markdown(const struct assay_report *report, struct assay_buf *out)
{
    const Assay__V1__SubmitJobRequest *request = report->job->request;
    const char *model = request ? assay_word_or(request->model_dir, "?") : "?";
    assay_buf_printf(out, "# Quantization evaluation: %s\n\n", assay_word_or(request ? request->name : NULL, model));
    add_summary(report, out);
    add_environment(report, out);
    add_processes(report, out);
    add_results(report, out);
    add_thresholds(report, out);
    add_weights(report, out);
    add_sizes(report, out);
    add_cost(report, out);
    add_unmeasured(out);
    add_files(report, out);
}
