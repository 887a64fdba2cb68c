/* assay-inference: runs the chunks of one precision. */
#include <string.h>

#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/quant/scheme.h"
#include "common/wire/service.h"
#include "services/inference/respond.h"
#include "services/inference/serve.h"

/* A forward pass takes memory by the token. */
#define BATCH_TOKENS_MAX 1048576
#define SEQUENCES_MAX 256
/* A model that nobody asked for that long goes out of memory. */
#define RESPOND_IDLE_MS 300000
/* A reader that takes nothing for so long is given up. */
#define RESPOND_STALL_MS 60000

#define NUMBER(key, member, low, high, value, text)                                                                    \
    {                                                                                                                  \
        .name = key, .type = ASSAY_SETTING_INT, .target = &program.member, .min = low, .max = high, .argument = value, \
        .help = text                                                                                                   \
    }

struct program {
    char cache_dir[ASSAY_PATH_MAX];
    const char *precision, *device;
    int64_t batch_tokens;
    double memory_gb;
    int64_t respond_models, respond_sequences, respond_tokens, respond_cache_mb;
    struct assay_inference *inference;
    struct assay_respond *respond;
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

static enum assay_status prepare_respond(struct assay_service_process *service, struct assay_err *err)
{
    struct program *program = service->arg;
    const struct assay_respond_options options = {
        .lanes =
            {
                .loop = service->loop,
                .pool = service->pool,
                .models = assay_inference_models(program->inference),
                .cache_dir = program->cache_dir,
                .precision = program->precision,
                .models_max = (size_t)program->respond_models,
                .sequences_max = (size_t)program->respond_sequences,
                .cache_bytes_max = (uint64_t)program->respond_cache_mb << 20,
                .idle_ms = RESPOND_IDLE_MS,
            },
        .tokens_max = (size_t)program->respond_tokens,
        .stall_ms = RESPOND_STALL_MS,
    };
    return assay_respond_new(service->server, &options, &program->respond, err);
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
    if (status == ASSAY_OK)
        status = assay_inference_new(service->loop, &options, &program->inference, err);
    return status == ASSAY_OK ? prepare_respond(service, err) : status;
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
    assay_respond_measure(program->respond, metrics);
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
    assay_respond_stop(program->respond);
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
    assay_respond_free(program->respond);
    assay_inference_free(program->inference);
}

int main(int argc, char **argv)
{
    static struct program program = {.device = "cpu",
                                     .batch_tokens = 4096,
                                     .respond_models = 2,
                                     .respond_sequences = 32,
                                     .respond_tokens = 8192,
                                     .respond_cache_mb = 4096};
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
        NUMBER("batch-tokens", batch_tokens, 1, BATCH_TOKENS_MAX, "N", "tokens of one forward pass"),
        NUMBER("respond-models", respond_models, 1, ASSAY_LANES_MAX, "N",
               "models that answer users at once, beside that of the leases"),
        NUMBER("respond-sequences", respond_sequences, 1, SEQUENCES_MAX, "N",
               "responses of one model under way at once; others wait"),
        NUMBER("respond-tokens", respond_tokens, 2, BATCH_TOKENS_MAX, "N",
               "tokens of a prompt with its response, at most"),
        NUMBER("respond-cache-mb", respond_cache_mb, 1, 1 << 24, "MB",
               "keys and values of one model's responses; others wait"),
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
