#include "services/quantizer/job.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "services/quantizer/method.h"
#include "services/quantizer/staging.h"

const struct assay_method *assay_method_find(enum assay_scheme scheme)
{
#define ASSAY_METHOD(name) &assay_method_##name,
    static const struct assay_method *const methods[] = {
#include "services/quantizer/methods.inc"
    };
#undef ASSAY_METHOD
    for (size_t i = 0; i < ASSAY_COUNT(methods); i++)
        if (methods[i]->scheme == scheme)
            return methods[i];
    return NULL;
}

/* Paths and ids from outside are compared with what follows from our own settings. */
static enum assay_status check_request(const struct assay_quantize_job *job, char own_dir[ASSAY_PATH_MAX],
                                       struct assay_err *err)
{
    char hex[ASSAY_DIGEST_HEX];
    enum assay_status status =
        assay_path_join(own_dir, job->artifacts_dir, assay_digest_hex(&job->variant_id.digest, hex), err);
    if (status != ASSAY_OK)
        return status;
    if (strcmp(own_dir, job->wanted_dir) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "artifact_dir is %.150s, wanted %.150s", job->wanted_dir,
                             own_dir);
    if (job->model_dir[0] != '/')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "model_dir is %.200s, wanted an absolute path",
                             job->model_dir);
    struct assay_variant_id follows = assay_variant_id_of(&job->model_id, &job->spec);
    if (!assay_digest_equal(&follows.digest, &job->variant_id.digest))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "variant_id does not follow from model_id and spec");
    return ASSAY_OK;
}

/* OK: the artifact stands there and is right. Anything else: it has to be made. */
static enum assay_status find_made(const struct assay_quantize_job *job, const char *dir, struct assay_manifest *ret,
                                   struct assay_err *err)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = assay_manifest_read(dir, &manifest, err);
    if (status == ASSAY_OK && !assay_digest_equal(&manifest.variant_id.digest, &job->variant_id.digest))
        status = assay_err_set(err, ASSAY_FAILED_PRECONDITION, "%s/" ASSAY_MANIFEST_FILE " is of another variant", dir);
    if (status == ASSAY_OK)
        status = assay_manifest_check_files(&manifest, dir, err);
    if (status == ASSAY_OK)
        *ret = manifest;
    else
        assay_manifest_release(&manifest);
    return status;
}

static enum assay_status fill(struct assay_making *making, const struct assay_method *method, struct assay_err *err)
{
    struct assay_manifest *manifest = making->manifest;
    char text[ASSAY_SPEC_TEXT_MAX];
    manifest->variant_id = making->job->variant_id;
    manifest->model_id = making->job->model_id;
    manifest->spec = assay_arena_strdup(&manifest->arena, assay_spec_format(&making->job->spec, text));
    if (!manifest->spec)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while making %s", making->job->wanted_dir);
    enum assay_status status = assay_making_verify(making, err);
    if (status == ASSAY_OK)
        status = assay_making_describe(making, err);
    if (status == ASSAY_OK)
        status = method->make ? method->make(making, err) : assay_rewrite(making, method, err);
    manifest->artifact_bytes = manifest->code_bytes + manifest->scale_bytes + manifest->kept_bytes;
    return status;
}

/* Two makers of one artifact may finish at once: the second keeps what the first has published. */
static enum assay_status publish(const struct assay_quantize_job *job, struct assay_staging *staging, const char *dir,
                                 struct assay_err *err)
{
    enum assay_status status = assay_staging_publish(staging, dir, err);
    if (status != ASSAY_ALREADY_EXISTS)
        return status;
    struct assay_manifest there = ASSAY_MANIFEST_INIT;
    status = find_made(job, dir, &there, err);
    assay_manifest_release(&there);
    if (status == ASSAY_OK)
        return ASSAY_OK;
    status = assay_staging_displace(staging, dir, err);
    return status == ASSAY_OK ? assay_staging_publish(staging, dir, err) : status;
}

static enum assay_status make(const struct assay_quantize_job *job, const struct assay_method *method, const char *dir,
                              struct assay_manifest *manifest, struct assay_err *err)
{
    int64_t started_us = assay_now_us();
    struct assay_checkpoint *source = NULL;
    struct assay_staging staging = {.lock = -1};
    enum assay_status status = assay_checkpoint_open(job->model_dir, &source, err);
    if (status == ASSAY_OK)
        status = assay_staging_open(job->artifacts_dir, &job->variant_id, &staging, err);
    if (status == ASSAY_OK) {
        struct assay_making making = {.job = job, .source = source, .dir = staging.dir, .manifest = manifest};
        status = fill(&making, method, err);
    }
    manifest->wall_us = (uint64_t)(assay_now_us() - started_us);
    if (status == ASSAY_OK)
        status = assay_manifest_write(manifest, staging.dir, err);
    if (status == ASSAY_OK)
        status = publish(job, &staging, dir, err);
    assay_staging_abandon(&staging);
    assay_checkpoint_close(source);
    return status;
}

enum assay_status assay_quantize(const struct assay_quantize_job *job, struct assay_manifest *ret, bool *ret_was_cached,
                                 struct assay_err *err)
{
    char dir[ASSAY_PATH_MAX];
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = check_request(job, dir, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_method *method = assay_method_find(job->spec.scheme);
    if (!method)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "this quantizer has no method for scheme %s",
                             assay_scheme_name(job->spec.scheme));
    struct assay_err why = ASSAY_ERR_INIT;
    status = find_made(job, dir, &manifest, &why);
    if (status == ASSAY_OK) {
        *ret = manifest;
        *ret_was_cached = true;
        return ASSAY_OK;
    }
    if (status != ASSAY_NOT_FOUND)
        assay_log(ASSAY_LOG_WARN, "artifact is made again reason=\"%s\"", why.text);
    status = make(job, method, dir, &manifest, err);
    if (status != ASSAY_OK) {
        assay_manifest_release(&manifest);
        return status;
    }
    *ret = manifest;
    *ret_was_cached = false;
    return ASSAY_OK;
}
