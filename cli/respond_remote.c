#include "cli/respond_remote.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/interrupt.h"
#include "common/artifact/manifest.h"
#include "common/nn/model.h"
#include "common/quant/scheme.h"

#define LIST_MS 5000
#define STACK "stack"

bool assay_respond_is_remote(const struct assay_respond_where *where)
{
    /* Settings that come from the environment point into it. */
    return where->worker || (where->data && where->data != getenv("ASSAY_DATA"));
}

enum assay_status assay_respond_model_read(const char *path, struct assay_respond_model *ret, struct assay_err *err)
{
    char real[PATH_MAX];
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    struct assay_spec spec = {.scheme = ASSAY_SCHEME_FP32};
    struct assay_err why = ASSAY_ERR_INIT;
    bool is_here = realpath(path, real) != NULL;
    if (!is_here && path[0] != '/')
        return assay_err_errno(err, errno, "cannot open the model %.300s", path);
    const char *dir = is_here ? real : path;
    if (strlen(dir) >= sizeof ret->dir)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the path of the model is longer than %zu bytes",
                             sizeof ret->dir - 1);
    enum assay_status status = is_here ? assay_manifest_read(dir, &manifest, &why) : ASSAY_NOT_FOUND;
    if (status == ASSAY_OK)
        status = assay_spec_parse(manifest.spec, &spec, &why);
    else if (status == ASSAY_NOT_FOUND)
        status = ASSAY_OK;
    assay_manifest_release(&manifest);
    if (status != ASSAY_OK)
        return assay_err_set(err, status, "%s", why.text);
    *ret = (struct assay_respond_model){.message = ASSAY__V1__VARIANT__INIT};
    strcpy(ret->dir, dir);
    if (is_here)
        strcpy(ret->precision, assay_scheme_name(spec.scheme));
    ret->message.artifact_dir = ret->dir;
    return ASSAY_OK;
}

/* --- which worker --- */

/* Workers of other engines do not answer users. */
static bool is_our_engine(const char *numerics_id)
{
    const char *ours = assay_numerics_id();
    size_t len = strcspn(ours, "-");
    return numerics_id && strncmp(numerics_id, ours, len) == 0 && numerics_id[len] == '-';
}

/* Ready ones before those at work; 0 for one that is no candidate. */
static int fitness(const Assay__V1__ServiceInfo *service, const char *precision)
{
    const Assay__V1__RegisterRequest *who = service->registration;
    const char *state = service->state ? service->state : "";
    if (!who || who->kind != ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE || !who->endpoint || !who->precision ||
        strlen(who->endpoint) >= ASSAY_PATH_MAX || !is_our_engine(who->numerics_id) ||
        (precision[0] && strcmp(who->precision, precision) != 0))
        return 0;
    return strcmp(state, "ready") == 0 ? 2 : strcmp(state, "leased") == 0 ? 1 : 0;
}

static enum assay_status find_worker(const char *data, const char *precision, char endpoint[ASSAY_PATH_MAX],
                                     struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct assay_remote coordinator = {0};
    struct assay_reply *reply = NULL;
    const char *found = NULL;
    int best = 0;
    enum assay_status status = assay_remote_attach(&coordinator, NULL, data, err);
    if (status == ASSAY_OK)
        status = assay_remote_call(&coordinator, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, LIST_MS, &reply, err);
    const Assay__V1__ListServicesReply *services = status == ASSAY_OK ? assay_reply_message(reply) : NULL;
    for (size_t i = 0; services && i < services->n_services; i++) {
        int fits = fitness(services->services[i], precision);
        if (fits > best) {
            best = fits;
            found = services->services[i]->registration->endpoint;
        }
    }
    if (found)
        strcpy(endpoint, found);
    else if (status == ASSAY_OK)
        status = assay_err_set(err, ASSAY_NOT_FOUND,
                               "the stack has no ready worker%s%s; 'assay-inference --precision %s' on the same --data "
                               "starts one",
                               precision[0] ? " of " : "", precision, precision[0] ? precision : "SCHEME");
    assay_reply_free(reply);
    assay_remote_close(&coordinator);
    return status;
}

enum assay_status assay_respond_connect(const struct assay_respond_where *where,
                                        const struct assay_respond_model *model, struct assay_remote *remote,
                                        struct assay_err *err)
{
    char endpoint[ASSAY_PATH_MAX];
    enum assay_status status = ASSAY_OK;
    if (!where->worker || strcmp(where->worker, STACK) == 0)
        status = find_worker(where->data, model->precision, endpoint, err);
    else if (strlen(where->worker) >= sizeof endpoint)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--worker: the endpoint is too long");
    else
        strcpy(endpoint, where->worker);
    return status == ASSAY_OK ? assay_remote_open(remote, endpoint, err) : status;
}

/* --- a call that can be interrupted --- */

struct pending_call {
    struct assay_remote *remote;
    enum assay_respond_method method;
    const ProtobufCMessage *request;
    struct assay_reply *reply;
    enum assay_status status;
    struct assay_err err;
    atomic_bool done;
};

static void *call_main(void *arg)
{
    struct pending_call *call = arg;
    call->status = assay_call_unary(call->remote->client, &assay__v1__respond__descriptor, call->method, call->request,
                                    NULL, &call->reply, &call->err);
    atomic_store(&call->done, true);
    return NULL;
}

enum assay_status assay_respond_call(struct assay_remote *remote, enum assay_respond_method method,
                                     const ProtobufCMessage *request, struct assay_reply **ret, struct assay_err *err)
{
    static const struct timespec pause = {.tv_nsec = 1000000};
    struct pending_call call = {.remote = remote, .method = method, .request = request};
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, call_main, &call);
    if (failed)
        return assay_err_errno(err, failed, "cannot start a thread");
    bool interrupted = false;
    while (!atomic_load(&call.done)) {
        nanosleep(&pause, NULL);
        interrupted = assay_interrupt_wait(0);
        if (interrupted) /* again and again: the call may be about to begin */
            assay_client_cancel_all(remote->client);
    }
    pthread_join(thread, NULL);
    if (call.status == ASSAY_OK) {
        *ret = call.reply;
        return ASSAY_OK;
    }
    if (interrupted)
        return assay_err_set(err, ASSAY_CANCELLED, "interrupted");
    return assay_err_set(err, call.status, "%s", call.err.text);
}
