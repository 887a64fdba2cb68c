#include <cjson/cJSON.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/say.h"
#include "cli/stack.h"
#include "common/base/exit_code.h"
#include "common/base/log.h"
#include "common/base/paths.h"

#define TURN_MS 200

static void log_events(struct assay_stack *stack)
{
    char text[ASSAY_STACK_EVENT_MAX];
    while (assay_stack_next_event(stack, text))
        assay_log(ASSAY_LOG_INFO, "%s", text);
}

static void print_ready(const char *endpoint, const char *data_dir, bool json)
{
    cJSON *object = json ? cJSON_CreateObject() : NULL;
    cJSON_AddStringToObject(object, "endpoint", endpoint);
    cJSON_AddNumberToObject(object, "pid", (double)getpid());
    cJSON_AddStringToObject(object, "data", data_dir);
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    if (text)
        puts(text);
    else
        printf("ready: %s (process %ld, data %s); stop it with Ctrl-C or 'assay down'\n", endpoint, (long)getpid(),
               data_dir);
    fflush(stdout);
    cJSON_free(text);
    cJSON_Delete(object);
}

static int run(const struct assay_stack_options *options, bool json)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_stack *stack = NULL;
    if (assay_stack_start(options, &stack, &err) != ASSAY_OK)
        return assay_say_setting_failure("up", &err);
    log_events(stack);
    print_ready(assay_stack_endpoint(stack), options->data_dir, json);
    while (assay_stack_state(stack, &err) == ASSAY_OK && !assay_interrupt_wait(TURN_MS))
        log_events(stack);
    log_events(stack);
    int code = err.status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_setting_failure("up", &err);
    assay_stack_stop(stack);
    return code;
}

static int run_on(const char *data, struct assay_stack_options *options, bool json)
{
    char data_dir[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assay_interrupt_prepare();
    assay_log_init("up", ASSAY_LOG_INFO);
    if (assay_data_dir(data, data_dir, &err) != ASSAY_OK)
        return assay_say_setting_failure("up", &err);
    options->data_dir = data_dir;
    return run(options, json);
}

int assay_command_up(int argc, char **argv)
{
    const char *data = NULL;
    bool json = false;
    struct assay_stack_options options = {.evaluators = 1};
    const struct assay_setting settings[] = {
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &data,
         .argument = "DIR",
         .help = "where the stack keeps artifacts, records, jobs, logs (else $XDG_DATA_HOME/assay)"},
        {.name = "listen",
         .type = ASSAY_SETTING_STRING,
         .target = &options.listen,
         .argument = "ENDPOINT",
         .help = "where the coordinator listens, else its socket under DIR/run"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &options.cpus,
         .argument = "LIST",
         .help = "CPUs of all processes, as 0-3,8"},
        {.name = "workers",
         .type = ASSAY_SETTING_STRING,
         .target = &options.workers,
         .argument = "PLAN",
         .help = "workers to start at once, each on its CPUs, as fp32:0-3;int8:4-7"},
        {.name = "evaluators",
         .type = ASSAY_SETTING_INT,
         .target = &options.evaluators,
         .min = 1,
         .max = ASSAY_STACK_EVALUATORS_MAX,
         .argument = "N",
         .help = "evaluators, each with a share of the records"},
        {.name = "public",
         .type = ASSAY_SETTING_STRING,
         .target = &options.public_endpoint,
         .argument = "ENDPOINT",
         .help = "let workers and users of other hosts in there, as tcp://10.0.0.1:7421, whose keys lie in "
                 "DIR/keys/allowed (makes DIR/keys/server.key and server.pub)"},
        {.name = "external",
         .type = ASSAY_SETTING_STRING,
         .target = &options.external,
         .argument = "LIST",
         .help = "precisions whose workers come from elsewhere, as fp32,nf4, or all: none is started for them"},
        {.name = "http",
         .type = ASSAY_SETTING_STRING,
         .target = &options.http,
         .argument = "WHERE",
         .help = "serve /metrics of each process: unix, 127.0.0.1:* (free ports) or 127.0.0.1:PORT (the coordinator's; "
                 "the others follow); 'assay workers' tells the addresses"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "print where it listens as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay up [--data DIR] [--listen ENDPOINT] [--cpus LIST] [--workers PLAN] [--evaluators N] [--public "
                 "ENDPOINT] "
                 "[--external LIST] [--http WHERE] [--json]",
        .summary =
            "Runs a local stack in the foreground: coordinator, quantizer, evaluator, and inference workers, one "
            "a precision, as jobs need them.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
    };
    int code;
    if (!assay_say_parse("up", &command, argc, argv, &code))
        return code;
    return run_on(data, &options, json);
}
