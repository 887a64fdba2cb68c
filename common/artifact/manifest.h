/* manifest.json: what an artifact is, what it cost, and which files it consists of. Written last into an artifact, so
 * that one without it is not whole. Not thread-safe. */
#pragma once

#include "common/base/arena.h"
#include "common/base/digest.h"

/* Raised when the files of an artifact change their meaning: older artifacts are then made again. */
#define ASSAY_MANIFEST_FORMAT 1
#define ASSAY_MANIFEST_FILE "manifest.json"

/* How far a decoded tensor is from its source; sums in float64. NaN where a figure has no meaning (an all-zero tensor).
 */
struct assay_tensor_error {
    const char *tensor;
    int32_t layer; /* -1 outside the layers */
    double cosine, relative_frobenius, max_abs;
    uint64_t elements;
};

/* A file of the artifact. Links lead to the checkpoint: they count only as long as that file has not been touched. */
struct assay_artifact_file {
    const char *name;
    bool linked;
    uint64_t bytes;
    int64_t mtime_ns; /* of the link's target; 0 for a file of our own */
};

/* What scoring must know about the output head, which every scheme so far keeps as it is; its inputs are not rounded.
 */
struct assay_head_contract {
    struct assay_digest digest; /* of weight, and of what follows where it is not the usual */
    bool tied;                  /* the embedding serves as head */
    bool bias;
    double logit_scale; /* 1 */
    double soft_cap;    /* 0: none */
    uint64_t vocab;     /* rows that are in the sum */
};

struct assay_manifest {
    struct assay_arena arena; /* owns all strings and arrays */
    struct assay_variant_id variant_id;
    struct assay_model_id model_id;
    const char *spec; /* canonical text */
    struct assay_head_contract head;
    uint64_t source_bytes;   /* tensor bytes of the checkpoint */
    uint64_t artifact_bytes; /* code_bytes + scale_bytes + kept_bytes */
    uint64_t code_bytes, scale_bytes, kept_bytes;
    uint64_t parameters;
    uint64_t tensors; /* of the checkpoint */
    uint64_t wall_us; /* that making it took */
    struct assay_tensor_error *errors;
    size_t errors_count;
    struct assay_artifact_file *files;
    size_t files_count;
};

#define ASSAY_MANIFEST_INIT                                                                                            \
    {                                                                                                                  \
        0                                                                                                              \
    }

void assay_manifest_release(struct assay_manifest *manifest);

/* Writes DIR/manifest.json and syncs it. The files listed must lie in DIR: their sizes and times are filled in here. */
enum assay_status assay_manifest_write(struct assay_manifest *manifest, const char *dir,
                                       struct assay_err *err) ASSAY_MUST_USE;

/* Reads DIR/manifest.json into an empty manifest. NOT_FOUND: there is none. INVALID_ARGUMENT: it is not one of ours, of
 * another format, or lists a name that is no plain file name. */
enum assay_status assay_manifest_read(const char *dir, struct assay_manifest *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* FAILED_PRECONDITION when a listed file is missing, has another size, or is a link whose target changed since. */
enum assay_status assay_manifest_check_files(const struct assay_manifest *manifest, const char *dir,
                                             struct assay_err *err) ASSAY_MUST_USE;
