#include "cli/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/words.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/corpus/chunks.h"

#define NO_PROMPTS "this job ran a corpus and no prompts"

const struct assay_unmeasured assay_unmeasured[] = {
    {"BLEU against reference answers", NO_PROMPTS},
    {"toxicity", NO_PROMPTS},
    {"coherence (embedding cosine of responses)", NO_PROMPTS},
    {"KL by prompt and by category", NO_PROMPTS "; KL is by token, and by chunk in the JSON files"},
    {"generation time, tokens per response, success rate", NO_PROMPTS},
    {"response change (exact match, first differing token)", NO_PROMPTS},
    {"player satisfaction and skip rate", "they come from users, in an A/B rollout"},
    {"compression of the Parquet V2 file", "no Parquet file is written; sizes are of the artifact's tensors"},
    {NULL, NULL},
};

int assay_report_exit_code(const Assay__V1__Job *job)
{
    switch ((int)job->state) {
    case ASSAY__V1__JOB_STATE__JOB_STATE_COMPLETED:
        break;
    case ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED:
        return job->partial ? ASSAY_EXIT_PARTIAL : ASSAY_EXIT_CANCELLED;
    case ASSAY__V1__JOB_STATE__JOB_STATE_FAILED:
        return job->failure_status ? assay_exit_code((enum assay_status)job->failure_status) : ASSAY_EXIT_INTERNAL;
    default:
        return ASSAY_EXIT_INTERNAL;
    }
    switch ((int)job->verdict) {
    case ASSAY__V1__VERDICT__VERDICT_PASS:
        return ASSAY_EXIT_PASS;
    case ASSAY__V1__VERDICT__VERDICT_FAIL:
        return ASSAY_EXIT_FAIL;
    default:
        return ASSAY_EXIT_INCONCLUSIVE;
    }
}

const char *assay_report_verdict(const Assay__V1__Job *job)
{
    return job->partial ? "PARTIAL" : assay_word_verdict(job->verdict);
}

const char *assay_result_verdict(const Assay__V1__Job *job, const Assay__V1__VariantResult *result)
{
    return job->partial ? "PARTIAL" : assay_word_verdict(result->verdict);
}

void assay_report_coverage(const Assay__V1__Job *job, struct assay_buf *out)
{
    for (size_t i = 0; i < job->n_results && job->partial; i++)
        assay_buf_printf(out, "%s%s %" PRIu64 " of %" PRIu64 " chunks", i > 0 ? ", " : "",
                         assay_result_label(job->results[i]), job->results[i]->chunks_scored, job->chunks);
}

const char *assay_kl_band(double kl_nats)
{
    return kl_nats < 0.01 ? "negligible" : kl_nats < 0.05 ? "low" : kl_nats <= 0.1 ? "moderate" : "high";
}

const char *assay_cosine_band(double cosine)
{
    return cosine > 0.95 ? "excellent" : cosine >= 0.85 ? "good" : cosine >= 0.70 ? "fair" : "poor";
}

const char *assay_precision_loss_band(double loss_percent)
{
    return loss_percent < 5 ? "excellent" : loss_percent <= 15 ? "good" : loss_percent <= 30 ? "fair" : "poor";
}

static struct assay_figure figure_of(double value)
{
    if (!isfinite(value))
        return (struct assay_figure){.missing = "the figure is not a finite number"};
    return (struct assay_figure){.present = true, .value = value};
}

static struct assay_figure no_figure(const char *reason)
{
    return (struct assay_figure){.missing = reason};
}

struct assay_figure assay_estimate_figure(const Assay__V1__Estimate *estimate)
{
    if (!estimate)
        return no_figure("the evaluator sent no such figure");
    if (!estimate->has_value)
        return no_figure(assay_word_or(estimate->missing, "the evaluator gave no value and no reason"));
    return figure_of(estimate->value);
}

struct assay_figure assay_tokens_per_second(const Assay__V1__VariantResult *result)
{
    if (result->tokens_run == 0)
        return no_figure("no chunk was run for this job: its records were in the cache");
    if (result->compute_us == 0)
        return no_figure("the workers reported no time");
    return figure_of((double)result->tokens_run / ((double)result->compute_us / 1e6));
}

struct assay_figure assay_compression_ratio(const Assay__V1__VariantResult *result)
{
    const Assay__V1__ArtifactSummary *artifact = result->artifact;
    if (!artifact || !artifact->has_artifact_bytes || !artifact->has_fp16_bytes || artifact->artifact_bytes == 0)
        return no_figure("the quantizer sent no sizes");
    return figure_of((double)artifact->fp16_bytes / (double)artifact->artifact_bytes);
}

struct assay_figure assay_increase_per_gb_saved(const Assay__V1__VariantResult *result)
{
    const Assay__V1__ArtifactSummary *artifact = result->artifact;
    struct assay_figure increase =
        assay_estimate_figure(result->score ? result->score->perplexity_increase_percent : NULL);
    if (!increase.present)
        return increase;
    if (!artifact || !artifact->has_artifact_bytes || !artifact->has_fp16_bytes)
        return no_figure("the quantizer sent no sizes");
    if (artifact->artifact_bytes >= artifact->fp16_bytes)
        return no_figure("it is not smaller than FP16");
    return figure_of(increase.value / ((double)(artifact->fp16_bytes - artifact->artifact_bytes) / 1e9));
}

struct assay_figure assay_worker_rss(const struct assay_report *report, const Assay__V1__VariantResult *result)
{
    const char *scheme = result->variant && result->variant->spec ? result->variant->spec->scheme : NULL;
    uint64_t most = 0;
    for (size_t i = 0; report->services && scheme && i < report->services->n_services; i++) {
        const Assay__V1__ServiceInfo *service = report->services->services[i];
        if (service->registration && service->counters && service->registration->precision &&
            strcmp(service->registration->precision, scheme) == 0)
            most = ASSAY_MAX(most, service->counters->rss_bytes);
    }
    if (most == 0)
        return no_figure("no worker of that precision was running when the job ended");
    return figure_of((double)most);
}

struct assay_cosines assay_weight_cosines(const Assay__V1__VariantResult *result, int32_t layer)
{
    struct assay_cosines cosines = {.min = 1};
    double sum = 0;
    for (size_t i = 0; result->artifact && i < result->artifact->n_layer_errors; i++) {
        const Assay__V1__LayerError *error = result->artifact->layer_errors[i];
        if (!error->has_cosine || !isfinite(error->cosine) || (layer != ASSAY_LAYERS_ALL && error->layer != layer))
            continue;
        sum += error->cosine;
        if (cosines.tensors++ == 0 || error->cosine < cosines.min) {
            cosines.min = error->cosine;
            cosines.worst = error->tensor;
        }
    }
    if (cosines.tensors > 0)
        cosines.mean = sum / (double)cosines.tensors;
    return cosines;
}

bool assay_weight_layers(const Assay__V1__VariantResult *result, int32_t *ret_first, int32_t *ret_last)
{
    int32_t first = INT32_MAX, last = -1;
    for (size_t i = 0; result->artifact && i < result->artifact->n_layer_errors; i++) {
        int32_t layer = result->artifact->layer_errors[i]->layer;
        if (layer < 0 || layer >= ASSAY_MODEL_LAYERS_MAX)
            continue;
        first = ASSAY_MIN(first, layer);
        last = ASSAY_MAX(last, layer);
    }
    if (last < 0)
        return false;
    *ret_first = first;
    *ret_last = last;
    return true;
}

const char *assay_no_cosine_reason(const Assay__V1__VariantResult *result)
{
    return result->artifact ? "no tensor of it is quantized" : "the quantizer sent no summary";
}

const char *assay_report_bos(const Assay__V1__Job *job)
{
    const char *name = job->request ? job->request->protocol : NULL;
    const struct assay_protocol *protocol = name ? assay_protocol_find(name) : NULL;
    if (!job->adds_bos)
        return "no";
    return protocol && !protocol->bos_each_chunk ? "once" : "each";
}

char *assay_signature(const struct assay_report *report, const char *metric, uint64_t n, char text[ASSAY_SIGNATURE_MAX])
{
    const Assay__V1__Job *job = report->job;
    char tokenizer[17] = "?", count[40] = "";
    if (job->has_tokenizer_digest && job->tokenizer_digest.len > 0)
        assay_word_hex(job->tokenizer_digest, 8, tokenizer);
    if (n > 0)
        snprintf(count, sizeof count, "|n:%" PRIu64, n);
    snprintf(text, ASSAY_SIGNATURE_MAX, "%s|%s|tok:%s|bos:%s%s|acc:f64|v:1", metric,
             job->request ? assay_word_or(job->request->protocol, "?") : "?", tokenizer, assay_report_bos(job), count);
    return text;
}

const char *assay_criterion_relation(const Assay__V1__CriterionResult *criterion)
{
    return criterion->wants_above ? ">" : "<";
}

const char *assay_result_label(const Assay__V1__VariantResult *result)
{
    return result->variant ? assay_word_or(result->variant->label, "?") : "?";
}
