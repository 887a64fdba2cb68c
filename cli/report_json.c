#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/report_assess.h"
#include "cli/words.h"
#include "common/base/version.h"

#define DIGEST_BYTES 32

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (text && text[0])
        cJSON_AddStringToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

/* cJSON drops the last bit of some numbers (it compares with a tolerance); these read back exactly. */
static cJSON *exact_number(double value)
{
    char text[32];
    if (!isfinite(value))
        return cJSON_CreateNull();
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof text, "%.17g", value);
    return cJSON_CreateRaw(text);
}

static void add_number(cJSON *object, const char *key, double value)
{
    cJSON_AddItemToObject(object, key, exact_number(value));
}

static void add_digest(cJSON *object, const char *key, ProtobufCBinaryData bytes)
{
    char hex[2 * DIGEST_BYTES + 1];
    add_text(object, key, assay_word_hex(bytes, DIGEST_BYTES, hex));
}

/* null and "KEY_missing": reason where there is no figure. */
static void add_figure(cJSON *object, const char *key, struct assay_figure figure)
{
    char reason_key[64];
    if (figure.present) {
        add_number(object, key, figure.value);
        return;
    }
    snprintf(reason_key, sizeof reason_key, "%s_missing", key);
    cJSON_AddNullToObject(object, key);
    cJSON_AddStringToObject(object, reason_key, figure.missing);
}

static void add_optional(cJSON *object, const char *key, bool has, double value)
{
    add_figure(object, key,
               has && isfinite(value) ? (struct assay_figure){.present = true, .value = value}
                                      : (struct assay_figure){.missing = has ? "the figure is not a finite number"
                                                                             : "the evaluator sent no such figure"});
}

static void add_interval(cJSON *object, bool has, double low, double high)
{
    if (has && isfinite(low) && isfinite(high)) {
        cJSON *ends = cJSON_AddArrayToObject(object, "interval_95");
        cJSON_AddItemToArray(ends, exact_number(low));
        cJSON_AddItemToArray(ends, exact_number(high));
        return;
    }
    cJSON_AddNullToObject(object, "interval_95");
    cJSON_AddStringToObject(object, "interval_95_missing",
                            has ? "an end is not a finite number" : "the evaluator sent no interval");
}

static void add_signature(cJSON *object, const struct assay_report *report, const char *metric, uint64_t n)
{
    char text[ASSAY_SIGNATURE_MAX];
    cJSON_AddStringToObject(object, "signature", assay_signature(report, metric, n, text));
}

static void add_estimate(cJSON *metrics, const struct assay_report *report, const char *key, const char *metric,
                         const char *unit, const Assay__V1__Estimate *estimate)
{
    cJSON *object = cJSON_AddObjectToObject(metrics, key);
    struct assay_figure figure = assay_estimate_figure(estimate);
    add_figure(object, "value", figure);
    cJSON_AddStringToObject(object, "unit", unit);
    if (figure.present) {
        add_optional(object, "standard_error", estimate->has_standard_error, estimate->standard_error);
        add_interval(object, estimate->has_interval_low && estimate->has_interval_high, estimate->interval_low,
                     estimate->interval_high);
        add_optional(object, "n", estimate->has_n, (double)estimate->n);
    }
    add_signature(object, report, metric, figure.present ? estimate->n : 0);
}

static void add_kl(cJSON *metrics, const struct assay_report *report, const Assay__V1__VariantScore *score,
                   bool reference)
{
    cJSON *object = cJSON_AddObjectToObject(metrics, "kl_nats");
    const Assay__V1__Distribution *kl = score ? score->kl_nats : NULL;
    cJSON_AddStringToObject(object, "unit", "nats");
    add_signature(object, report, "kl.teacher_forced(ref||var)", kl ? kl->n : 0);
    if (!kl) {
        add_figure(object, "mean",
                   (struct assay_figure){.missing = reference ? "it is the reference itself"
                                                              : "the evaluator sent no such figure"});
        return;
    }
    add_optional(object, "mean", kl->has_mean, kl->mean);
    add_optional(object, "standard_error", kl->has_standard_error, kl->standard_error);
    add_interval(object, kl->has_interval_low && kl->has_interval_high, kl->interval_low, kl->interval_high);
    add_optional(object, "median", kl->has_median, kl->median);
    add_optional(object, "p90", kl->has_p90, kl->p90);
    add_optional(object, "p95", kl->has_p95, kl->p95);
    add_optional(object, "p99", kl->has_p99, kl->p99);
    add_optional(object, "min", kl->has_min, kl->min);
    add_optional(object, "max", kl->has_max, kl->max);
    add_optional(object, "n", kl->has_n, (double)kl->n);
    if (kl->has_mean && isfinite(kl->mean))
        cJSON_AddStringToObject(object, "band", assay_kl_band(kl->mean));
    cJSON *chunks = cJSON_AddArrayToObject(object, "mean_by_chunk");
    for (size_t i = 0; i < score->n_chunk_kl_nats; i++)
        cJSON_AddItemToArray(chunks, exact_number(score->chunk_kl_nats[i]));
}

static void add_cosine_of(cJSON *object, struct assay_cosines cosines)
{
    double loss = (1 - cosines.mean) * 100;
    add_number(object, "tensors", (double)cosines.tensors);
    add_number(object, "mean", cosines.mean);
    add_number(object, "min", cosines.min);
    add_text(object, "worst_tensor", cosines.worst);
    cJSON_AddStringToObject(object, "band", assay_cosine_band(cosines.mean));
    add_number(object, "precision_loss_percent", loss);
    cJSON_AddStringToObject(object, "precision_loss_band", assay_precision_loss_band(loss));
}

static void add_tensors(cJSON *object, const Assay__V1__ArtifactSummary *artifact)
{
    cJSON *tensors = cJSON_AddArrayToObject(object, "by_tensor");
    for (size_t i = 0; i < artifact->n_layer_errors; i++) {
        const Assay__V1__LayerError *error = artifact->layer_errors[i];
        cJSON *tensor = cJSON_CreateObject();
        add_text(tensor, "tensor", error->tensor);
        add_number(tensor, "layer", error->layer);
        add_optional(tensor, "cosine", error->has_cosine, error->cosine);
        if (error->has_cosine && isfinite(error->cosine))
            cJSON_AddStringToObject(tensor, "band", assay_cosine_band(error->cosine));
        add_optional(tensor, "relative_frobenius", error->has_relative_frobenius, error->relative_frobenius);
        add_optional(tensor, "max_abs", error->has_max_abs, error->max_abs);
        add_optional(tensor, "elements", error->has_elements, (double)error->elements);
        cJSON_AddItemToArray(tensors, tensor);
    }
}

static void add_weights(cJSON *metrics, const Assay__V1__VariantResult *result)
{
    cJSON *object = cJSON_AddObjectToObject(metrics, "weight_cosine");
    struct assay_cosines all = assay_weight_cosines(result, ASSAY_LAYERS_ALL);
    int32_t first, last;
    cJSON_AddStringToObject(object, "signature", "weight.cosine|flattened tensor|quantized tensors only|acc:f64|v:1");
    if (all.tensors == 0) {
        add_figure(object, "mean", (struct assay_figure){.missing = assay_no_cosine_reason(result)});
        return;
    }
    add_cosine_of(object, all);
    cJSON *layers = cJSON_AddArrayToObject(object, "by_layer");
    for (int32_t layer = 0; assay_weight_layers(result, &first, &last) && layer <= last; layer++) {
        struct assay_cosines cosines = assay_weight_cosines(result, layer);
        if (cosines.tensors == 0)
            continue;
        cJSON *row = cJSON_CreateObject();
        add_number(row, "layer", layer);
        add_cosine_of(row, cosines);
        cJSON_AddItemToArray(layers, row);
    }
    add_tensors(object, result->artifact);
}

static void add_size(cJSON *metrics, const struct assay_report *report, const Assay__V1__VariantResult *result)
{
    cJSON *object = cJSON_AddObjectToObject(metrics, "size");
    const Assay__V1__ArtifactSummary *artifact = result->artifact;
    cJSON_AddStringToObject(object, "signature", "size|tensor bytes on disk|ratio:fp16/artifact|v:1");
    if (artifact) {
        add_optional(object, "checkpoint_bytes", artifact->has_source_bytes, (double)artifact->source_bytes);
        add_optional(object, "artifact_bytes", artifact->has_artifact_bytes, (double)artifact->artifact_bytes);
        add_optional(object, "fp16_bytes", artifact->has_fp16_bytes, (double)artifact->fp16_bytes);
        add_optional(object, "code_bytes", artifact->has_code_bytes, (double)artifact->code_bytes);
        add_optional(object, "scale_bytes", artifact->has_scale_bytes, (double)artifact->scale_bytes);
        add_optional(object, "kept_bytes", artifact->has_kept_bytes, (double)artifact->kept_bytes);
        add_optional(object, "parameters", artifact->has_parameters, (double)artifact->parameters);
    }
    add_figure(object, "compression_ratio", assay_compression_ratio(result));
    add_figure(object, "perplexity_increase_percent_per_gb_saved", assay_increase_per_gb_saved(result));
    add_figure(object, "worker_resident_bytes", assay_worker_rss(report, result));
}

static void add_criteria(cJSON *object, const Assay__V1__VariantResult *result)
{
    cJSON *criteria = cJSON_AddArrayToObject(object, "criteria");
    for (size_t i = 0; i < result->n_criteria; i++) {
        const Assay__V1__CriterionResult *criterion = result->criteria[i];
        cJSON *row = cJSON_CreateObject();
        add_text(row, "name", criterion->name);
        add_text(row, "passes_when", assay_criterion_relation(criterion));
        add_optional(row, "threshold", criterion->has_threshold, criterion->threshold);
        add_figure(row, "value",
                   criterion->has_value && isfinite(criterion->value)
                       ? (struct assay_figure){.present = true, .value = criterion->value}
                       : (struct assay_figure){.missing = assay_word_or(criterion->missing, "no value was computed")});
        add_interval(row, criterion->has_interval_low && criterion->has_interval_high, criterion->interval_low,
                     criterion->interval_high);
        cJSON_AddStringToObject(row, "verdict", assay_word_verdict(criterion->verdict));
        if (criterion->has_point_pass && criterion->has_value)
            cJSON_AddBoolToObject(row, "point_rule_pass", criterion->point_pass);
        else
            cJSON_AddNullToObject(row, "point_rule_pass");
        cJSON_AddItemToArray(criteria, row);
    }
}

static void add_variant(cJSON *object, const Assay__V1__Variant *variant)
{
    cJSON *node = cJSON_AddObjectToObject(object, "variant");
    if (!variant)
        return;
    add_text(node, "label", variant->label);
    add_text(node, "scheme", variant->spec ? variant->spec->scheme : NULL);
    add_text(node, "compute", variant->spec ? variant->spec->compute : NULL);
    cJSON *parameters = cJSON_AddObjectToObject(node, "parameters");
    for (size_t i = 0; variant->spec && i < variant->spec->n_parameters; i++)
        add_text(parameters, assay_word_or(variant->spec->parameters[i]->key, "?"),
                 variant->spec->parameters[i]->value);
    add_digest(node, "variant_id", variant->variant_id);
    add_digest(node, "model_id", variant->model_id);
    add_text(node, "artifact_dir", variant->artifact_dir);
}

static void add_cost(cJSON *object, const Assay__V1__VariantResult *result)
{
    cJSON *cost = cJSON_AddObjectToObject(object, "cost");
    add_number(cost, "chunks_run", (double)result->chunks_run);
    add_number(cost, "chunks_from_cache", (double)result->chunks_cached);
    add_number(cost, "tokens_run", (double)result->tokens_run);
    add_number(cost, "compute_seconds", (double)result->compute_us / 1e6);
    add_figure(cost, "tokens_per_second", assay_tokens_per_second(result));
    if (result->artifact) {
        cJSON_AddBoolToObject(cost, "artifact_from_cache", result->artifact->was_cached);
        add_number(cost, "quantize_seconds", (double)result->artifact->wall_us / 1e6);
    }
}

/* What the records were kept as, and what that changed. */
static void add_records(cJSON *object, const Assay__V1__VariantScore *score, bool reference)
{
    static const Assay__V1__VariantScore none = ASSAY__V1__VARIANT_SCORE__INIT;
    const Assay__V1__VariantScore *from = score ? score : &none;
    bool half = from->has_record_dtype && from->record_dtype == ASSAY__V1__DTYPE__DTYPE_F16;
    const char *missing = assay_word_or(from->record_kl_error_missing, "the evaluator sent no such figure");
    cJSON *records = cJSON_AddObjectToObject(object, "records");
    cJSON_AddStringToObject(records, "dtype", half ? "f16" : "f32");
    if (!half || reference)
        return;
    add_figure(records, "kl_error_mean_nats",
               (struct assay_figure){from->has_record_kl_error_mean_nats, from->record_kl_error_mean_nats, missing});
    add_figure(records, "kl_error_max_nats",
               (struct assay_figure){from->has_record_kl_error_max_nats, from->record_kl_error_max_nats, missing});
    add_figure(records, "kl_error_relative",
               (struct assay_figure){from->has_record_kl_error_relative, from->record_kl_error_relative, missing});
    add_optional(records, "kl_error_positions", from->has_record_kl_error_n, (double)from->record_kl_error_n);
}

cJSON *assay_report_variant_json(const struct assay_report *report, size_t index)
{
    const Assay__V1__VariantResult *result = report->job->results[index];
    const Assay__V1__VariantScore *score = result->score;
    bool reference = index == 0;
    char hex[33];
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "schema", "assay.variant_results/1");
    cJSON_AddStringToObject(object, "job_id", assay_word_hex(report->job->job_id, 16, hex));
    cJSON_AddStringToObject(object, "role", reference ? "reference" : "variant");
    add_variant(object, result->variant);
    add_text(object, "numerics_id", score ? score->numerics_id : NULL);
    if (reference)
        cJSON_AddNullToObject(object, "verdict");
    else
        cJSON_AddStringToObject(object, "verdict", assay_result_verdict(report->job, result));
    if (report->job->partial) {
        add_number(object, "chunks_scored", (double)result->chunks_scored);
        add_number(object, "chunks_planned", (double)report->job->chunks);
    }
    add_records(object, score, reference);
    cJSON *metrics = cJSON_AddObjectToObject(object, "metrics");
    add_estimate(metrics, report, "perplexity", "ppl", "1", score ? score->perplexity : NULL);
    add_estimate(metrics, report, "mean_nll_nats", "nll", "nats", score ? score->mean_nll_nats : NULL);
    if (!reference) {
        add_estimate(metrics, report, "perplexity_increase_percent", "dppl.paired(var-ref)", "%",
                     score ? score->perplexity_increase_percent : NULL);
        add_estimate(metrics, report, "same_top1_percent", "same_top1", "%", score ? score->same_top1_percent : NULL);
        add_estimate(metrics, report, "delta_p_rms_percent", "delta_p.rms(label)", "%",
                     score ? score->delta_p_rms_percent : NULL);
    }
    add_kl(metrics, report, score, reference);
    add_weights(metrics, result);
    add_size(metrics, report, result);
    add_criteria(object, result);
    add_cost(object, result);
    return object;
}

static void add_environment(cJSON *object, const struct assay_report *report)
{
    const struct assay_environment *environment = report->environment;
    cJSON *node = cJSON_AddObjectToObject(object, "environment");
    cJSON_AddStringToObject(node, "assay_version", ASSAY_VERSION);
    add_text(node, "command", report->command);
    add_text(node, "host", environment->host);
    add_text(node, "system", environment->system);
    add_text(node, "cpu", environment->cpu);
    add_number(node, "cpus", (double)environment->cpus);
    add_number(node, "memory_bytes", (double)environment->memory_bytes);
    add_text(node, "coordinator", report->coordinator);
    add_number(node, "coordinator_pid", (double)report->coordinator_pid);
    if (report->services)
        cJSON_AddItemToObject(node, "services", assay_services_json(report->services));
}

static void add_phases(cJSON *object, const Assay__V1__Event *event)
{
    cJSON *phases = cJSON_AddArrayToObject(object, "phases");
    for (size_t i = 0; event && i < event->n_phases; i++) {
        const Assay__V1__Phase *phase = event->phases[i];
        cJSON *row = cJSON_CreateObject();
        add_text(row, "name", phase->name);
        add_number(row, "done", (double)phase->done);
        add_number(row, "from_cache", (double)phase->cached);
        add_number(row, "total", (double)phase->total);
        add_text(row, "unit", phase->unit);
        add_number(row, "elapsed_seconds", (double)phase->elapsed_ms / 1e3);
        cJSON_AddItemToArray(phases, row);
    }
}

static void add_thresholds(cJSON *object, const Assay__V1__Thresholds *given)
{
    static const char unset[] = "the job names none: the coordinator's default holds";
    cJSON *thresholds = cJSON_AddObjectToObject(object, "thresholds");
    bool increase = given && given->has_perplexity_increase_percent, kl = given && given->has_kl_mean_nats;
    add_figure(thresholds, "perplexity_increase_percent",
               (struct assay_figure){increase, increase ? given->perplexity_increase_percent : 0, unset});
    add_figure(thresholds, "kl_mean_nats", (struct assay_figure){kl, kl ? given->kl_mean_nats : 0, unset});
}

static void add_subject(cJSON *object, const Assay__V1__Job *job)
{
    const Assay__V1__SubmitJobRequest *request = job->request;
    cJSON *model = cJSON_AddObjectToObject(object, "model");
    add_text(model, "directory", request ? request->model_dir : NULL);
    add_text(model, "architecture", job->architecture);
    add_digest(model, "model_id", job->model_id);
    add_optional(model, "parameters", job->has_parameters, (double)job->parameters);
    add_digest(model, "tokenizer_digest", job->tokenizer_digest);
    cJSON *corpus = cJSON_AddObjectToObject(object, "corpus");
    add_text(corpus, "name", request ? request->corpus_name : NULL);
    add_digest(corpus, "digest", job->corpus_digest);
    add_number(corpus, "tokens", (double)job->tokens);
    cJSON *protocol = cJSON_AddObjectToObject(object, "protocol");
    add_text(protocol, "name", request ? request->protocol : NULL);
    add_number(protocol, "chunks", (double)job->chunks);
    add_number(protocol, "scored_positions", (double)job->scored_positions);
    cJSON_AddBoolToObject(protocol, "adds_bos", job->adds_bos);
    cJSON_AddStringToObject(protocol, "bos", assay_report_bos(job));
    add_thresholds(object, request ? request->thresholds : NULL);
}

static void add_lines(cJSON *object, const char *key, const struct assay_lines *lines)
{
    cJSON *list = cJSON_AddArrayToObject(object, key);
    for (size_t i = 0; i < lines->count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateString(lines->at[i]));
}

cJSON *assay_report_assessment_json(const struct assay_assessment *assessment)
{
    cJSON *object = cJSON_CreateObject();
    cJSON *rules = cJSON_AddArrayToObject(object, "rules");
    for (const char *const *rule = assay_assess_rules; *rule; rule++)
        cJSON_AddItemToArray(rules, cJSON_CreateString(*rule));
    add_lines(object, "findings", &assessment->findings);
    cJSON *variants = cJSON_AddArrayToObject(object, "variants");
    for (size_t i = 0; i < assessment->count; i++) {
        const struct assay_variant_assessment *variant = &assessment->variants[i];
        cJSON *row = cJSON_CreateObject();
        add_text(row, "label", assay_result_label(variant->result));
        add_text(row, "acceptance", assay_acceptance_word(variant->acceptance));
        add_text(row, "verdict", variant->verdict);
        add_lines(row, "strengths", &variant->strengths);
        add_lines(row, "weaknesses", &variant->weaknesses);
        add_figure(row, "gb_saved", variant->saved_gb);
        add_figure(row, "perplexity_increase_percent_per_gb_saved", variant->increase_per_gb);
        add_figure(row, "kl_nats_per_gb_saved", variant->kl_per_gb);
        add_text(row, "dominated_by",
                 variant->dominated_by == ASSAY_NOT_DOMINATED
                     ? NULL
                     : assay_result_label(assessment->variants[variant->dominated_by].result));
        add_text(row, "dominance", variant->dominance);
        cJSON_AddItemToArray(variants, row);
    }
    add_lines(object, "recommendations", &assessment->recommendations);
    add_text(object, "conclusion", assessment->conclusion);
    return object;
}

static void add_coverage(cJSON *object, const Assay__V1__Job *job)
{
    cJSON *coverage = cJSON_AddObjectToObject(object, "coverage");
    cJSON_AddStringToObject(coverage, "note", ASSAY_PARTIAL_NOTE);
    cJSON *results = cJSON_AddArrayToObject(coverage, "results");
    for (size_t i = 0; i < job->n_results; i++) {
        cJSON *row = cJSON_CreateObject();
        add_text(row, "label", assay_result_label(job->results[i]));
        add_number(row, "chunks_scored", (double)job->results[i]->chunks_scored);
        add_number(row, "chunks_planned", (double)job->chunks);
        cJSON_AddItemToArray(results, row);
    }
}

cJSON *assay_report_json(const struct assay_report *report)
{
    const Assay__V1__Job *job = report->job;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "schema", "assay.evaluation_report/1");
    cJSON_AddStringToObject(object, "verdict", assay_report_verdict(job));
    cJSON_AddBoolToObject(object, "partial", job->partial);
    if (job->partial)
        add_coverage(object, job);
    add_number(object, "exit_code", assay_report_exit_code(job));
    cJSON_AddItemToObject(object, "job", assay_job_json(job));
    add_subject(object, job);
    add_environment(object, report);
    add_phases(object, report->last_event);
    cJSON *results = cJSON_AddArrayToObject(object, "results");
    for (size_t i = 0; i < job->n_results; i++)
        cJSON_AddItemToArray(results, assay_report_variant_json(report, i));
    cJSON *cost = cJSON_AddObjectToObject(object, "cost");
    add_number(cost, "wall_seconds", report->wall_seconds);
    add_number(cost, "score_seconds", (double)job->score_us / 1e6);
    add_number(cost, "saved_seconds", (double)job->saved_us / 1e6);
    cJSON *unmeasured = cJSON_AddArrayToObject(object, "not_measured");
    for (const struct assay_unmeasured *row = assay_unmeasured; row->metric; row++) {
        cJSON *entry = cJSON_CreateObject();
        cJSON_AddStringToObject(entry, "metric", row->metric);
        cJSON_AddStringToObject(entry, "reason", row->reason);
        cJSON_AddItemToArray(unmeasured, entry);
    }
    return object;
}
