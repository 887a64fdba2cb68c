#include "cli/report_grids.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/report_cells.h"
#include "cli/words.h"
#include "common/base/version.h"

static void pair(struct assay_grid *grid, const char *key, const char *value)
{
    assay_grid_cell(grid, "%s", key);
    assay_grid_cell(grid, "%s", assay_word_or(value, "-"));
}

void assay_grid_environment(const struct assay_report *report, struct assay_grid *grid)
{
    const struct assay_environment *environment = report->environment;
    const Assay__V1__Job *job = report->job;
    const Assay__V1__SubmitJobRequest *request = job->request;
    char hex[65], text[160], time[24];
    assay_grid_head(grid, "<what|<value");
    pair(grid, "model", request ? request->model_dir : NULL);
    snprintf(text, sizeof text, "%.100s, %" PRIu64 " parameters", assay_word_or(job->architecture, "?"),
             job->parameters);
    pair(grid, "architecture", text);
    pair(grid, "model digest", assay_word_hex(job->model_id, 32, hex));
    pair(grid, "corpus", request ? request->corpus_name : NULL);
    pair(grid, "corpus digest", assay_word_hex(job->corpus_digest, 32, hex));
    pair(grid, "tokenizer digest", assay_word_hex(job->tokenizer_digest, 32, hex));
    const char *bos = assay_report_bos(job);
    snprintf(text, sizeof text, "%.60s: %" PRIu64 " chunks, %" PRIu64 " scored positions, BOS %s",
             request ? assay_word_or(request->protocol, "?") : "?", job->chunks, job->scored_positions,
             strcmp(bos, "each") == 0   ? "first in each chunk"
             : strcmp(bos, "once") == 0 ? "first in the text, so in the first chunk alone"
                                        : "not added");
    pair(grid, "protocol", text);
    pair(grid, "job", assay_word_hex(job->job_id, 16, hex));
    pair(grid, "finished", assay_word_time(job->finished_wall_ms, time));
    pair(grid, "host", environment->host);
    pair(grid, "system", environment->system);
    snprintf(text, sizeof text, "%s, %zu CPUs, %.1f GB", environment->cpu, environment->cpus,
             (double)environment->memory_bytes / 1e9);
    pair(grid, "hardware", text);
    pair(grid, "assay", ASSAY_VERSION);
    pair(grid, "command", report->command);
}

void assay_grid_processes(const struct assay_report *report, struct assay_grid *grid)
{
    assay_grid_head(grid, "<process|<precision|pid|chunks run|CPU s|resident MB");
    assay_grid_cell(grid, "coordinator");
    assay_grid_cell(grid, "-");
    if (report->coordinator_pid > 0)
        assay_grid_cell(grid, "%ld", report->coordinator_pid);
    else
        assay_grid_cell(grid, "-");
    for (int i = 0; i < 3; i++)
        assay_grid_cell(grid, "-");
    for (size_t i = 0; i < report->services->n_services; i++) {
        const Assay__V1__ServiceInfo *service = report->services->services[i];
        if (!service->registration)
            continue;
        pair(grid, assay_word_service_kind(service->registration->kind), service->registration->precision);
        assay_grid_cell(grid, "%" PRIu32, service->registration->pid);
        assay_grid_cell(grid, "%" PRIu64, service->counters ? service->counters->chunks_run : 0);
        assay_grid_cell(grid, "%.1f", service->counters ? (double)service->counters->cpu_ms / 1e3 : 0.0);
        assay_grid_cell(grid, "%.1f", service->counters ? (double)service->counters->rss_bytes / 1e6 : 0.0);
    }
}

void assay_grid_thresholds(const struct assay_report *report, struct assay_grid *grid)
{
    assay_grid_head(grid, "<variant|<criterion|value [95 %]|threshold|<verdict|<plain point rule");
    for (size_t i = 1; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        for (size_t k = 0; k < result->n_criteria; k++) {
            const Assay__V1__CriterionResult *criterion = result->criteria[k];
            pair(grid, assay_result_label(result), criterion->name);
            if (criterion->has_value && criterion->has_interval_low && criterion->has_interval_high)
                assay_grid_cell(grid, "%.6g [%.6g, %.6g]", criterion->value, criterion->interval_low,
                                criterion->interval_high);
            else if (criterion->has_value)
                assay_grid_cell(grid, "%.6g", criterion->value);
            else
                assay_grid_cell(grid, "not measured: %s", assay_word_or(criterion->missing, "no reason given"));
            assay_grid_cell(grid, "%s %.6g", assay_criterion_relation(criterion), criterion->threshold);
            assay_grid_cell(grid, "%s", assay_word_verdict(criterion->verdict));
            assay_grid_cell(grid, "%s",
                            !criterion->has_value || !criterion->has_point_pass ? "-"
                            : criterion->point_pass                             ? "pass"
                                                                                : "fail");
        }
    }
}

bool assay_grid_layers(const Assay__V1__VariantResult *result, struct assay_grid *grid)
{
    int32_t first, last;
    if (!assay_weight_layers(result, &first, &last))
        return false;
    assay_grid_head(grid, "layer|tensors|mean cosine|least cosine|precision loss %|<band|<worst tensor");
    for (int32_t layer = first; layer <= last; layer++) {
        struct assay_cosines cosines = assay_weight_cosines(result, layer);
        if (cosines.tensors == 0)
            continue;
        double loss = (1 - cosines.mean) * 100;
        assay_grid_cell(grid, "%" PRId32, layer);
        assay_grid_cell(grid, "%zu", cosines.tensors);
        assay_grid_cell(grid, "%.6f", cosines.mean);
        assay_grid_cell(grid, "%.6f", cosines.min);
        assay_grid_cell(grid, "%.4f (%s)", loss, assay_precision_loss_band(loss));
        pair(grid, assay_cosine_band(cosines.mean), cosines.worst);
    }
    return true;
}

static void cell_megabytes(struct assay_grid *grid, bool has, uint64_t bytes)
{
    if (has)
        assay_grid_cell(grid, "%.3f", (double)bytes / 1e6);
    else
        assay_grid_cell(grid, "-");
}

void assay_grid_sizes(const struct assay_report *report, struct assay_grid *grid)
{
    static const Assay__V1__ArtifactSummary none = ASSAY__V1__ARTIFACT_SUMMARY__INIT;
    assay_grid_head(grid, "<variant|FP16|artifact|codes|scales|kept as they were|FP16 / artifact|dPPL % per GB saved|"
                          "worker resident MB");
    for (size_t i = 0; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        const Assay__V1__ArtifactSummary *artifact = result->artifact ? result->artifact : &none;
        struct assay_figure rss = assay_worker_rss(report, result);
        rss.value /= 1e6;
        assay_grid_cell(grid, "%s", assay_result_label(result));
        cell_megabytes(grid, artifact->has_fp16_bytes, artifact->fp16_bytes);
        cell_megabytes(grid, artifact->has_artifact_bytes, artifact->artifact_bytes);
        cell_megabytes(grid, artifact->has_code_bytes, artifact->code_bytes);
        cell_megabytes(grid, artifact->has_scale_bytes, artifact->scale_bytes);
        cell_megabytes(grid, artifact->has_kept_bytes, artifact->kept_bytes);
        assay_cell_figure(grid, assay_compression_ratio(result), 3);
        if (i == 0)
            assay_grid_cell(grid, "-");
        else
            assay_cell_figure(grid, assay_increase_per_gb_saved(result), 3);
        assay_cell_figure(grid, rss, 1);
    }
}

void assay_grid_phases(const Assay__V1__Event *event, struct assay_grid *grid)
{
    assay_grid_head(grid, "<phase|done|from the cache|of|seconds");
    for (size_t i = 0; i < event->n_phases; i++) {
        const Assay__V1__Phase *phase = event->phases[i];
        assay_grid_cell(grid, "%s", assay_word_or(phase->name, "?"));
        assay_grid_cell(grid, "%" PRIu64, phase->done);
        assay_grid_cell(grid, "%" PRIu64, phase->cached);
        assay_grid_cell(grid, "%" PRIu64 " %s", phase->total, assay_word_or(phase->unit, ""));
        assay_grid_cell(grid, "%.1f", (double)phase->elapsed_ms / 1e3);
    }
}

void assay_grid_unmeasured(struct assay_grid *grid)
{
    assay_grid_head(grid, "<metric|<reason");
    for (const struct assay_unmeasured *row = assay_unmeasured; row->metric; row++)
        pair(grid, row->metric, row->reason);
}

/* --- numerics --- */

/* What the weights of a scheme are made of. */
static const struct {
    const char *scheme, *weights, *compute;
} schemes[] = {
    {"fp32", "F32", "f32"},
    {"fp16", "F16", "f32"},
    {"bf16", "BF16", "bf16"},
    {"int8", "I8 codes, one scale a row", "f32"},
    {"int4", "I4 codes, scale and zero point by group", "f32"},
    {"nf4", "NF4 codes by block of 64, quantized scales", "f32"},
};

static void cell_records(struct assay_grid *grid, const Assay__V1__VariantScore *score)
{
    if (!score || !score->has_record_dtype || score->record_dtype != ASSAY__V1__DTYPE__DTYPE_F16)
        assay_grid_cell(grid, "f32");
    else if (score->has_record_kl_error_mean_nats && score->has_record_kl_error_max_nats)
        assay_grid_cell(grid, "f16: KL off by %.2g nats on average, %.2g at most, at %" PRIu64 " positions",
                        score->record_kl_error_mean_nats, score->record_kl_error_max_nats, score->record_kl_error_n);
    else if (score->record_kl_error_missing)
        assay_grid_cell(grid, "f16: error of KL not measured: %s", score->record_kl_error_missing);
    else
        assay_grid_cell(grid, "f16");
}

void assay_grid_numerics(const struct assay_report *report, struct assay_grid *grid)
{
    assay_grid_head(grid, "<variant|<weights|<inputs of products|<accumulation|<figures|<records|<numerics id");
    for (size_t i = 0; i < report->job->n_results; i++) {
        const Assay__V1__VariantResult *result = report->job->results[i];
        const Assay__V1__VariantSpec *spec = result->variant ? result->variant->spec : NULL;
        const char *weights = spec ? spec->scheme : NULL, *compute = NULL;
        for (size_t k = 0; k < ASSAY_COUNT(schemes) && weights && !compute; k++)
            if (strcmp(schemes[k].scheme, weights) == 0) {
                weights = schemes[k].weights;
                compute = schemes[k].compute;
            }
        if (spec && spec->compute && spec->compute[0])
            compute = spec->compute;
        pair(grid, assay_result_label(result), weights);
        pair(grid, assay_word_or(compute, "-"), "f32");
        assay_grid_cell(grid, "f64");
        cell_records(grid, result->score);
        assay_grid_cell(grid, "%s", assay_word_or(result->score ? result->score->numerics_id : NULL, "-"));
    }
}

/* --- trade-off --- */

void assay_grid_trade_off(const struct assay_assessment *assessment, struct assay_grid *grid)
{
    assay_grid_head(
        grid, "<variant|<acceptable?|GB saved against FP16|dPPL % per GB saved|KL nats per GB saved|<dominated by");
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        pair(grid, assay_result_label(variant->result), assay_acceptance_word(variant->acceptance));
        assay_cell_figure(grid, variant->saved_gb, 6);
        assay_cell_figure(grid, variant->increase_per_gb, 3);
        assay_cell_small(grid, variant->kl_per_gb.present, variant->kl_per_gb.value);
        assay_grid_cell(grid, "%s",
                        variant->dominated_by == ASSAY_NOT_DOMINATED
                            ? "-"
                            : assay_result_label(assessment->variants[variant->dominated_by].result));
    }
}
