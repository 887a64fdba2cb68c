/* One artifact, made in this process. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output_dir.h"
#include "cli/say.h"
#include "common/artifact/job.h"
#include "common/base/limits.h"
#include "common/formats/json.h"

#define NAME "quantize"

struct options {
    const char *model, *scheme, *group_size, *compute, *output, *cpus;
    int64_t threads;
    bool json;
};

static bool is_interrupted(void *arg)
{
    (void)arg;
    return assay_interrupt_wait(0);
}

/* The options as a spec of the scheme, judged like any other. */
static enum assay_status read_spec(const struct options *options, struct assay_spec *ret, struct assay_err *err)
{
    char text[2 * ASSAY_SPEC_TEXT_MAX];
    int len = snprintf(text, sizeof text, "%s%s%s%s%s", options->scheme, options->group_size ? ":group_size=" : "",
                       options->group_size ? options->group_size : "", options->compute ? ":compute=" : "",
                       options->compute ? options->compute : "");
    if (len < 0 || (size_t)len >= sizeof text)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a scheme with its parameters is written in at most %d bytes",
                             ASSAY_SPEC_TEXT_MAX - 1);
    return assay_spec_parse(text, ret, err);
}

static const struct assay_tensor_error *worst_of(const struct assay_manifest *manifest)
{
    const struct assay_tensor_error *worst = NULL;
    for (size_t i = 0; i < manifest->errors_count; i++) {
        const struct assay_tensor_error *error = &manifest->errors[i];
        if (isfinite(error->relative_frobenius) && (!worst || error->relative_frobenius > worst->relative_frobenius))
            worst = error;
    }
    return worst;
}

static enum assay_status print_json(const struct assay_manifest *manifest, const char *dir, struct assay_err *err)
{
    const struct assay_tensor_error *worst = worst_of(manifest);
    char hex[ASSAY_DIGEST_HEX];
    assay_auto(assay_json_delete) cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "artifact", dir);
    cJSON_AddStringToObject(object, "scheme", manifest->spec);
    cJSON_AddStringToObject(object, "variant_id", assay_digest_hex(&manifest->variant_id.digest, hex));
    cJSON_AddStringToObject(object, "model_id", assay_digest_hex(&manifest->model_id.digest, hex));
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    cJSON_AddNumberToObject(bytes, "source", (double)manifest->source_bytes);
    cJSON_AddNumberToObject(bytes, "artifact", (double)manifest->artifact_bytes);
    cJSON_AddNumberToObject(bytes, "codes", (double)manifest->code_bytes);
    cJSON_AddNumberToObject(bytes, "scales", (double)manifest->scale_bytes);
    cJSON_AddNumberToObject(bytes, "kept", (double)manifest->kept_bytes);
    cJSON_AddNumberToObject(object, "quantized_tensors", (double)manifest->errors_count);
    if (worst) {
        cJSON *node = cJSON_AddObjectToObject(object, "worst");
        cJSON_AddStringToObject(node, "tensor", worst->tensor);
        cJSON_AddNumberToObject(node, "relative_frobenius", worst->relative_frobenius);
        cJSON_AddNumberToObject(node, "cosine", worst->cosine);
    }
    char *text = cJSON_Print(object);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for JSON");
    puts(text);
    cJSON_free(text);
    return ASSAY_OK;
}

static void print_summary(const struct assay_manifest *manifest, const char *dir)
{
    char hex[ASSAY_DIGEST_HEX];
    printf("artifact   %s\n", dir);
    printf("scheme     %s\n", manifest->spec);
    printf("variant    %s\n", assay_digest_hex(&manifest->variant_id.digest, hex));
    printf("bytes      %llu of %llu: codes %llu, scales %llu, kept %llu\n",
           (unsigned long long)manifest->artifact_bytes, (unsigned long long)manifest->source_bytes,
           (unsigned long long)manifest->code_bytes, (unsigned long long)manifest->scale_bytes,
           (unsigned long long)manifest->kept_bytes);
    const struct assay_tensor_error *worst = worst_of(manifest);
    if (worst)
        printf("worst of %zu tensors: relative error %.6f, cosine %.6f, %s\n", manifest->errors_count,
               worst->relative_frobenius, worst->cosine, worst->tensor);
}

static enum assay_status run(const struct options *options, const struct assay_spec *spec, struct assay_err *err)
{
    char model[ASSAY_PATH_MAX];
    struct assay_output_dir output;
    struct assay_pool *pool = NULL;
    if (!realpath(options->model, model))
        return assay_err_errno(err, errno, "cannot open the checkpoint %.200s", options->model);
    enum assay_status status = assay_output_dir_of(options->output, &output, err);
    if (status == ASSAY_OK)
        status = assay_pool_new((size_t)options->threads, options->cpus, &pool, err);
    if (status != ASSAY_OK)
        return status;
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    const struct assay_quantize_job job = {
        .artifacts_dir = output.parent,
        .wanted_dir = output.path,
        .model_dir = model,
        .spec = *spec,
        .pool = pool,
        .cancelled = is_interrupted,
    };
    status = assay_quantize_to(&job, &manifest, err);
    if (status == ASSAY_OK && options->json)
        status = print_json(&manifest, output.path, err);
    else if (status == ASSAY_OK)
        print_summary(&manifest, output.path);
    assay_manifest_release(&manifest);
    assay_pool_free(pool);
    return status;
}

int assay_command_quantize(int argc, char **argv)
{
    struct options options = {.threads = (int64_t)ASSAY_MIN(assay_cpu_count(), (size_t)ASSAY_POOL_THREADS_MAX)};
    const struct assay_setting settings[] = {
        {.name = "scheme",
         .type = ASSAY_SETTING_STRING,
         .target = &options.scheme,
         .argument = "SPEC",
         .help = "as nf4, or with parameters as int4:group_size=64",
         .required = true},
        {.name = "group-size",
         .type = ASSAY_SETTING_STRING,
         .target = &options.group_size,
         .argument = "N",
         .help = "int4: weights that share a scale, or 'channel'; by the row lengths of the model unless given"},
        {.name = "compute",
         .type = ASSAY_SETTING_STRING,
         .target = &options.compute,
         .argument = "DTYPE",
         .help = "f32 or bf16: what inputs of products are rounded to; f32 unless the scheme is bf16"},
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &options.output,
         .argument = "DIR",
         .help = "directory to make",
         .required = true},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &options.threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads to compute with; all CPUs unless given"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &options.cpus,
         .argument = "LIST",
         .help = "CPUs to pin threads to, as 0-3,8"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &options.json, .help = "print the summary as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " MODEL --scheme SPEC -o DIR [--json]",
        .summary =
            "Makes the artifact of MODEL, a checkpoint directory, under a scheme: a checkpoint that other tools load.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &options.model,
        .positional_min = 1,
        .positional_max = 1,
    };
    int exit_code;
    if (!assay_say_parse(NAME, &command, argc, argv, &exit_code))
        return exit_code;
    assay_interrupt_prepare();
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_spec spec;
    if (read_spec(&options, &spec, &err) != ASSAY_OK)
        return assay_say_setting_failure(NAME, &err);
    return run(&options, &spec, &err) == ASSAY_OK ? 0 : assay_say_failure(NAME, &err);
}
