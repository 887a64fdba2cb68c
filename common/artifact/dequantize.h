/* A quantized checkpoint written out: F32 weights in a plain directory that other tools load. */
#pragma once

#include "common/base/status.h"

struct assay_dequantize_job {
    const char *source_dir;
    const char *parent_dir, *output_dir; /* output_dir is a name in parent_dir */
    bool (*cancelled)(void *arg);        /* may be NULL; called between tensors */
    void *arg;
};

/* What cannot be read, and what stands in the way, are refused as assay_stored_list and assay_quantize_to say;
 * CANCELLED.
 * *ret_bytes: of the tensors written. */
enum assay_status assay_dequantize(const struct assay_dequantize_job *job, uint64_t *ret_bytes,
                                   struct assay_err *err) ASSAY_MUST_USE;
