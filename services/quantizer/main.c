/* assay-quantizer: checkpoint in, artifact out. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/artifact/staging.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/base/settings.h"
#include "common/wire/member.h"
#include "services/quantizer/serve.h"

struct settings {
    const char *data, *coordinator, *listen, *cpus;
    int64_t threads;
};

struct program {
    char data_dir[ASSAY_PATH_MAX], artifacts_dir[ASSAY_PATH_MAX];
    char coordinator[ASSAY_PATH_MAX], listen[ASSAY_PATH_MAX];
    struct assay_pool *pool;
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_quantizer *quantizer;
    struct assay_client *client;
    struct assay_member *member;
};

static enum assay_status parse(int argc, char **argv, struct settings *settings, enum assay_settings_outcome *ret,
                               struct assay_err *err)
{
    settings->threads = (int64_t)ASSAY_MIN(assay_cpu_count(), ASSAY_POOL_THREADS_MAX);
    const struct assay_setting rows[] = {
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
         .help = "where to serve, DATA/run/quantizer-PID.sock if not given"},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &settings->threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads that quantize"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &settings->cpus,
         .argument = "LIST",
         .help = "CPUs to pin the threads to, as 0-3,8"},
    };
    const struct assay_command command = {
        .usage = "assay-quantizer [--data DIR] [--coordinator ENDPOINT]",
        .summary = "Makes quantized artifacts of checkpoints, on request of the coordinator.",
        .settings = rows,
        .settings_count = ASSAY_COUNT(rows),
    };
    return assay_settings_parse(&command, argc, argv, ret, err);
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

static enum assay_status prepare_directories(struct program *program, const struct settings *settings,
                                             struct assay_err *err)
{
    char run_dir[ASSAY_PATH_MAX], socket[64];
    snprintf(socket, sizeof socket, ASSAY_RUN_DIR "/quantizer-%ld.sock", (long)getpid());
    enum assay_status status = assay_data_dir(settings->data, program->data_dir, err);
    if (status == ASSAY_OK)
        status = assay_path_join(run_dir, program->data_dir, ASSAY_RUN_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(run_dir, 0700, err);
    if (status == ASSAY_OK)
        status = assay_path_join(program->artifacts_dir, program->data_dir, ASSAY_ARTIFACTS_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(program->artifacts_dir, 0755, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(settings->coordinator, program->data_dir, ASSAY_COORDINATOR_SOCKET,
                                 program->coordinator, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(settings->listen, program->data_dir, socket, program->listen, err);
    size_t removed = 0;
    if (status == ASSAY_OK)
        status = assay_staging_sweep(program->artifacts_dir, &removed, err);
    if (status == ASSAY_OK && removed)
        assay_log(ASSAY_LOG_INFO, "half-made artifacts of dead processes removed count=%zu", removed);
    return status;
}

static enum assay_status start(struct program *program, const struct settings *settings, struct assay_err *err)
{
    enum assay_status status = prepare_directories(program, settings, err);
    if (status == ASSAY_OK)
        status = assay_pool_new((size_t)settings->threads, settings->cpus, &program->pool, err);
    if (status == ASSAY_OK)
        status = assay_loop_new(&program->loop, err);
    if (status == ASSAY_OK)
        status = assay_server_new(program->loop, program->listen, &program->server, err);
    if (status == ASSAY_OK)
        status = assay_quantizer_start(program->loop, program->server, program->artifacts_dir, program->pool,
                                       &program->quantizer, err);
    if (status == ASSAY_OK)
        status = assay_client_new(program->loop, program->coordinator, &program->client, err);
    if (status == ASSAY_OK)
        status = assay_loop_start(program->loop, err);
    return status;
}

static enum assay_status join_stack(struct program *program, const struct settings *settings, struct assay_err *err)
{
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    registration.has_kind = true;
    registration.kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_QUANTIZER;
    registration.endpoint = (char *)assay_server_endpoint(program->server);
    registration.has_threads = true;
    registration.threads = (uint32_t)settings->threads;
    return assay_member_start(program->client, &registration, NULL, NULL, &program->member, err);
}

static void end(struct program *program, bool loop_runs)
{
    assay_member_stop(program->member);
    assay_quantizer_stop(program->quantizer);
    assay_client_free(program->client);
    if (loop_runs)
        assay_loop_stop_join(program->loop);
    assay_server_free(program->server);
    assay_quantizer_free(program->quantizer);
    assay_loop_free(program->loop);
    assay_pool_free(program->pool);
}

int main(int argc, char **argv)
{
    static struct program program;
    struct settings settings = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_settings_outcome outcome;
    assay_shutdown_prepare();
    assay_log_init("quantizer", ASSAY_LOG_INFO);
    if (parse(argc, argv, &settings, &outcome, &err) != ASSAY_OK) {
        fprintf(stderr, "assay-quantizer: %s\n", err.text);
        return ASSAY_EXIT_USAGE;
    }
    if (outcome == ASSAY_SETTINGS_DONE)
        return ASSAY_EXIT_PASS;
    enum assay_status status = start(&program, &settings, &err);
    bool loop_runs = status == ASSAY_OK;
    if (status == ASSAY_OK)
        status = join_stack(&program, &settings, &err);
    if (status == ASSAY_OK) {
        assay_log(ASSAY_LOG_INFO, "serving endpoint=%s threads=%lld", assay_server_endpoint(program.server),
                  (long long)settings.threads);
        int signal_number = assay_shutdown_wait();
        assay_log(ASSAY_LOG_INFO, "shutting down signal=%d", signal_number);
    } else {
        assay_log(ASSAY_LOG_ERROR, "cannot start reason=\"%s\"", err.text);
    }
    end(&program, loop_runs);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_exit_code(status);
}
