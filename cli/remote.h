/* A connection to a coordinator. */
#pragma once

#include "common/base/fs.h"
#include "common/base/settings.h"
#include "common/wire/client.h"
#include "proto/control.pb-c.h"

/* Methods of the coordinator, in the order of proto/control.proto. */
enum assay_coordinator_method {
    ASSAY_COORDINATOR_REGISTER_SERVICE,
    ASSAY_COORDINATOR_HEARTBEAT,
    ASSAY_COORDINATOR_LIST_SERVICES,
    ASSAY_COORDINATOR_WATCH_DEMAND,
    ASSAY_COORDINATOR_SUBMIT_JOB,
    ASSAY_COORDINATOR_WATCH_EVENTS,
    ASSAY_COORDINATOR_GET_JOB,
    ASSAY_COORDINATOR_LIST_JOBS,
    ASSAY_COORDINATOR_CANCEL_JOB,
    ASSAY_COORDINATOR_PLAN_JOB,
    ASSAY_COORDINATOR_PAUSE_JOB,
    ASSAY_COORDINATOR_RESUME_JOB,
    ASSAY_COORDINATOR_RETRY_JOB,
    ASSAY_COORDINATOR_REMOVE_JOB,
};

/* Keys of this process as a client: rows of the settings of each command that connects. */
extern struct assay_remote_keys {
    const char *key, *server_public_key; /* files; NULL or "": none */
} assay_remote_keys;
#define ASSAY_REMOTE_KEY_SETTINGS                                                                                      \
    {.name = "key",                                                                                                    \
     .type = ASSAY_SETTING_STRING,                                                                                     \
     .target = &assay_remote_keys.key,                                                                                 \
     .argument = "FILE",                                                                                               \
     .help = "secret key to connect with, where the stack is on another host",                                         \
     .is_secret = true},                                                                                               \
    {                                                                                                                  \
        .name = "server-public-key", .type = ASSAY_SETTING_STRING, .target = &assay_remote_keys.server_public_key,     \
        .argument = "FILE", .help = "public key of that stack"                                                         \
    }

/* The rows of a command that speaks to the stack of `data_target`, or to `coordinator_target`, const char ** each. */
#define ASSAY_REMOTE_SETTINGS(data_target, coordinator_target)                                                         \
    {.name = "data",                                                                                                   \
     .type = ASSAY_SETTING_STRING,                                                                                     \
     .target = (data_target),                                                                                          \
     .argument = "DIR",                                                                                                \
     .help = "data directory of the stack (else $XDG_DATA_HOME/assay)"},                                               \
        {.name = "coordinator",                                                                                        \
         .type = ASSAY_SETTING_STRING,                                                                                 \
         .target = (coordinator_target),                                                                               \
         .argument = "ENDPOINT",                                                                                       \
         .help = "coordinator of another stack"},                                                                      \
        ASSAY_REMOTE_KEY_SETTINGS

struct assay_remote {
    struct assay_loop *loop;
    struct assay_client *client;
};

/* Connects in the background. *remote is zeroed before; close it whatever the outcome. */
enum assay_status assay_remote_open(struct assay_remote *remote, const char *endpoint,
                                    struct assay_err *err) ASSAY_MUST_USE;
void assay_remote_close(struct assay_remote *remote); /* zeroed is fine */

/* A call of the coordinator's; the reply is the caller's to free. */
enum assay_status assay_remote_call(struct assay_remote *remote, enum assay_coordinator_method method,
                                    const ProtobufCMessage *request, int64_t deadline_ms, struct assay_reply **ret,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* OK when the server answers within deadline_ms that it serves. */
enum assay_status assay_remote_check(struct assay_remote *remote, int64_t deadline_ms,
                                     struct assay_err *err) ASSAY_MUST_USE;

/* The process that listens on an ipc endpoint (a socket file may have outlived its process): its pid, 0 when it is not
 * to be known, ASSAY_NOBODY when nobody listens or the endpoint is of another kind. */
#define ASSAY_NOBODY (-1)
long assay_remote_listener(const char *endpoint);

/* Where the coordinator of a running stack is: `given` (--coordinator) when not NULL, else the stack that holds
 * data_dir, else its socket when somebody listens there. UNAVAILABLE, with the sentence that says how to start one. */
enum assay_status assay_remote_find(const char *given, const char *data_dir, char endpoint[ASSAY_PATH_MAX],
                                    struct assay_err *err) ASSAY_MUST_USE;

/* Find, open and check at once: for commands that look at a running stack. */
enum assay_status assay_remote_attach(struct assay_remote *remote, const char *given, const char *data_given,
                                      struct assay_err *err) ASSAY_MUST_USE;
