/* Job files of `assay eval --job`: YAML with the fields of proto/jobfile.proto. */
#pragma once

#include "common/base/buf.h"
#include "common/base/fs.h"
#include "proto/jobfile.pb-c.h"

/* NULL, and has_ false, for what the file does not say. */
struct assay_job_file {
    const char *name, *model, *reference, *variants, *corpus, *protocol, *out; /* variants: "SPEC,SPEC" */
    const char *record_dtype;                                                  /* "f32" or "f16" */
    bool has_chunks, has_perplexity_increase, has_kl_mean;
    int64_t chunks;
    double perplexity_increase_percent, kl_mean_nats;
    /* What the texts point into. */
    Assay__V1__JobFile *message;
    char model_path[ASSAY_PATH_MAX], corpus_path[ASSAY_PATH_MAX], out_path[ASSAY_PATH_MAX];
    struct assay_buf variants_text;
};

/* Reads and checks all that the file itself decides: fields, specs, protocol, ranges. Relative paths become relative to
 * the file's folder. INVALID_ARGUMENT: "FILE:LINE: field "variants[1]": found ..., wanted ...". The caller releases
 * *ret after success. */
enum assay_status assay_job_file_load(const char *path, struct assay_job_file *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
void assay_job_file_release(struct assay_job_file *file); /* zeroed is fine */

/* The value of --job on a command line, else of ASSAY_JOB, else NULL: it is needed before the rest is parsed. */
const char *assay_job_file_named(int argc, char **argv);
