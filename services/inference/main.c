/* assay-inference: runs the chunks of one precision. */
#include <string.h>

#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/quant/scheme.h"
#include "common/wire/service.h"
#include "services/inference/serve.h"

/* A forward pass takes memory by the token. */
#define BATCH_TOKENS_MAX 1048576

struct program {
    char cache_dir[ASSAY_PATH_MAX];
    const char *precision, *device;
    int64_t batch_tokens;
    double memory_gb;
    struct assay_inference *inference;
};

static enum assay_status check(struct assay_service_process *service, struct assay_err *err)
{
    const struct program *program = service->arg;
    if (!program->precision)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--precision is not given, wanted a scheme, as int8");
    if (strcmp(program->device, "cpu") != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--device: found '%s', wanted cpu", program->device);
    struct assay_spec spec;
    enum assay_status status = assay_spec_parse(program->precision, &spec, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "--precision");
        return status;
    }
    if (strcmp(assay_scheme_name(spec.scheme), program->precision) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--precision: found '%s', wanted a scheme without parameters",
                             program->precision);
    return ASSAY_OK;
}

static enum assay_status prepare(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    const struct assay_inference_options options = {
        .coordinator = service->coordinator,
        .precision = program->precision,
        .device = program->device,
        .pool = service->pool,
        .batch_tokens = (size_t)program->batch_tokens,
        .memory_bytes = (uint64_t)(program->memory_gb * 1e9),
        .cache_dir = program->cache_dir,
    };
    enum assay_status status = assay_path_join(program->cache_dir, service->data_dir, ASSAY_ARTIFACTS_DIR, err);
    return status == ASSAY_OK ? assay_inference_new(service->loop, &options, &program->inference, err) : status;
}

static void describe(struct assay_service_process *service, Assay__V1__RegisterRequest *registration)
{
    const struct program *program = service->arg;
    assay_inference_describe(program->inference, registration);
}

static void count(void *arg, Assay__V1__ServiceCounters *counters)
{
    const struct program *program = arg;
    assay_inference_count(program->inference, counters);
}

static void measure(struct assay_service_process *service, struct assay_metrics *metrics)
{
    const struct program *program = service->arg;
    assay_inference_measure(program->inference, metrics);
}

static enum assay_status begin(struct assay_service_process *service, struct assay_err *err)
{
    const struct program *program = service->arg;
    enum assay_status status = assay_inference_start(program->inference, service->member, err);
    if (status == ASSAY_OK)
        assay_log(ASSAY_LOG_INFO, "working precision=%s device=%s threads=%zu", program->precision, program->device,
                  assay_pool_threads(service->pool));
    return status;
}

static void drain(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_inference_stop(program->inference);
    struct assay_worker_counts counts = assay_inference_counts(program->inference);
    assay_log(ASSAY_LOG_INFO,
              "stopped chunks_run=%llu tokens_run=%llu records_sent=%llu compute_ms=%llu models_loaded=%llu",
              (unsigned long long)counts.chunks_run, (unsigned long long)counts.tokens_run,
              (unsigned long long)counts.records_sent, (unsigned long long)counts.compute_us / 1000,
              (unsigned long long)counts.models.loads);
}

static void end(struct assay_service_process *service)
{
    const struct program *program = service->arg;
    assay_inference_free(program->inference);
}

int main(int argc, char **argv)
{
    static struct program program = {.device = "cpu", .batch_tokens = 4096};
    const struct assay_setting rows[] = {
        {.name = "precision",
         .type = ASSAY_SETTING_STRING,
         .target = &program.precision,
         .argument = "SCHEME",
         .help = "the scheme to run, as int8 (required)"},
        {.name = "device",
         .type = ASSAY_SETTING_STRING,
         .target = &program.device,
         .argument = "DEVICE",
         .help = "where to run"},
        {.name = "batch-tokens",
         .type = ASSAY_SETTING_INT,
         .target = &program.batch_tokens,
         .min = 1,
         .max = BATCH_TOKENS_MAX,
         .argument = "N",
         .help = "tokens of one forward pass"},
        {.name = "memory-gb",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &program.memory_gb,
         .min = 0,
         .max = 1000000,
         .argument = "GB",
         .help = "memory that loaded models may take, a larger one is refused; 0: unused ones stay within an eighth of "
                 "the machine's"},
    };
    const struct assay_service_program service = {
        .name = "inference",
        .usage = "assay-inference --precision SCHEME [--threads N] [--cpus LIST] [--data DIR]",
        .summary = "Runs chunks of one precision on loan from the coordinator.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
        .threads_help = "threads that compute",
        .kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE,
        .check = check,
        .prepare = prepare,
        .measure = measure,
        .precision = &program.precision,
        .begin = begin,
        .describe = describe,
        .count = count,
        .drain = drain,
        .close = end,
    };
    return assay_service_main(&service, argc, argv, &program);
}
