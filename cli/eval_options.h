/* What the user of `assay eval` asks for, checked before anything starts. */
#pragma once

#include "cli/job_file.h"
#include "common/base/buf.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/quant/scheme.h"

struct assay_eval_options {
    char model_dir[ASSAY_PATH_MAX];      /* absolute */
    char data_dir[ASSAY_PATH_MAX];       /* absolute */
    char reference[ASSAY_SPEC_TEXT_MAX]; /* canonical */
    char variants[ASSAY_JOB_VARIANTS_MAX][ASSAY_SPEC_TEXT_MAX];
    size_t variants_count;                                             /* >= 1 */
    const char *corpus_path, *protocol, *out_dir, *coordinator, *name; /* coordinator and name may be NULL */
    const char *record_dtype;                                          /* "f32" or "f16" */
    int64_t chunks_max;                                                /* 0 = all */
    int64_t away_s;                                                    /* how long the coordinator may be away */
    const char *trace_path; /* where the trace of the job goes; NULL: nowhere */
    int64_t priority;       /* -ASSAY_PRIORITY_MAX..ASSAY_PRIORITY_MAX */
    double perplexity_increase_percent_max, kl_mean_nats_max;
    bool json, keep_stack, dry_run;
    struct assay_job_file job; /* of --job; what the command line does not say comes from here */
    struct assay_buf command;  /* as it was typed */
};

/* True: go on. False: *ret_exit is what to end with (--help, or a fault that has been told). */
bool assay_eval_options_parse(int argc, char **argv, struct assay_eval_options *options, int *ret_exit);
void assay_eval_options_release(struct assay_eval_options *options);

/* "int8,int4:group_size=64" into canonical texts. INVALID_ARGUMENT: unknown scheme or parameter, empty part, a variant
 * that stands twice, none at all, more than ASSAY_JOB_VARIANTS_MAX. */
enum assay_status assay_eval_variants_parse(const char *text,
                                            char variants[ASSAY_JOB_VARIANTS_MAX][ASSAY_SPEC_TEXT_MAX],
                                            size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE;
