/* Who may send what, and how much of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "common/wire/server_internal.h"
#include "common/wire/zap.h"

bool assay_bucket_take(struct assay_bucket *bucket, double per_s, double burst, int64_t now_ms)
{
    double back = (double)ASSAY_MAX(now_ms - bucket->at_ms, 0) * per_s / 1000;
    bucket->taken = ASSAY_MAX(bucket->taken - back, 0);
    bucket->at_ms = now_ms;
    if (bucket->taken + 1 > burst)
        return false;
    bucket->taken += 1;
    return true;
}

void assay_count_refusal(struct assay_server *server, enum assay_refusal refusal)
{
    assay_count_add(&server->counts.refused[refusal], 1);
}

bool assay_peer_is_connected(const struct assay_peer *peer)
{
    struct stat st;
    return peer->fd < 0 || (fstat(peer->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == peer->inode);
}

/* Closes the connection under ZeroMQ, which has no call for it. What it still brings is ignored. */
static void cut(struct assay_server *server, struct assay_peer *peer)
{
    if (peer->ignored)
        return;
    peer->ignored = true;
    assay_count_add(&server->counts.cut, 1);
    while (peer->calls)
        assay_call_cancel(peer->calls);
    if (peer->fd >= 0 && assay_peer_is_connected(peer))
        shutdown(peer->fd, SHUT_RDWR);
}

void assay_admit_garbage(struct assay_server *server, struct assay_peer *peer, enum assay_refusal refusal)
{
    int64_t now_ms = assay_now_ms();
    assay_count_refusal(server, refusal);
    if (assay_bucket_take(&peer->garbage, ASSAY_WIRE_GARBAGE_FORGIVEN_PER_S, server->limits.garbage, now_ms))
        return;
    if (server->security && !peer->is_local)
        assay_security_ban(server->security, &peer->key, now_ms + ASSAY_WIRE_BAN_MS);
    cut(server, peer);
}

/* The role of now; what is no longer allowed is cut off. */
static void look_up(struct assay_server *server, struct assay_peer *peer)
{
    if (!server->security) {
        peer->role = ASSAY_ROLE_ADMIN;
        peer->is_local = server->is_ipc;
        return;
    }
    peer->generation = server->security->keyring.generation;
    peer->is_local = strcmp(peer->user, ASSAY_ZAP_USER_LOCAL) == 0;
    peer->role = assay_security_role(server->security, peer->user, &peer->key);
    if (peer->role == ASSAY_ROLE_NONE)
        cut(server, peer);
}

static bool has_room_for_key(const struct assay_server *server, const char *user)
{
    size_t count = 0;
    if (!server->security || strcmp(user, ASSAY_ZAP_USER_LOCAL) == 0)
        return true;
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++)
        for (const struct assay_peer *peer = server->peers[i]; peer; peer = peer->next)
            count += !peer->gone && strcmp(peer->user, user) == 0;
    return count < server->limits.key_connections;
}

static struct assay_peer *make_peer(struct assay_server *server, const struct assay_frames *frames, const char *user)
{
    zmq_msg_t *id = (zmq_msg_t *)(uintptr_t)&frames->id;
    struct stat st;
    int fd = frames->count > 0 ? zmq_msg_get((zmq_msg_t *)(uintptr_t)&frames->parts[0], ZMQ_SRCFD) : -1;
    bool known = fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    if (!has_room_for_key(server, user)) {
        assay_count_refusal(server, ASSAY_REFUSED_CONNECTIONS);
        if (known)
            shutdown(fd, SHUT_RDWR);
        return NULL;
    }
    struct assay_peer *peer = assay_peer_get(server, zmq_msg_data(id), zmq_msg_size(id), user);
    if (!peer) {
        assay_count_refusal(server, ASSAY_REFUSED_PEERS);
        return NULL;
    }
    peer->fd = known ? fd : -1;
    peer->inode = known ? st.st_ino : 0;
    peer->heard_ms = assay_now_ms();
    look_up(server, peer);
    return peer;
}

struct assay_peer *assay_admit(struct assay_server *server, const struct assay_frames *frames)
{
    zmq_msg_t *id = (zmq_msg_t *)(uintptr_t)&frames->id;
    /* What ZeroMQ knows of the connection goes with the first part, not with the id. */
    const zmq_msg_t *first = frames->count > 0 ? &frames->parts[0] : NULL;
    const char *user = !server->security ? "" : first ? zmq_msg_gets(first, "User-Id") : NULL;
    struct assay_peer *peer = assay_peer_find(server, zmq_msg_data(id), zmq_msg_size(id));
    if (!user || strlen(user) >= sizeof peer->user)
        user = "?"; /* nobody */
    if (peer && strcmp(peer->user, user) != 0) {
        assay_peer_mark_gone(server, peer);
        peer = NULL;
    }
    if (!peer)
        peer = make_peer(server, frames, user);
    else if (server->security && peer->generation != server->security->keyring.generation)
        look_up(server, peer);
    if (peer && peer->ignored) {
        assay_count_refusal(server,
                            peer->role == ASSAY_ROLE_NONE ? ASSAY_REFUSED_UNAUTHENTICATED : ASSAY_REFUSED_IGNORED);
        return NULL;
    }
    return peer;
}

void assay_admit_tick(struct assay_server *server)
{
    if (!server->security)
        return;
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++)
        for (struct assay_peer *peer = server->peers[i]; peer; peer = peer->next)
            if (!peer->gone && peer->generation != server->security->keyring.generation)
                look_up(server, peer);
}

/* --- connections --- */

static void on_event(struct assay_server *server, unsigned event, int value)
{
    uint64_t now = atomic_load_explicit(&server->counts.connections, memory_order_relaxed);
    if (event == ZMQ_EVENT_ACCEPTED) {
        assay_count_add(&server->counts.connections, 1);
        if (now >= server->limits.connections) {
            assay_count_refusal(server, ASSAY_REFUSED_CONNECTIONS);
            shutdown(value, SHUT_RDWR);
        }
    } else if (event == ZMQ_EVENT_DISCONNECTED) {
        assay_count_add(&server->counts.connections, now > 0 ? UINT64_MAX : 0);
    } else {
        assay_count_refusal(server, ASSAY_REFUSED_HANDSHAKE);
    }
}

static void on_events(void *arg)
{
    struct assay_server *server = arg;
    unsigned event;
    int value, taken = 0;
    for (; taken < ASSAY_WIRE_BURST && assay_monitor_next(server->monitor, &event, &value); taken++)
        on_event(server, event, value);
    server->monitor_watch.touched = taken == ASSAY_WIRE_BURST;
}

enum assay_status assay_admit_open(struct assay_server *server, struct assay_err *err)
{
    const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    enum assay_status status =
        assay_monitor_open(assay_loop_zmq(server->loop), server->socket, events, &server->monitor, err);
    server->monitor_watch =
        (struct assay_watch){.socket = server->monitor, .events = ZMQ_POLLIN, .fn = on_events, .arg = server};
    return status;
}

void assay_admit_close(struct assay_server *server)
{
    if (!server->monitor)
        return;
    assay_loop_unwatch(server->loop, &server->monitor_watch);
    assay_monitor_close(server->socket, server->monitor);
    server->monitor = NULL;
}
