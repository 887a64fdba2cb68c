#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/server_internal.h"

static struct assay_peer **bucket_of(struct assay_server *server, const unsigned char *id, size_t id_bytes)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < id_bytes; i++)
        hash = (hash ^ id[i]) * 16777619u;
    return &server->peers[hash % ASSAY_WIRE_BUCKETS];
}

struct assay_peer *assay_peer_find(struct assay_server *server, const void *id, size_t id_bytes)
{
    struct assay_peer *peer = *bucket_of(server, id, id_bytes);
    while (peer && (peer->gone || peer->id_bytes != id_bytes || memcmp(peer->id, id, id_bytes) != 0))
        peer = peer->next;
    return peer;
}

struct assay_peer *assay_peer_get(struct assay_server *server, const void *id, size_t id_bytes, const char *user)
{
    struct assay_peer *peer = assay_peer_find(server, id, id_bytes);
    if (peer && strcmp(peer->user, user) == 0)
        return peer;
    if (peer)
        assay_peer_mark_gone(server, peer);
    if (server->peers_count == ASSAY_WIRE_PEERS_MAX || id_bytes == 0 || id_bytes > sizeof peer->id)
        return NULL;
    peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    memcpy(peer->id, id, id_bytes);
    peer->id_bytes = id_bytes;
    snprintf(peer->user, sizeof peer->user, "%s", user);
    peer->fd = -1;
    /* An odd factor: 2^64 peers of one server all get different numbers. */
    peer->instance = server->instance + ++server->peers_made * 0x9e3779b97f4a7c15u;
    peer->pending_tail = &peer->pending_head;
    struct assay_peer **bucket = bucket_of(server, id, id_bytes);
    peer->next = *bucket;
    *bucket = peer;
    server->peers_count++;
    assay_count_add(&server->counts.peers, 1);
    return peer;
}

void assay_peer_mark_gone(struct assay_server *server, struct assay_peer *peer)
{
    peer->gone = true;
    assay_loop_wake(server->loop, &server->sweep);
}

Assay__V1__Header assay_answer_header(Assay__V1__FrameKind kind, uint64_t call_id, uint64_t instance)
{
    Assay__V1__Header header = ASSAY__V1__HEADER__INIT;
    header.has_kind = header.has_call_id = true;
    header.kind = kind;
    header.call_id = call_id;
    header.has_instance =
        kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY || kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG;
    header.instance = instance;
    return header;
}

static enum assay_sent send_to(struct assay_server *server, const struct assay_peer *peer,
                               struct assay_outgoing *outgoing)
{
    server->watch.touched = true;
    return assay_outgoing_send(outgoing, server->socket, peer->id, peer->id_bytes);
}

static void drop_pending(struct assay_peer *peer)
{
    while (peer->pending_head) {
        struct assay_outgoing *outgoing = peer->pending_head;
        peer->pending_head = outgoing->next;
        assay_outgoing_free(outgoing);
    }
    peer->pending_tail = &peer->pending_head;
    peer->pending_count = peer->pending_bytes = 0;
}

/* False when the pipe is still full. */
static bool send_pending(struct assay_server *server, struct assay_peer *peer)
{
    while (peer->pending_head && !peer->gone) {
        struct assay_outgoing *outgoing = peer->pending_head;
        enum assay_sent sent = send_to(server, peer, outgoing);
        if (sent == ASSAY_SENT_FULL)
            return false;
        if (sent == ASSAY_SENT_UNREACHABLE)
            assay_peer_mark_gone(server, peer);
        peer->pending_head = outgoing->next;
        if (!peer->pending_head)
            peer->pending_tail = &peer->pending_head;
        peer->pending_count--;
        peer->pending_bytes -= outgoing->bytes;
        assay_outgoing_free(outgoing);
    }
    return true;
}

/* A ROUTER cannot be polled for one peer's pipe. */
static void retry(void *arg)
{
    struct assay_server *server = arg;
    bool full = false;
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++)
        for (struct assay_peer *peer = server->peers[i]; peer; peer = peer->next)
            full |= !send_pending(server, peer);
    server->retry_timer = full ? assay_loop_timer(server->loop, ASSAY_WIRE_RETRY_MS, 0, retry, server) : 0;
}

static void enqueue(struct assay_server *server, struct assay_peer *peer, struct assay_outgoing *outgoing)
{
    if (server->retry_timer == 0)
        server->retry_timer = assay_loop_timer(server->loop, ASSAY_WIRE_RETRY_MS, 0, retry, server);
    if (peer->pending_count == ASSAY_WIRE_PENDING_MAX || server->retry_timer == 0 ||
        outgoing->bytes > ASSAY_WIRE_PENDING_BYTES_MAX - ASSAY_MIN(peer->pending_bytes, ASSAY_WIRE_PENDING_BYTES_MAX)) {
        assay_outgoing_free(outgoing);
        assay_peer_mark_gone(server, peer);
        return;
    }
    outgoing->next = NULL;
    *peer->pending_tail = outgoing;
    peer->pending_tail = &outgoing->next;
    peer->pending_count++;
    peer->pending_bytes += outgoing->bytes;
}

void assay_peer_send(struct assay_server *server, struct assay_peer *peer, struct assay_outgoing *outgoing)
{
    if (peer->gone) {
        assay_outgoing_free(outgoing);
        return;
    }
    enum assay_sent sent = ASSAY_SENT_FULL;
    if (!peer->pending_head)
        sent = send_to(server, peer, outgoing);
    if (sent == ASSAY_SENT_FULL) {
        enqueue(server, peer, outgoing);
        return;
    }
    if (sent == ASSAY_SENT_UNREACHABLE)
        assay_peer_mark_gone(server, peer);
    assay_outgoing_free(outgoing);
}

void assay_peer_send_header(struct assay_server *server, struct assay_peer *peer, Assay__V1__Header *header)
{
    struct assay_outgoing *outgoing;
    if (assay_outgoing_new(NULL, NULL, 0, &outgoing, NULL) == ASSAY_OK) {
        if (assay_outgoing_header(outgoing, header)) {
            assay_peer_send(server, peer, outgoing);
            return;
        }
        assay_outgoing_free(outgoing);
    }
    /* So few bytes lie inside the ZeroMQ message itself. */
    header->sentence = NULL;
    server->watch.touched = true;
    if (!peer->gone &&
        (peer->pending_head || assay_header_send(header, server->socket, peer->id, peer->id_bytes) != ASSAY_SENT))
        assay_peer_mark_gone(server, peer);
}

void assay_peers_tick(struct assay_server *server, int64_t now_ms)
{
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++)
        for (struct assay_peer *peer = server->peers[i]; peer; peer = peer->next)
            if (!peer->gone && (now_ms - peer->heard_ms > ASSAY_WIRE_PEER_SILENT_MS || !assay_peer_is_connected(peer)))
                assay_peer_mark_gone(server, peer);
}

static struct assay_peer *take_gone(struct assay_server *server)
{
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++) {
        for (struct assay_peer **at = &server->peers[i]; *at; at = &(*at)->next) {
            struct assay_peer *peer = *at;
            if (peer->gone) {
                *at = peer->next;
                server->peers_count--;
                assay_count_add(&server->counts.peers, UINT64_MAX);
                return peer;
            }
        }
    }
    return NULL;
}

void assay_peers_sweep(void *arg)
{
    struct assay_server *server = arg;
    struct assay_peer *peer;
    while ((peer = take_gone(server))) {
        while (peer->calls)
            assay_call_cancel(peer->calls);
        drop_pending(peer);
        free(peer);
    }
}

void assay_peers_free(struct assay_server *server)
{
    for (size_t i = 0; i < ASSAY_WIRE_BUCKETS; i++) {
        while (server->peers[i]) {
            struct assay_peer *peer = server->peers[i];
            server->peers[i] = peer->next;
            drop_pending(peer);
            free(peer);
        }
    }
}
