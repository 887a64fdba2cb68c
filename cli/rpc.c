/* assay rpc: any method of any server, requests and replies as JSON. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include "cli/rpc_describe.h"
#include "cli/rpc_target.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/formats/json.h"
#include "common/wire/json.h"
#include "common/wire/limits.h"
#include "common/wire/methods.h"
#include "common/wire/reflection.h"
#include "proto/reflection.pb-c.h"

#define ATTACHMENTS_MAX 62
#define CREDIT 16
#define TURN_MS 100
#define DEADLINE_MS_MAX (7 * 24 * 3600 * 1000.0)
#define LIST_SERVICES_METHOD 0

struct rpc {
    const char *target, *what, *argument, *attach, *data;
    int64_t deadline_ms;
    struct assay_remote remote;
    struct assay_attachment attachments[ATTACHMENTS_MAX];
    size_t attachments_count;
};

static enum assay_status print_line(const char *text, struct assay_err *err)
{
    if (puts(text) == EOF || fflush(stdout) != 0)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "cannot write to stdout");
    return ASSAY_OK;
}

/* `line`: on one line. Attachments are told on stderr. */
static enum assay_status print_reply(const struct assay_reply *reply, bool line, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    enum assay_status status = assay_message_to_json(assay_reply_message(reply), &json, err);
    if (status != ASSAY_OK)
        return status;
    char *text = line ? cJSON_PrintUnformatted(json) : cJSON_Print(json);
    status = text ? print_line(text, err) : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for JSON");
    cJSON_free(text);
    for (size_t i = 0; i < assay_reply_attachments(reply); i++)
        fprintf(stderr, "attachment %zu: %zu bytes\n", i, assay_reply_attachment(reply, i).bytes);
    return status;
}

/* --attach FILE,FILE */
static enum assay_status read_attachments(struct rpc *rpc, struct assay_err *err)
{
    for (const char *at = rpc->attach; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char path[ASSAY_PATH_MAX], *data = NULL;
        size_t len = strcspn(at, ","), bytes;
        if (len == 0 || len >= sizeof path || rpc->attachments_count == ATTACHMENTS_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--attach: wanted FILE[,FILE]*, at most %d files",
                                 ATTACHMENTS_MAX);
        memcpy(path, at, len);
        path[len] = '\0';
        enum assay_status status = assay_file_read(path, ASSAY_WIRE_PART_BYTES_MAX, &data, &bytes, err);
        if (status != ASSAY_OK)
            return status;
        rpc->attachments[rpc->attachments_count++] =
            (struct assay_attachment){.data = data, .bytes = bytes, .release = assay_attachment_free};
    }
    return ASSAY_OK;
}

/* The request's JSON: the argument, stdin for "-", an empty message for none. */
static enum assay_status read_request(const struct rpc *rpc, const ProtobufCMessageDescriptor *descriptor,
                                      ProtobufCMessage **ret, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    assay_auto(assay_free_ptr) char *input = NULL;
    const char *text = rpc->argument ? rpc->argument : "{}";
    size_t bytes = strlen(text);
    enum assay_status status = ASSAY_OK;
    if (strcmp(text, "-") == 0) {
        status = assay_file_read("/dev/stdin", ASSAY_WIRE_PAYLOAD_BYTES_MAX, &input, &bytes, err);
        text = input;
    }
    if (status == ASSAY_OK)
        status = assay_json_parse(text, bytes, "request", &json, err);
    if (status == ASSAY_OK)
        status = assay_message_from_json(descriptor, json, ret, NULL, err);
    return status;
}

static enum assay_status call_stream(struct rpc *rpc, const ProtobufCServiceDescriptor *service, unsigned method,
                                     const ProtobufCMessage *request, const struct assay_call_options *options,
                                     struct assay_err *err)
{
    struct assay_stream *stream = NULL;
    enum assay_status status =
        assay_stream_open(rpc->remote.client, service, method, request, options, CREDIT, &stream, err);
    while (status == ASSAY_OK) {
        struct assay_reply *reply = NULL;
        struct assay_err why = ASSAY_ERR_INIT;
        status = assay_stream_next(stream, TURN_MS, &reply, &why);
        if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0]) {
            status = assay_interrupt_wait(0) ? assay_err_set(err, ASSAY_CANCELLED, "interrupted") : ASSAY_OK;
            continue;
        }
        if (status != ASSAY_OK && err)
            *err = why;
        if (status != ASSAY_OK || !reply)
            break;
        status = print_reply(reply, true, err);
        assay_reply_free(reply);
    }
    assay_stream_close(stream);
    return status;
}

static enum assay_status call_method(struct rpc *rpc, const ProtobufCServiceDescriptor *service, unsigned method,
                                     struct assay_err *err)
{
    assay_auto(assay_message_release) ProtobufCMessage *request = NULL;
    enum assay_status status = read_request(rpc, service->methods[method].input, &request, err);
    if (status == ASSAY_OK)
        status = read_attachments(rpc, err);
    if (status != ASSAY_OK) {
        for (size_t i = 0; i < rpc->attachments_count; i++)
            free((void *)(uintptr_t)rpc->attachments[i].data);
        return status;
    }
    const struct assay_call_options options = {
        .deadline_ms = rpc->deadline_ms, .attachments = rpc->attachments, .attachments_count = rpc->attachments_count};
    if (assay_method_is_stream(service, method))
        return call_stream(rpc, service, method, request, &options, err);
    struct assay_reply *reply = NULL;
    status = assay_call_unary(rpc->remote.client, service, method, request, &options, &reply, err);
    if (status == ASSAY_OK)
        status = print_reply(reply, false, err);
    assay_reply_free(reply);
    return status;
}

static enum assay_status ask_services(struct rpc *rpc, struct assay_reply **ret, struct assay_err *err)
{
    Assay__V1__ReflectServicesRequest request = ASSAY__V1__REFLECT_SERVICES_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = rpc->deadline_ms};
    return assay_call_unary(rpc->remote.client, &assay__v1__reflection__descriptor, LIST_SERVICES_METHOD, &request.base,
                            &options, ret, err);
}

static enum assay_status list(struct rpc *rpc, bool json, struct assay_err *err)
{
    struct assay_reply *reply = NULL;
    enum assay_status status = ask_services(rpc, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__ReflectServicesReply *services = assay_reply_message(reply);
    if (json)
        status = print_reply(reply, false, err);
    for (size_t i = 0; i < services->n_names && !json && status == ASSAY_OK; i++)
        status = print_line(services->names[i], err);
    assay_reply_free(reply);
    return status;
}

/* What the server lists, or one thing by name. */
static enum assay_status describe(struct rpc *rpc, struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    struct assay_reply *reply = NULL;
    enum assay_status status = ASSAY_OK;
    if (rpc->argument) {
        status = assay_rpc_describe(rpc->argument, &text, err);
    } else {
        status = ask_services(rpc, &reply, err);
        const Assay__V1__ReflectServicesReply *services = status == ASSAY_OK ? assay_reply_message(reply) : NULL;
        for (size_t i = 0; services && i < services->n_names && status == ASSAY_OK; i++)
            status = assay_rpc_describe(services->names[i], &text, err);
    }
    if (status == ASSAY_OK)
        fputs(assay_buf_cstr(&text), stdout);
    assay_reply_free(reply);
    return status;
}

static enum assay_status find_method(const char *name, const ProtobufCServiceDescriptor **ret_service,
                                     unsigned *ret_method, struct assay_err *err)
{
    const char *slash = strchr(name, '/');
    char service_name[ASSAY_WIRE_METHOD_BYTES_MAX + 1];
    size_t bytes = slash ? (size_t)(slash - name) : strlen(name);
    snprintf(service_name, sizeof service_name, "%.*s", (int)ASSAY_MIN(bytes, sizeof service_name - 1), name);
    const ProtobufCServiceDescriptor *service = assay_service_find(service_name);
    const ProtobufCMethodDescriptor *method =
        service && slash ? protobuf_c_service_descriptor_get_method_by_name(service, slash + 1) : NULL;
    if (!method)
        return assay_err_set(err, ASSAY_NOT_FOUND,
                             "found '%.120s', wanted list, describe or SERVICE/METHOD, as "
                             "assay.v1.Coordinator/ListServices",
                             name);
    *ret_service = service;
    *ret_method = (unsigned)(method - service->methods);
    return ASSAY_OK;
}

static enum assay_status run(struct rpc *rpc, bool json, struct assay_err *err)
{
    const ProtobufCServiceDescriptor *service = NULL;
    unsigned method = 0;
    char endpoint[ASSAY_PATH_MAX];
    bool lists = strcmp(rpc->what, "list") == 0, describes = strcmp(rpc->what, "describe") == 0;
    enum assay_status status = lists || describes ? ASSAY_OK : find_method(rpc->what, &service, &method, err);
    /* A unary call waits in one place: there a signal ends the process as it is. */
    if (status == ASSAY_OK && service && assay_method_is_stream(service, method))
        assay_interrupt_prepare();
    if (status == ASSAY_OK)
        status = assay_rpc_target_find(rpc->target, rpc->data, endpoint, err);
    if (status == ASSAY_OK)
        status = assay_remote_open(&rpc->remote, endpoint, err);
    if (status != ASSAY_OK)
        return status;
    return lists ? list(rpc, json, err) : describes ? describe(rpc, err) : call_method(rpc, service, method, err);
}

int assay_command_rpc(int argc, char **argv)
{
    const char *positional[3] = {NULL};
    bool json = false;
    struct rpc rpc = {.deadline_ms = 0};
    const struct assay_setting settings[] = {
        {.name = "attach",
         .type = ASSAY_SETTING_STRING,
         .target = &rpc.attach,
         .argument = "FILE,...",
         .help = "files that travel behind the request"},
        {.name = "deadline-ms",
         .type = ASSAY_SETTING_INT,
         .target = &rpc.deadline_ms,
         .max = DEADLINE_MS_MAX,
         .argument = "MS",
         .help = "end the call after that time, 0 for never"},
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &rpc.data,
         .argument = "DIR",
         .help = "data directory of the stack (else $XDG_DATA_HOME/assay)"},
        ASSAY_REMOTE_KEY_SETTINGS,
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "list: print JSON, as calls always do"},
    };
    const struct assay_command command = {
        .usage = "assay rpc TARGET list | describe [NAME] | SERVICE/METHOD [JSON | -] [options]",
        .summary = "Calls a method of a server with a request as JSON, and prints the reply as JSON, a stream's one a "
                   "line. TARGET: coordinator, evaluator, quantizer, inference[:PRECISION], or an endpoint.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = positional,
        .positional_min = 2,
        .positional_max = 3,
    };
    int code;
    struct assay_err err = ASSAY_ERR_INIT;
    if (!assay_say_parse("rpc", &command, argc, argv, &code))
        return code;
    rpc.target = positional[0];
    rpc.what = positional[1];
    rpc.argument = positional[2];
    enum assay_status status = run(&rpc, json, &err);
    assay_remote_close(&rpc.remote);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure("rpc", &err);
}
