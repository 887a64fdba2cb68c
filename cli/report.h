/* What a finished job says, and a cancelled one with a partial result: figures for the terminal, JSON and Markdown.
 * Works on messages alone; writes files only in assay_report_write. What was not computed stays missing, with the
 * reason, down to the last table. Any thread. */
#pragma once

#include <cjson/cJSON.h>

#include "common/base/buf.h"
#include "common/base/fs.h"
#include "proto/control.pb-c.h"

struct assay_environment {
    char host[128], system[256], cpu[128];
    size_t cpus;
    uint64_t memory_bytes; /* 0 = not known */
};

/* Of the machine that runs the command. Fields that cannot be read say "unknown". */
void assay_environment_read(struct assay_environment *ret);

struct assay_report {
    const Assay__V1__Job *job;                    /* finished; results: the reference first */
    const Assay__V1__ListServicesReply *services; /* NULL = not known */
    const Assay__V1__Event *last_event;           /* its phases; NULL = not known */
    const struct assay_environment *environment;
    const char *command;     /* as it was typed */
    const char *coordinator; /* its endpoint */
    long coordinator_pid;    /* 0 = not known */
    double wall_seconds;     /* of the whole command */
};

/* The exit code of a job: its verdict's when it is completed (none counts as INCONCLUSIVE), else its failure's. */
int assay_report_exit_code(const Assay__V1__Job *job);

/* "PASS"; "PARTIAL" of a job that was cancelled, whose figures are of some of its chunks: it has no other verdict. */
const char *assay_report_verdict(const Assay__V1__Job *job);
const char *assay_result_verdict(const Assay__V1__Job *job, const Assay__V1__VariantResult *result);
/* Of a partial result: how many of the planned chunks its figures are of, as "fp32 40 of 96 chunks, int8 23 of 96
 * chunks"; else nothing. */
void assay_report_coverage(const Assay__V1__Job *job, struct assay_buf *out);
#define ASSAY_PARTIAL_NOTE                                                                                             \
    "The job was cancelled. Figures and intervals are of the chunks that were scored until then; those of variants "   \
    "with other chunks cannot be compared. There is no verdict."

/* --- figures --- */

/* A figure or the reason why there is none. */
struct assay_figure {
    bool present;
    double value;
    const char *missing; /* static or of the message */
};

const char *assay_kl_band(double kl_nats);    /* "negligible", "low", "moderate", "high" */
const char *assay_cosine_band(double cosine); /* "excellent", "good", "fair", "poor" */
const char *assay_precision_loss_band(double loss_percent);

struct assay_figure assay_estimate_figure(const Assay__V1__Estimate *estimate);
struct assay_figure assay_tokens_per_second(const Assay__V1__VariantResult *result);
/* FP16 bytes / bytes of the artifact. */
struct assay_figure assay_compression_ratio(const Assay__V1__VariantResult *result);
/* dPPL% for each GB (1e9 bytes) that the artifact is smaller than FP16. */
struct assay_figure assay_increase_per_gb_saved(const Assay__V1__VariantResult *result);
/* Resident bytes of the largest worker of that precision. */
struct assay_figure assay_worker_rss(const struct assay_report *report, const Assay__V1__VariantResult *result);

/* Of the quantized tensors with layer == `layer`, or of all when `layer` is ASSAY_LAYERS_ALL; every tensor counts once.
 */
#define ASSAY_LAYERS_ALL INT32_MIN
struct assay_cosines {
    size_t tensors; /* 0: the others mean nothing */
    double mean, min;
    const char *worst; /* name of the tensor with the least */
};
struct assay_cosines assay_weight_cosines(const Assay__V1__VariantResult *result, int32_t layer);
/* The least and largest layer of the quantized tensors that lie in layers; false when there is none. */
bool assay_weight_layers(const Assay__V1__VariantResult *result, int32_t *ret_first, int32_t *ret_last);

/* Tensors of an artifact without quantized tensors, and others: why there is no cosine. */
const char *assay_no_cosine_reason(const Assay__V1__VariantResult *result);

/* Where BOS stands, by the job's protocol: "each" (first in each chunk), "once" (first in the text, so in the first
 * chunk alone) or "no" (the tokenizer adds none). Static. */
const char *assay_report_bos(const Assay__V1__Job *job);

/* "ppl|llamacpp-512|tok:0123456789abcdef|bos:no|n:16320|acc:f64|v:1" into text; bos as above. n 0 is left out. Returns
 * text. */
#define ASSAY_SIGNATURE_MAX 256
char *assay_signature(const struct assay_report *report, const char *metric, uint64_t n,
                      char text[ASSAY_SIGNATURE_MAX]);

/* How a value that passes stands to its threshold: ">" for cosines, else "<". */
const char *assay_criterion_relation(const Assay__V1__CriterionResult *criterion);

/* What a job of this kind does not measure, and why. Ends with a NULL metric. */
struct assay_unmeasured {
    const char *metric, *reason;
};
extern const struct assay_unmeasured assay_unmeasured[];

const char *assay_result_label(const Assay__V1__VariantResult *result); /* "int8" */

/* --- files --- */

/* "int4:group_size=64" -> "int4_g64", "awq4" -> "awq_4bit": fit for a file name. Returns stem. */
#define ASSAY_STEM_MAX 128
char *assay_report_stem(const char *label, char stem[ASSAY_STEM_MAX]);
/* "baseline_fp32_results.json", "int8_quantized_results.json"; no two results of a job share a name. Returns name. */
#define ASSAY_REPORT_NAME_MAX (ASSAY_STEM_MAX + 40)
char *assay_report_file_name(const struct assay_report *report, size_t index, char name[ASSAY_REPORT_NAME_MAX]);
#define ASSAY_REPORT_JSON_NAME "comprehensive_evaluation_report.json"
#define ASSAY_REPORT_MARKDOWN_NAME "EVALUATION_SUMMARY.md"
#define ASSAY_REPORT_HTML_NAME "evaluation_report.html"

struct assay_assessment; /* report_assess.h */

/* The caller's to delete; NULL when out of memory. */
cJSON *assay_report_json(const struct assay_report *report);
/* The rules, what they say about each variant, and the recommendations. */
cJSON *assay_report_assessment_json(const struct assay_assessment *assessment);
cJSON *assay_report_variant_json(const struct assay_report *report, size_t index);

void assay_report_markdown(const struct assay_report *report, const struct assay_assessment *assessment,
                           struct assay_buf *out);
/* One file with style and plots in it: needs no network and no script. All text is escaped. */
void assay_report_html(const struct assay_report *report, const struct assay_assessment *assessment,
                       struct assay_buf *out);
/* The tables for the terminal, with a line for each reason of a missing figure. */
void assay_report_table(const struct assay_report *report, struct assay_buf *out);
/* One line on the cost: "reference fp32: 64 of 64 chunks from the cache, saved ~12.3 s". */
void assay_report_cost(const struct assay_report *report, struct assay_buf *out);

/* Writes every file into out_dir, which is made. Each is whole or not there. A partial result says so, with its
 * coverage, at the head of each, and has neither verdicts nor recommendations. */
enum assay_status assay_report_write(const struct assay_report *report, const char *out_dir,
                                     struct assay_err *err) ASSAY_MUST_USE;
