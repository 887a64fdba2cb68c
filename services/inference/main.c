/* assay-inference: runs the chunks of one precision. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/base/settings.h"
#include "common/quant/scheme.h"
#include "services/inference/serve.h"

/* A forward pass takes memory by the token. */
#define BATCH_TOKENS_MAX 1048576

struct settings {
    const char *precision, *device, *data, *coordinator, *listen, *cpus;
    int64_t threads, batch_tokens;
};

static enum assay_status check_precision(const char *precision, struct assay_err *err)
{
    struct assay_spec spec;
    enum assay_status status = assay_spec_parse(precision, &spec, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "--precision");
        return status;
    }
    if (strcmp(assay_scheme_name(spec.scheme), precision) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--precision: found '%s', wanted a scheme without parameters",
                             precision);
    return ASSAY_OK;
}

static enum assay_status parse(int argc, char **argv, struct settings *settings, enum assay_settings_outcome *ret,
                               struct assay_err *err)
{
    const struct assay_setting rows[] = {
        {.name = "precision",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->precision,
         .argument = "SCHEME",
         .help = "the scheme to run, as int8",
         .required = true},
        {.name = "device",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->device,
         .argument = "DEVICE",
         .help = "where to run"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->cpus,
         .argument = "LIST",
         .help = "CPUs to pin the threads to, as 0-3,8"},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &settings->threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads that compute"},
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->data,
         .argument = "DIR",
         .help = "data directory of the stack"},
        {.name = "coordinator",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->coordinator,
         .argument = "ENDPOINT",
         .help = "the coordinator, DATA/run/coordinator.sock if not given"},
        {.name = "listen",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->listen,
         .argument = "ENDPOINT",
         .help = "where to serve, DATA/run/inference-PID.sock if not given"},
        {.name = "batch-tokens",
         .type = ASSAY_SETTING_INT,
         .target = &settings->batch_tokens,
         .min = 1,
         .max = BATCH_TOKENS_MAX,
         .argument = "N",
         .help = "tokens of one forward pass"},
    };
    const struct assay_command command = {
        .usage = "assay-inference --precision SCHEME [--threads N] [--cpus LIST] [--data DIR]",
        .summary = "Runs chunks of one precision on loan from the coordinator.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
    };
    enum assay_status status = assay_settings_parse(&command, argc, argv, ret, err);
    if (status != ASSAY_OK || *ret == ASSAY_SETTINGS_DONE)
        return status;
    if (strcmp(settings->device, "cpu") != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--device: found '%s', wanted cpu", settings->device);
    return check_precision(settings->precision, err);
}

static enum assay_status choose_endpoint(const char *given, const char *data_dir, const char *name,
                                         char endpoint[ASSAY_PATH_MAX], struct assay_err *err)
{
    if (!given || !given[0])
        return assay_ipc_endpoint(data_dir, name, endpoint, err);
    if (strlen(given) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "an endpoint has at most %d bytes", ASSAY_PATH_MAX - 1);
    strcpy(endpoint, given);
    return ASSAY_OK;
}

static enum assay_status choose_endpoints(const struct settings *settings, char listen[ASSAY_PATH_MAX],
                                          char coordinator[ASSAY_PATH_MAX], struct assay_err *err)
{
    char data_dir[ASSAY_PATH_MAX], run_dir[ASSAY_PATH_MAX], socket[64];
    snprintf(socket, sizeof socket, ASSAY_RUN_DIR "/inference-%ld.sock", (long)getpid());
    enum assay_status status = assay_data_dir(settings->data, data_dir, err);
    if (status == ASSAY_OK)
        status = assay_path_join(run_dir, data_dir, ASSAY_RUN_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(run_dir, 0700, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(settings->coordinator, data_dir, ASSAY_COORDINATOR_SOCKET, coordinator, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(settings->listen, data_dir, socket, listen, err);
    return status;
}

static void log_counts(const struct assay_worker_counts *counts)
{
    assay_log(ASSAY_LOG_INFO,
              "stopped chunks_run=%llu tokens_run=%llu records_sent=%llu compute_ms=%llu models_loaded=%llu",
              (unsigned long long)counts->chunks_run, (unsigned long long)counts->tokens_run,
              (unsigned long long)counts->records_sent, (unsigned long long)counts->compute_us / 1000,
              (unsigned long long)counts->models_loaded);
}

static enum assay_status run(const struct settings *settings, struct assay_pool *pool, struct assay_err *err)
{
    char listen[ASSAY_PATH_MAX], coordinator[ASSAY_PATH_MAX];
    struct assay_inference *inference = NULL;
    enum assay_status status = choose_endpoints(settings, listen, coordinator, err);
    const struct assay_inference_options options = {
        .listen = listen,
        .coordinator = coordinator,
        .precision = settings->precision,
        .device = settings->device,
        .pool = pool,
        .batch_tokens = (size_t)settings->batch_tokens,
    };
    if (status == ASSAY_OK)
        status = assay_inference_start(&options, &inference, err);
    if (status != ASSAY_OK)
        return status;
    assay_log(ASSAY_LOG_INFO, "working precision=%s device=%s threads=%zu endpoint=%s", settings->precision,
              settings->device, assay_pool_threads(pool), assay_inference_endpoint(inference));
    int signal_number = assay_shutdown_wait();
    assay_log(ASSAY_LOG_INFO, "shutting down signal=%d", signal_number);
    struct assay_worker_counts counts = assay_inference_stop(inference);
    log_counts(&counts);
    return ASSAY_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .device = "cpu",
        .threads = (int64_t)ASSAY_MIN(assay_cpu_count(), ASSAY_POOL_THREADS_MAX),
        .batch_tokens = 4096,
    };
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_settings_outcome outcome;
    assay_shutdown_prepare();
    assay_log_init("inference", ASSAY_LOG_INFO);
    if (parse(argc, argv, &settings, &outcome, &err) != ASSAY_OK) {
        fprintf(stderr, "assay-inference: %s\n", err.text);
        return ASSAY_EXIT_USAGE;
    }
    if (outcome == ASSAY_SETTINGS_DONE)
        return ASSAY_EXIT_PASS;
    struct assay_pool *pool = NULL;
    enum assay_status status = assay_pool_new((size_t)settings.threads, settings.cpus, &pool, &err);
    if (status == ASSAY_OK)
        status = run(&settings, pool, &err);
    if (status != ASSAY_OK)
        assay_log(ASSAY_LOG_ERROR, "cannot start reason=\"%s\"", err.text);
    assay_pool_free(pool);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_exit_code(status);
}
