/* One artifact: decisions and files. Any thread; the pool is used by one job at a time. */
#pragma once

#include "common/artifact/manifest.h"
#include "common/base/pool.h"
#include "common/quant/scheme.h"

struct assay_quantize_job {
    const char *artifacts_dir; /* ours, from the settings */
    /* From outside, checked: */
    const char *wanted_dir;             /* must be exactly artifacts_dir/VARIANT-ID */
    const char *model_dir;              /* absolute; its contents must have the digest model_id */
    struct assay_variant_id variant_id; /* must follow from model_id and spec */
    struct assay_model_id model_id;
    struct assay_spec spec;

    struct assay_pool *pool;
    const char *digests_dir; /* where digests of the source are kept (kept_digests.h); NULL: every byte is read */
    /* All may be NULL. Called on the caller's thread. */
    bool (*cancelled)(void *arg);                           /* between tensors */
    void (*progress)(void *arg, size_t done, size_t total); /* of tensors */
    void (*remade)(void *arg, const char *why);             /* what stands there is not right */
    void *arg;
};

/* Makes the artifact, or finds it made. *ret is its manifest. What stands under the artifact's name is whole at any
 * time, also after the process is killed. Errors: INVALID_ARGUMENT: a path or id that does not follow from the others;
 * a checkpoint that is broken or holds what the scheme cannot. FAILED_PRECONDITION: the checkpoint's contents are not
 * those of model_id, or it is quantized already. UNIMPLEMENTED: no method for the scheme. RESOURCE_EXHAUSTED: disk
 * full, out of memory. CANCELLED. */
enum assay_status assay_quantize(const struct assay_quantize_job *job, struct assay_manifest *ret, bool *ret_was_cached,
                                 struct assay_err *err) ASSAY_MUST_USE;

/* The same for a user: the artifact of whatever model_dir holds becomes wanted_dir, a name in artifacts_dir; the
 * job's ids are not read. ALREADY_EXISTS: something stands there that is no empty directory. */
enum assay_status assay_quantize_to(const struct assay_quantize_job *job, struct assay_manifest *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;
