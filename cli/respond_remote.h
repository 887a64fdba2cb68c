/* A worker that answers: for commands that can run a model here or there. */
#pragma once

#include "cli/remote.h"
#include "proto/respond.pb-c.h"

enum assay_respond_method { ASSAY_RESPOND_GENERATE, ASSAY_RESPOND_EMBED, ASSAY_RESPOND_CLASSIFY };

/* Where the user wants it done. */
struct assay_respond_where {
    const char *worker; /* an endpoint, or "stack" */
    const char *data;   /* data directory of the stack */
};
/* Rows of settings that fill it. */
#define ASSAY_RESPOND_WHERE_SETTINGS(where)                                                                            \
    {.name = "worker",                                                                                                 \
     .type = ASSAY_SETTING_STRING,                                                                                     \
     .target = &(where).worker,                                                                                        \
     .argument = "ENDPOINT",                                                                                           \
     .help = "let this worker do it; \"stack\": one of the model's precision, of the stack on --data"},                \
        {.name = "data",                                                                                               \
         .type = ASSAY_SETTING_STRING,                                                                                 \
         .target = &(where).data,                                                                                      \
         .argument = "DIR",                                                                                            \
         .help = "data directory of the stack; given here, it stands for --worker stack, too"},                        \
        ASSAY_REMOTE_KEY_SETTINGS

/* False: here, in this process. A data directory from the environment alone does not send the work elsewhere. */
bool assay_respond_is_remote(const struct assay_respond_where *where);

/* The model as a worker is told: an artifact names its scheme, a checkpoint is of fp32. A path that is not to be seen
 * here is taken as it is, when absolute. */
struct assay_respond_model {
    char dir[ASSAY_PATH_MAX];
    char precision[64]; /* "" when the path is not to be seen here */
    Assay__V1__Variant message;
};
/* Points into itself: not to be moved. */
enum assay_status assay_respond_model_read(const char *path, struct assay_respond_model *ret,
                                           struct assay_err *err) ASSAY_MUST_USE;

/* Connects to the worker. *remote is zeroed before; close it whatever the outcome. NOT_FOUND: the stack has no ready
 * worker of the model's precision. */
enum assay_status assay_respond_connect(const struct assay_respond_where *where,
                                        const struct assay_respond_model *model, struct assay_remote *remote,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* A unary call that Ctrl-C cancels (CANCELLED); signals were prepared for (interrupt.h). */
enum assay_status assay_respond_call(struct assay_remote *remote, enum assay_respond_method method,
                                     const ProtobufCMessage *request, struct assay_reply **ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
