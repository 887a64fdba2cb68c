#include "common/wire/probe.h"

#include <stdio.h>
#include <string.h>

#include "common/base/exit_code.h"
#include "common/base/text.h"
#include "common/wire/client.h"
#include "proto/rpc.pb-c.h"

#define PROBE_MS 3000
enum { HEALTH_CHECK };

static bool is_given(const char *text)
{
    return text && text[0];
}

/* Where to ask a server that listens on all addresses. */
static void reachable(const char *endpoint, char *ret, size_t bytes)
{
    static const struct {
        const char *any, *here;
    } hosts[] = {
        {"tcp://0.0.0.0:", "tcp://127.0.0.1:"}, {"tcp://[::]:", "tcp://[::1]:"}, {"tcp://*:", "tcp://127.0.0.1:"}};
    for (size_t i = 0; i < ASSAY_COUNT(hosts); i++) {
        size_t length = strlen(hosts[i].any);
        if (strncmp(endpoint, hosts[i].any, length) == 0) {
            snprintf(ret, bytes, "%s%s", hosts[i].here, endpoint + length);
            return;
        }
    }
    snprintf(ret, bytes, "%s", endpoint);
}

/* Whom to ask, with the key of the service behind a tcp endpoint that has none. */
static enum assay_status choose(const struct assay_probe *probe, char address[ASSAY_PATH_MAX], struct assay_err *err)
{
    bool is_public = is_given(probe->public_endpoint) && is_given(probe->server_key);
    const char *endpoint = is_given(probe->endpoint) ? probe->endpoint
                           : is_public               ? probe->public_endpoint
                                                     : probe->listen;
    if (strlen(endpoint) >= ASSAY_PATH_MAX - ASSAY_KEY_DIGITS)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the endpoint is too long");
    reachable(endpoint, address, ASSAY_PATH_MAX);
    if (!is_given(probe->server_key) || strncmp(address, "tcp://", 6) != 0 || strchr(address, '#'))
        return ASSAY_OK;
    struct assay_key_pair pair;
    char with_key[ASSAY_ADDRESS_BYTES_MAX];
    enum assay_status status = assay_key_read_secret(probe->server_key, &pair, err);
    if (status == ASSAY_OK) {
        status = assay_address_add_key(address, &pair.public_key, with_key, err);
        assay_key_pair_clear(&pair);
    }
    if (status == ASSAY_OK)
        strcpy(address, with_key);
    return status;
}

static enum assay_status ask(struct assay_client *client, struct assay_err *err)
{
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = PROBE_MS, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_call_unary(client, &assay__v1__health__descriptor, HEALTH_CHECK, &request.base, &options, &reply, err);
    if (status != ASSAY_OK)
        return status;
    const Assay__V1__HealthCheckReply *health = assay_reply_message(reply);
    if (health->status != ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING)
        status = assay_err_set(err, ASSAY_UNAVAILABLE, "the service answers that it does not serve");
    assay_reply_free(reply);
    return status;
}

static enum assay_status run(const struct assay_probe *probe, const char *address, struct assay_err *err)
{
    const struct assay_security_options security = {.key = is_given(probe->key) ? probe->key : probe->server_key};
    struct assay_loop *loop = NULL;
    struct assay_client *client = NULL;
    enum assay_status status = assay_loop_new(&loop, err);
    if (status == ASSAY_OK && is_given(security.key))
        status = assay_loop_secure(loop, &security, err);
    if (status == ASSAY_OK)
        status = assay_client_new(loop, address, &client, err);
    bool runs = false;
    if (status == ASSAY_OK) {
        status = assay_loop_start(loop, err);
        runs = status == ASSAY_OK;
    }
    if (status == ASSAY_OK)
        status = ask(client, err);
    assay_client_free(client);
    if (runs)
        assay_loop_stop_join(loop);
    assay_loop_free(loop);
    return status;
}

int assay_probe(const struct assay_probe *probe)
{
    char address[ASSAY_PATH_MAX] = "";
    struct assay_err err = ASSAY_ERR_INIT;
    if (!is_given(probe->endpoint) && !is_given(probe->listen) &&
        !(is_given(probe->public_endpoint) && is_given(probe->server_key))) {
        fprintf(stderr, "%s: --health: give --endpoint, or the --listen that the service has\n", probe->program);
        return ASSAY_EXIT_USAGE;
    }
    enum assay_status status = choose(probe, address, &err);
    if (status == ASSAY_OK)
        status = run(probe, address, &err);
    assay_text_clean(err.text); /* the sentence may be a peer's */
    if (status != ASSAY_OK)
        fprintf(stderr, "%s: %s: %s\n", probe->program, address, err.text);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : ASSAY_EXIT_FAIL;
}
