#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "common/wire/security_internal.h"
#include "common/wire/zap.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
/* How often the directory of allowed keys is looked at: a revoked key is out within two of these. */
#define REFRESH_MS 1000
/* Requests answered before timers and other sockets have their turn. */
#define BURST 16

static bool is_given(const char *text)
{
    return text && text[0];
}

/* --- ZAP --- */

static void send_part(void *socket, const void *data, size_t bytes, bool more)
{
    zmq_send(socket, data, bytes, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
}

static bool is_banned(const struct assay_security *security, const struct assay_public_key *key)
{
    int64_t now_ms = assay_now_ms();
    for (size_t i = 0; i < ASSAY_BANS_MAX; i++)
        if (security->bans[i].until_ms > now_ms && memcmp(&security->bans[i].key, key, sizeof *key) == 0)
            return true;
    return false;
}

static void answer(struct assay_security *security, zmq_msg_t *parts, size_t count)
{
    struct assay_bytes frames[ASSAY_ZAP_FRAMES_MAX];
    struct assay_zap_answer answer;
    for (size_t i = 1; i < count; i++)
        frames[i - 1] = (struct assay_bytes){zmq_msg_data(&parts[i]), zmq_msg_size(&parts[i])};
    assay_zap_decide(&security->keyring, frames, count - 1, &answer);
    if (!answer.request_id.data)
        return;
    if (answer.has_key && strcmp(answer.code, "200") == 0 && is_banned(security, &answer.key)) {
        answer.code = "300";
        answer.text = "the key is kept out for a while";
        answer.user[0] = '\0';
    }
    security->refused += strcmp(answer.code, "200") != 0;
    void *zap = security->zap;
    send_part(zap, zmq_msg_data(&parts[0]), zmq_msg_size(&parts[0]), true);
    send_part(zap, "", 0, true);
    send_part(zap, "1.0", 3, true);
    send_part(zap, answer.request_id.data, answer.request_id.bytes, true);
    send_part(zap, answer.code, 3, true);
    send_part(zap, answer.text, strlen(answer.text), true);
    send_part(zap, answer.user, strlen(answer.user), true);
    send_part(zap, "", 0, false);
}

/* One request; false when there is none. */
static bool take_request(struct assay_security *security)
{
    zmq_msg_t parts[ASSAY_ZAP_FRAMES_MAX + 1];
    size_t count = 0;
    int more = 1;
    while (more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, security->zap, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            break;
        }
        more = zmq_msg_more(&part);
        if (count < ASSAY_COUNT(parts)) {
            zmq_msg_init(&parts[count]);
            zmq_msg_move(&parts[count++], &part);
        }
        zmq_msg_close(&part);
    }
    if (count > 1)
        answer(security, parts, count);
    for (size_t i = 0; i < count; i++)
        zmq_msg_close(&parts[i]);
    return count > 0;
}

static void on_request(void *arg)
{
    struct assay_security *security = arg;
    int taken = 0;
    while (taken < BURST && take_request(security))
        taken++;
    security->watch.touched = taken == BURST;
}

/* --- keys --- */

static void report_keys(const struct assay_security *security)
{
    char text[700];
    if (!security->report)
        return;
    snprintf(text, sizeof text, "allowed keys read directory=%.100s keys=%zu broken=%zu%s%s", security->keyring.dir,
             security->keyring.count, security->keyring.broken, security->keyring.broken ? " first: " : "",
             security->keyring.broken ? security->keyring.first_broken.text : "");
    security->report(text);
}

static void refresh(void *arg)
{
    struct assay_security *security = arg;
    if (assay_keyring_refresh(&security->keyring))
        report_keys(security);
}

static enum assay_status open_zap(struct assay_security *security, struct assay_err *err)
{
    int linger_ms = 0;
    security->zap = zmq_socket(assay_loop_zmq(security->loop), ZMQ_ROUTER);
    if (!security->zap || zmq_setsockopt(security->zap, ZMQ_LINGER, &linger_ms, sizeof linger_ms) != 0 ||
        zmq_bind(security->zap, ZAP_ENDPOINT) != 0)
        return assay_err_errno(err, zmq_errno(), "cannot answer for who may connect");
    security->watch =
        (struct assay_watch){.socket = security->zap, .events = ZMQ_POLLIN, .fn = on_request, .arg = security};
    enum assay_status status = assay_loop_watch(security->loop, &security->watch, err);
    if (status != ASSAY_OK)
        return status;
    security->timer = assay_loop_timer(security->loop, REFRESH_MS, REFRESH_MS, refresh, security);
    return security->timer ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a timer");
}

enum assay_status assay_security_new(struct assay_loop *loop, const struct assay_security_options *options,
                                     struct assay_security **ret, struct assay_err *err)
{
    if (is_given(options->server_key) != is_given(options->keys))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a server key and a directory of allowed keys go together: %s is missing",
                             is_given(options->keys) ? "the server key" : "the directory");
    struct assay_security *security = calloc(1, sizeof *security);
    if (!security)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for keys");
    security->loop = loop;
    security->report = options->report;
    enum assay_status status = ASSAY_OK;
    if (is_given(options->key))
        status = assay_key_read_secret(options->key, &security->client, err);
    security->connects = is_given(options->key);
    if (status == ASSAY_OK && is_given(options->server_key)) {
        security->serves = true;
        status = assay_key_read_secret(options->server_key, &security->server, err);
        if (status == ASSAY_OK)
            status = assay_keyring_open(&security->keyring, options->keys, err);
        if (status == ASSAY_OK)
            status = open_zap(security, err);
    }
    if (status != ASSAY_OK) {
        assay_security_free(security);
        return status;
    }
    if (security->serves)
        report_keys(security);
    *ret = security;
    return ASSAY_OK;
}

void assay_security_free(struct assay_security *security)
{
    if (!security)
        return;
    assay_loop_timer_cancel(security->loop, security->timer);
    if (security->watch.socket)
        assay_loop_unwatch(security->loop, &security->watch);
    if (security->zap)
        zmq_close(security->zap);
    assay_keyring_release(&security->keyring);
    assay_key_pair_clear(&security->server);
    assay_key_pair_clear(&security->client);
    free(security);
}

void assay_security_ban(struct assay_security *security, const struct assay_public_key *key, int64_t until_ms)
{
    security->bans[security->bans_next] = (struct assay_ban){*key, until_ms};
    security->bans_next = (security->bans_next + 1) % ASSAY_BANS_MAX;
}

enum assay_role assay_security_role(const struct assay_security *security, const char *user,
                                    struct assay_public_key *ret_key)
{
    struct assay_public_key key;
    if (!user)
        return ASSAY_ROLE_NONE;
    if (strcmp(user, ASSAY_ZAP_USER_LOCAL) == 0)
        return ASSAY_ROLE_ADMIN;
    if (!assay_public_key_parse(user, strlen(user), &key))
        return ASSAY_ROLE_NONE;
    if (ret_key)
        *ret_key = key;
    const struct assay_keyring_entry *entry = assay_keyring_find(&security->keyring, &key);
    return entry ? entry->role : ASSAY_ROLE_NONE;
}

/* --- sockets --- */

static enum assay_status set_all(void *socket, const int *options, const void *const *values, const size_t *bytes,
                                 size_t count, struct assay_err *err)
{
    for (size_t i = 0; i < count; i++)
        if (zmq_setsockopt(socket, options[i], values[i], bytes[i]) != 0)
            return assay_err_errno(err, zmq_errno(), "ZeroMQ refuses a key or its option %d", options[i]);
    return ASSAY_OK;
}

/* Names keep meaning IPv4 addresses: with IPv6 allowed, "localhost" may be another place for the two sides. */
static enum assay_status set_family(void *socket, const struct assay_address *address, struct assay_err *err)
{
    int is_ipv6 = address->is_ipv6;
    return zmq_setsockopt(socket, ZMQ_IPV6, &is_ipv6, sizeof is_ipv6) == 0
               ? ASSAY_OK
               : assay_err_errno(err, zmq_errno(), "ZeroMQ refuses the address family of %s", address->text);
}

enum assay_status assay_security_for_bind(const struct assay_security *security, void *socket,
                                          const struct assay_address *address, struct assay_err *err)
{
    bool keyed = security && security->serves;
    enum assay_status status = set_family(socket, address, err);
    if (status != ASSAY_OK)
        return status;
    if (!address->is_ipc && !address->is_loopback && !keyed)
        return assay_err_set(
            err, ASSAY_PERMISSION_DENIED,
            "endpoint \"%.200s\" is not a loopback address (127.x.y.z, [::1]): any other needs CURVE keys, "
            "and none are set",
            address->text);
    if (!keyed)
        return ASSAY_OK;
    if (!address->is_ipc && !address->is_host)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "endpoint \"%.200s\" names no host: wanted tcp://ADDRESS:PORT", address->text);
    int as_server = !address->is_ipc;
    const char *domain = address->is_ipc ? ASSAY_ZAP_DOMAIN_IPC : ASSAY_ZAP_DOMAIN_CURVE;
    const int options[] = {ZMQ_ZAP_DOMAIN, ZMQ_CURVE_SERVER, ZMQ_CURVE_SECRETKEY};
    const void *const values[] = {domain, &as_server, security->server.secret};
    const size_t bytes[] = {strlen(domain), sizeof as_server, ASSAY_KEY_BYTES};
    return set_all(socket, options, values, bytes, address->is_ipc ? 2 : 3, err);
}

enum assay_status assay_security_for_connect(const struct assay_security *security, void *socket,
                                             const struct assay_address *address, struct assay_err *err)
{
    enum assay_status status = set_family(socket, address, err);
    if (status != ASSAY_OK)
        return status;
    if (!address->has_key && !address->is_ipc && !address->is_loopback)
        return assay_err_set(err, ASSAY_PERMISSION_DENIED,
                             "endpoint \"%.200s\" is beyond the loopback: that needs the server's public key (CURVE)",
                             address->text);
    if (!address->has_key)
        return ASSAY_OK;
    if (!security || !security->connects)
        return assay_err_set(err, ASSAY_PERMISSION_DENIED,
                             "the server at \"%.200s\" wants a key (CURVE), and this process has none to connect with",
                             address->text);
    const int options[] = {ZMQ_CURVE_SERVERKEY, ZMQ_CURVE_PUBLICKEY, ZMQ_CURVE_SECRETKEY};
    const void *const values[] = {address->key.bytes, security->client.public_key.bytes, security->client.secret};
    const size_t bytes[] = {ASSAY_KEY_BYTES, ASSAY_KEY_BYTES, ASSAY_KEY_BYTES};
    return set_all(socket, options, values, bytes, ASSAY_COUNT(options), err);
}

enum assay_status assay_endpoint_with_key(const char *endpoint, const char *file, char ret[ASSAY_PATH_MAX],
                                          struct assay_err *err)
{
    struct assay_public_key key;
    enum assay_role role;
    char with_key[ASSAY_ADDRESS_BYTES_MAX];
    if (strlen(endpoint) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "an endpoint has at most %d bytes", ASSAY_PATH_MAX - 1);
    if (!is_given(file) || strncmp(endpoint, "tcp://", 6) != 0 || strchr(endpoint, '#')) {
        memmove(ret, endpoint, strlen(endpoint) + 1);
        return ASSAY_OK;
    }
    enum assay_status status = assay_key_read_public(file, &key, &role, err);
    if (status == ASSAY_OK)
        status = assay_address_add_key(endpoint, &key, with_key, err);
    if (status == ASSAY_OK)
        strcpy(ret, with_key);
    return status;
}
