#include "cli/remote.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/stack_lock.h"
#include "common/base/paths.h"
#include "common/wire/security.h"
#include "proto/rpc.pb-c.h"

#define ATTACH_DEADLINE_MS 3000
#define HEALTH_CHECK_METHOD 0

struct assay_remote_keys assay_remote_keys;

enum assay_status assay_remote_open(struct assay_remote *remote, const char *endpoint, struct assay_err *err)
{
    char with_key[ASSAY_PATH_MAX];
    const struct assay_security_options keys = {.key = assay_remote_keys.key};
    enum assay_status status = assay_loop_new(&remote->loop, err);
    if (status == ASSAY_OK && keys.key && keys.key[0])
        status = assay_loop_secure(remote->loop, &keys, err);
    if (status == ASSAY_OK)
        status = assay_endpoint_with_key(endpoint, assay_remote_keys.server_public_key, with_key, err);
    if (status == ASSAY_OK)
        status = assay_client_new(remote->loop, with_key, &remote->client, err);
    if (status == ASSAY_OK)
        status = assay_loop_start(remote->loop, err);
    if (status != ASSAY_OK) {
        assay_client_free(remote->client);
        assay_loop_free(remote->loop);
        *remote = (struct assay_remote){0};
    }
    return status;
}

void assay_remote_close(struct assay_remote *remote)
{
    if (!remote->loop)
        return;
    assay_client_free(remote->client);
    assay_loop_stop_join(remote->loop);
    assay_loop_free(remote->loop);
    *remote = (struct assay_remote){0};
}

enum assay_status assay_remote_call(struct assay_remote *remote, enum assay_coordinator_method method,
                                    const ProtobufCMessage *request, int64_t deadline_ms, struct assay_reply **ret,
                                    struct assay_err *err)
{
    bool only_reads = method == ASSAY_COORDINATOR_LIST_SERVICES || method == ASSAY_COORDINATOR_GET_JOB ||
                      method == ASSAY_COORDINATOR_LIST_JOBS || method == ASSAY_COORDINATOR_PLAN_JOB;
    struct assay_call_options options = {.deadline_ms = deadline_ms, .retry = only_reads ? &assay_retry_default : NULL};
    return assay_call_unary(remote->client, &assay__v1__coordinator__descriptor, method, request, &options, ret, err);
}

enum assay_status assay_remote_check(struct assay_remote *remote, int64_t deadline_ms, struct assay_err *err)
{
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    struct assay_call_options options = {.deadline_ms = deadline_ms, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    enum assay_status status = assay_call_unary(remote->client, &assay__v1__health__descriptor, HEALTH_CHECK_METHOD,
                                                &request.base, &options, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__HealthCheckReply *health = assay_reply_message(reply);
    bool serving = health->has_status && health->status == ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING;
    assay_reply_free(reply);
    return serving ? ASSAY_OK
                   : assay_err_set(err, ASSAY_UNAVAILABLE, "the coordinator is alive but does not serve yet");
}

long assay_remote_listener(const char *endpoint)
{
    static const char scheme[] = "ipc://";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t scheme_len = sizeof scheme - 1;
    if (strncmp(endpoint, scheme, scheme_len) != 0 || strlen(endpoint + scheme_len) >= sizeof address.sun_path)
        return ASSAY_NOBODY;
    strcpy(address.sun_path, endpoint + scheme_len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ASSAY_NOBODY;
    struct ucred peer = {0};
    socklen_t len = sizeof peer;
    long pid = ASSAY_NOBODY;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? (long)peer.pid : 0;
    close(fd);
    return pid;
}

enum assay_status assay_remote_find(const char *given, const char *data_dir, char endpoint[ASSAY_PATH_MAX],
                                    struct assay_err *err)
{
    struct assay_stack_holder holder;
    if (given) {
        if (strlen(given) >= ASSAY_PATH_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--coordinator: the endpoint is too long");
        strcpy(endpoint, given);
        return ASSAY_OK;
    }
    enum assay_status status = assay_stack_lock_look(data_dir, &holder, err);
    if (status == ASSAY_OK && holder.running && holder.endpoint[0]) {
        strcpy(endpoint, holder.endpoint);
        return ASSAY_OK;
    }
    char found[ASSAY_PATH_MAX];
    if (status == ASSAY_OK)
        status = assay_ipc_endpoint(data_dir, ASSAY_COORDINATOR_SOCKET, found, err);
    if (status == ASSAY_OK && assay_remote_listener(found) == ASSAY_NOBODY)
        status = assay_err_set(err, ASSAY_UNAVAILABLE, "no stack runs on %s; 'assay up --data %s' starts one", data_dir,
                               data_dir);
    if (status == ASSAY_OK)
        strcpy(endpoint, found);
    return status;
}

enum assay_status assay_remote_attach(struct assay_remote *remote, const char *given, const char *data_given,
                                      struct assay_err *err)
{
    char data_dir[ASSAY_PATH_MAX] = "", endpoint[ASSAY_PATH_MAX];
    enum assay_status status = given ? ASSAY_OK : assay_data_dir(data_given, data_dir, err);
    if (status == ASSAY_OK)
        status = assay_remote_find(given, data_dir, endpoint, err);
    if (status == ASSAY_OK)
        status = assay_remote_open(remote, endpoint, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_remote_check(remote, ATTACH_DEADLINE_MS, err);
    if (status != ASSAY_OK) {
        assay_remote_close(remote);
        if (status == ASSAY_UNAUTHENTICATED || status == ASSAY_PERMISSION_DENIED)
            return status;
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the coordinator at %.300s does not answer within %d s", endpoint,
                             ATTACH_DEADLINE_MS / 1000);
    }
    return ASSAY_OK;
}
