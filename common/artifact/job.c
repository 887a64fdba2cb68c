#include "common/artifact/job.h"

#include <string.h>

#include "common/artifact/method.h"
#include "common/artifact/staging.h"
#include "common/base/clock.h"

const struct assay_method *assay_method_find(enum assay_scheme scheme)
{
#define ASSAY_METHOD(name) &assay_method_##name,
    static const struct assay_method *const methods[] = {
#include "common/artifact/methods.inc"
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

/* The checkpoint is what the job means (wants_ids), or the manifest says what it is. */
static enum assay_status identify(struct assay_making *making, bool wants_ids, struct assay_err *err)
{
    const struct assay_quantize_job *job = making->job;
    struct assay_manifest *manifest = making->manifest;
    enum assay_status status = assay_making_identify(making, &manifest->model_id, err);
    if (status != ASSAY_OK)
        return status;
    manifest->variant_id = assay_variant_id_of(&manifest->model_id, &job->spec);
    if (wants_ids && !assay_digest_equal(&manifest->model_id.digest, &job->model_id.digest)) {
        char want[ASSAY_DIGEST_HEX], have[ASSAY_DIGEST_HEX];
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                             "the checkpoint %s has changed: found digest %.16s..., wanted %.16s...", job->model_dir,
                             assay_digest_hex(&manifest->model_id.digest, have),
                             assay_digest_hex(&job->model_id.digest, want));
    }
    return ASSAY_OK;
}

static enum assay_status fill(struct assay_making *making, const struct assay_method *method, bool wants_ids,
                              struct assay_err *err)
{
    struct assay_manifest *manifest = making->manifest;
    char text[ASSAY_SPEC_TEXT_MAX];
    manifest->spec = assay_arena_strdup(&manifest->arena, assay_spec_format(&making->job->spec, text));
    if (!manifest->spec)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while making %s", making->job->wanted_dir);
    enum assay_status status = identify(making, wants_ids, err);
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

/* The ids of the job are to be right (is_ours), and then what stands in the way under them is replaced. */
static enum assay_status make(const struct assay_quantize_job *job, const struct assay_method *method, bool is_ours,
                              struct assay_manifest *manifest, struct assay_err *err)
{
    int64_t started_us = assay_now_us();
    struct assay_checkpoint *source = NULL;
    struct assay_staging staging = {.lock = -1};
    enum assay_status status = assay_checkpoint_open(job->model_dir, &source, err);
    if (status == ASSAY_OK)
        status = assay_staging_open(job->artifacts_dir, &job->variant_id, &staging, err);
    if (status == ASSAY_OK) {
        struct assay_making making = {
            .job = job, .spec = job->spec, .source = source, .dir = staging.dir, .manifest = manifest};
        status = fill(&making, method, is_ours, err);
    }
    manifest->wall_us = (uint64_t)(assay_now_us() - started_us);
    if (status == ASSAY_OK)
        status = assay_manifest_write(manifest, staging.dir, err);
    if (status == ASSAY_OK)
        status = is_ours ? publish(job, &staging, job->wanted_dir, err)
                         : assay_staging_publish(&staging, job->wanted_dir, err);
    assay_staging_abandon(&staging);
    assay_checkpoint_close(source);
    return status;
}

static enum assay_status find_method(const struct assay_spec *spec, const struct assay_method **ret,
                                     struct assay_err *err)
{
    *ret = assay_method_find(spec->scheme);
    return *ret ? ASSAY_OK
                : assay_err_set(err, ASSAY_UNIMPLEMENTED, "there is no method for scheme %s",
                                assay_scheme_name(spec->scheme));
}

/* Hands the manifest over, or releases it. */
static enum assay_status hand_over(enum assay_status status, struct assay_manifest *manifest,
                                   struct assay_manifest *ret)
{
    if (status == ASSAY_OK)
        *ret = *manifest;
    else
        assay_manifest_release(manifest);
    return status;
}

enum assay_status assay_quantize_to(const struct assay_quantize_job *job, struct assay_manifest *ret,
                                    struct assay_err *err)
{
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    const struct assay_method *method;
    enum assay_status status = find_method(&job->spec, &method, err);
    if (status == ASSAY_OK)
        status = make(job, method, false, &manifest, err);
    return hand_over(status, &manifest, ret);
}

enum assay_status assay_quantize(const struct assay_quantize_job *job, struct assay_manifest *ret, bool *ret_was_cached,
                                 struct assay_err *err)
{
    char dir[ASSAY_PATH_MAX];
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = check_request(job, dir, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_method *method;
    status = find_method(&job->spec, &method, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_err why = ASSAY_ERR_INIT;
    status = find_made(job, dir, &manifest, &why);
    bool was_cached = status == ASSAY_OK;
    if (!was_cached) {
        if (status != ASSAY_NOT_FOUND && job->remade)
            job->remade(job->arg, why.text);
        status = make(job, method, true, &manifest, err);
    }
    status = hand_over(status, &manifest, ret);
    if (status == ASSAY_OK)
        *ret_was_cached = was_cached;
    return status;
}
