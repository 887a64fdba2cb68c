#include "common/wire/service.h"

#include <assert.h>
#include <sodium/core.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/paths.h"
#include "common/base/text.h"
#include "common/wire/probe.h"

#define OBSERVE_SETTINGS 5
/* How long calls under way may take to be answered after a shutdown began, beside what a service gives its own work. */
#define ANSWER_MS 2000

static enum assay_status parse(const struct assay_service_program *program, struct assay_service_process *service,
                               int argc, char **argv, enum assay_settings_outcome *ret, struct assay_err *err)
{
    const struct assay_setting observe[] = {ASSAY_OBSERVE_SETTINGS(service->settings.observe)};
    struct assay_setting rows[ASSAY_SERVICE_COMMON_ROWS + ASSAY_SERVICE_SETTINGS_MAX + OBSERVE_SETTINGS];
    size_t count;
    if (program->settings_count > ASSAY_SERVICE_SETTINGS_MAX)
        ASSAY_BUG("too many settings of one service");
    assay_service_rows(program, &service->settings, rows, &count);
    for (size_t i = 0; i < program->settings_count; i++)
        rows[count++] = program->settings[i];
    static_assert(ASSAY_COUNT(observe) == OBSERVE_SETTINGS, "there is room for them");
    for (size_t i = 0; i < ASSAY_COUNT(observe); i++)
        rows[count++] = observe[i];
    const struct assay_command command = {
        .usage = program->usage, .summary = program->summary, .settings = rows, .settings_count = count};
    enum assay_status status = assay_settings_parse(&command, argc, argv, ret, err);
    if (status == ASSAY_OK && *ret == ASSAY_SETTINGS_RUN && program->check && !service->settings.observe.probe)
        status = program->check(service, err);
    return status;
}

static bool is_given(const char *text)
{
    return text && text[0];
}

static enum assay_status choose_endpoint(const char *given, const char *data_dir, const char *name,
                                         char endpoint[ASSAY_PATH_MAX], struct assay_err *err)
{
    if (!is_given(given))
        return assay_ipc_endpoint(data_dir, name, endpoint, err);
    if (strlen(given) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "an endpoint has at most %d bytes", ASSAY_PATH_MAX - 1);
    strcpy(endpoint, given);
    return ASSAY_OK;
}

/* A second endpoint, behind a comma. */
static enum assay_status add_public(struct assay_service_process *service, struct assay_err *err)
{
    const char *given = service->settings.public_endpoint;
    size_t used = strlen(service->listen);
    if (strncmp(given, "tcp://", 6) != 0 || used + strlen(given) + 2 > sizeof service->listen)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--public: found '%.200s', wanted tcp://ADDRESS:PORT", given);
    if (!is_given(service->settings.server_key))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--public: wants --server-key and --keys: nobody beyond this machine gets in without");
    snprintf(service->listen + used, sizeof service->listen - used, ",%s", given);
    return ASSAY_OK;
}

static enum assay_status prepare_directories(const struct assay_service_program *program,
                                             struct assay_service_process *service, struct assay_err *err)
{
    char run_dir[ASSAY_PATH_MAX], socket[64];
    if (program->is_coordinator)
        strcpy(socket, ASSAY_COORDINATOR_SOCKET);
    else
        snprintf(socket, sizeof socket, ASSAY_RUN_DIR "/%s-%ld.sock", program->name, (long)getpid());
    enum assay_status status = assay_data_dir(service->settings.data, service->data_dir, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(service->data_dir, 0700, err);
    if (status == ASSAY_OK)
        status = assay_path_join(run_dir, service->data_dir, ASSAY_RUN_DIR, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(run_dir, 0700, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(service->settings.coordinator, service->data_dir, ASSAY_COORDINATOR_SOCKET,
                                 service->coordinator, err);
    if (status == ASSAY_OK)
        status = choose_endpoint(service->settings.listen, service->data_dir, socket, service->listen, err);
    if (status == ASSAY_OK)
        status = assay_endpoint_with_key(service->coordinator, service->settings.server_public_key,
                                         service->coordinator, err);
    if (status == ASSAY_OK && is_given(service->settings.public_endpoint))
        status = add_public(service, err);
    return status;
}

static void report_keys(const char *sentence)
{
    assay_log(ASSAY_LOG_INFO, "%s", sentence);
}

static enum assay_status secure(struct assay_service_process *service, struct assay_err *err)
{
    const struct assay_service_settings *settings = &service->settings;
    const struct assay_security_options options = {
        .server_key = settings->server_key, .keys = settings->keys, .key = settings->key, .report = report_keys};
    if (!is_given(settings->server_key) && !is_given(settings->keys) && !is_given(settings->key))
        return ASSAY_OK;
    return assay_loop_secure(service->loop, &options, err);
}

static enum assay_status serve(const struct assay_service_program *program, struct assay_service_process *service,
                               struct assay_err *err)
{
    const struct assay_service_settings *settings = &service->settings;
    const struct assay_server_limits limits = {
        .parts = (uint32_t)settings->parts_max,
        .message_bytes = (uint64_t)settings->message_mb_max << 20,
        .calls = (uint32_t)settings->calls_max,
        .messages_per_s = (uint32_t)settings->rate_max,
        .garbage = (uint32_t)settings->garbage_max,
        .connections = (uint32_t)settings->connections_max,
        .key_connections = (uint32_t)settings->key_connections_max,
    };
    enum assay_status status = assay_server_new(service->loop, service->listen, &service->server, err);
    if (status != ASSAY_OK)
        return status;
    assay_server_set_limits(service->server, &limits);
    status = assay_address_advertise(assay_server_endpoint(service->server), settings->advertise, service->advertised,
                                     sizeof service->advertised, err);
    /* Nobody is told of a coordinator, so it may well be everywhere. */
    return program->is_coordinator ? ASSAY_OK : status;
}

static enum assay_status run_step(assay_service_fn step, struct assay_service_process *service, struct assay_err *err)
{
    return step ? step(service, err) : ASSAY_OK;
}

static enum assay_status join_stack(const struct assay_service_program *program, struct assay_service_process *service,
                                    struct assay_err *err)
{
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    registration.has_kind = true;
    registration.kind = program->kind;
    registration.endpoint = service->advertised;
    registration.has_threads = true;
    registration.threads = (uint32_t)service->settings.threads;
    registration.http = (char *)(uintptr_t)assay_observe_url(service->observe);
    if (program->describe)
        program->describe(service, &registration);
    enum assay_status status =
        assay_member_start(service->client, &registration, program->count, service->arg, &service->member, err);
    if (status == ASSAY_OK)
        assay_observe_member(service->observe, service->member);
    return status;
}

static enum assay_status observe(const struct assay_service_program *program, struct assay_service_process *service,
                                 struct assay_err *err)
{
    if (program->measure)
        program->measure(service, assay_observe_metrics(service->observe));
    return assay_observe_serve(service->observe, service->server, err);
}

/* --health: the answer of the service that runs with these settings, or at --endpoint. */
static int probe(const struct assay_service_program *program, const struct assay_service_process *service)
{
    char name[64], data_dir[ASSAY_PATH_MAX], endpoint[ASSAY_PATH_MAX];
    const char *listen = service->settings.listen;
    snprintf(name, sizeof name, "assay-%s", program->name);
    if (program->is_coordinator && (!listen || !listen[0]) &&
        assay_data_dir(service->settings.data, data_dir, NULL) == ASSAY_OK &&
        assay_ipc_endpoint(data_dir, ASSAY_COORDINATOR_SOCKET, endpoint, NULL) == ASSAY_OK)
        listen = endpoint;
    const struct assay_probe asked = {.program = name,
                                      .endpoint = service->settings.observe.probe_endpoint,
                                      .public_endpoint = service->settings.public_endpoint,
                                      .listen = listen,
                                      .server_key = service->settings.server_key,
                                      .key = service->settings.key};
    return assay_probe(&asked);
}

static enum assay_status start(const struct assay_service_program *program, struct assay_service_process *service,
                               struct assay_err *err)
{
    bool is_member = !program->is_coordinator;
    enum assay_status status = prepare_directories(program, service, err);
    if (status == ASSAY_OK)
        status = assay_observe_start(&service->settings.observe, program->name,
                                     program->precision ? *program->precision : "", &service->observe, err);
    if (status == ASSAY_OK && is_member)
        status = assay_pool_new((size_t)service->settings.threads, service->settings.cpus, &service->pool, err);
    if (status == ASSAY_OK)
        status = assay_loop_new(&service->loop, err);
    if (status == ASSAY_OK)
        status = secure(service, err);
    if (status == ASSAY_OK)
        status = run_step(program->open, service, err);
    if (status == ASSAY_OK)
        status = serve(program, service, err);
    if (status == ASSAY_OK && is_member)
        status = assay_client_new(service->loop, service->coordinator, &service->client, err);
    if (status == ASSAY_OK)
        status = run_step(program->prepare, service, err);
    if (status == ASSAY_OK)
        status = observe(program, service, err);
    if (status == ASSAY_OK)
        status = assay_loop_start(service->loop, err);
    service->loop_runs = status == ASSAY_OK;
    if (status == ASSAY_OK)
        status = run_step(program->start, service, err);
    if (status == ASSAY_OK && is_member)
        status = join_stack(program, service, err);
    if (status == ASSAY_OK)
        status = run_step(program->begin, service, err);
    return status;
}

static void drain_server(void *server)
{
    assay_server_drain(server);
}

struct unary_calls {
    const struct assay_server *server;
    size_t count;
};

static void count_calls(void *arg)
{
    struct unary_calls *calls = arg;
    calls->count = assay_server_unary_calls(calls->server);
}

/* Calls under way are answered, as far as that takes no longer than a moment. */
static void await_calls(struct assay_service_process *service)
{
    const struct timespec pause = {.tv_nsec = 10 * 1000000};
    struct unary_calls calls = {.server = service->server, .count = 1};
    int64_t until_ms = assay_now_ms() + ANSWER_MS;
    while (calls.count > 0 && assay_now_ms() < until_ms) {
        assay_loop_call(service->loop, count_calls, &calls);
        if (calls.count > 0)
            nanosleep(&pause, NULL);
    }
}

static void free_server(void *server)
{
    assay_server_free(server);
}

static void stop(const struct assay_service_program *program, struct assay_service_process *service)
{
    if (service->loop_runs) {
        assay_loop_call(service->loop, drain_server, service->server);
        if (program->drain)
            program->drain(service);
        await_calls(service);
    }
    assay_observe_close(service->observe);
    assay_member_stop(service->member);
    assay_client_free(service->client);
    if (service->loop_runs) {
        /* On the loop's thread, so that answers under way leave. */
        assay_loop_call(service->loop, free_server, service->server);
        assay_loop_stop_join(service->loop);
    } else {
        assay_server_free(service->server);
    }
    if (program->close)
        program->close(service);
    assay_loop_free(service->loop);
    assay_observe_free(service->observe);
    assay_pool_free(service->pool);
}

int assay_service_main(const struct assay_service_program *program, int argc, char **argv, void *arg)
{
    struct assay_service_process service = {.arg = arg};
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_settings_outcome outcome;
    assay_shutdown_prepare();
    assay_log_init(program->name, ASSAY_LOG_INFO);
    if (parse(program, &service, argc, argv, &outcome, &err) != ASSAY_OK) {
        fprintf(stderr, "assay-%s: %s\n", program->name, err.text);
        return ASSAY_EXIT_USAGE;
    }
    if (outcome == ASSAY_SETTINGS_DONE)
        return ASSAY_EXIT_PASS;
    if (sodium_init() < 0)
        return ASSAY_EXIT_INTERNAL;
    if (service.settings.observe.probe)
        return probe(program, &service);
    enum assay_status status = start(program, &service, &err);
    if (status == ASSAY_OK) {
        const char *url = assay_observe_url(service.observe);
        assay_log(ASSAY_LOG_INFO, "serving endpoint=%s http=%s", assay_server_endpoint(service.server),
                  url[0] ? url : "off");
        service.signal_number = assay_shutdown_wait();
        assay_log(ASSAY_LOG_INFO, "shutting down signal=%d", service.signal_number);
        if (program->leave)
            program->leave(&service);
    } else {
        assay_text_clean(err.text);
        fprintf(stderr, "assay-%s: %s\n", program->name, err.text);
    }
    stop(program, &service);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_exit_code(status);
}
