#include "common/wire/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "common/wire/methods.h"
#include "common/wire/observer.h"
#include "common/wire/reflection.h"
#include "common/wire/server_internal.h"
#include "common/wire/trace_service.h"

#define TICK_MS 1000
/* Answers under way when a server is freed get that long to leave. */
#define LINGER_MS 1000

/* The row and method index of "package.Service/Method"; false when there is none. */
static bool find_method(struct assay_server *server, const char *name, const struct assay_service_row **ret_row,
                        unsigned *ret_method)
{
    const char *slash = strchr(name, '/');
    if (!slash)
        return false;
    size_t service_bytes = (size_t)(slash - name);
    for (size_t i = 0; i < server->services_count; i++) {
        const struct assay_service_row *row = &server->services[i];
        if (strlen(row->descriptor->name) != service_bytes || memcmp(row->descriptor->name, name, service_bytes) != 0)
            continue;
        const ProtobufCMethodDescriptor *method =
            protobuf_c_service_descriptor_get_method_by_name(row->descriptor, slash + 1);
        if (!method)
            return false;
        *ret_row = row;
        *ret_method = (unsigned)(method - row->descriptor->methods);
        return row->handlers[*ret_method] != NULL;
    }
    return false;
}

/* Refused calls are counted, too; under the name only when it is one that is served: names are the peer's to invent. */
static void tell_refused(struct assay_server *server, const char *method, enum assay_status status)
{
    const struct assay_service_row *row;
    unsigned index;
    const struct assay_wire_call told = {.is_server = true,
                                         .method = find_method(server, method, &row, &index) ? method : "unknown",
                                         .trace_id = "",
                                         .status = status,
                                         .begin_us = assay_now_us(),
                                         .end_us = assay_now_us()};
    assay_wire_began(true);
    assay_wire_ended(&told);
}

static void refuse(struct assay_server *server, struct assay_peer *peer, uint64_t call_id, struct assay_err *err)
{
    Assay__V1__Header header = assay_answer_header(ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY, call_id, peer->instance);
    assay_header_set_error(&header, err);
    assay_peer_send_header(server, peer, &header);
}

/* Counts why, and hands the status through. */
static enum assay_status refused(struct assay_server *server, enum assay_refusal refusal, enum assay_status status)
{
    assay_count_refusal(server, refusal);
    return status;
}

static bool stays_open(const char *method)
{
    return strncmp(method, "assay.v1.Health/", 16) == 0 || strncmp(method, "assay.v1.Reflection/", 20) == 0;
}

/* What does not depend on the method's message. */
static enum assay_status check_peer(struct assay_server *server, const struct assay_peer *peer,
                                    const Assay__V1__Header *header, struct assay_err *err)
{
    if (!assay_role_may_call(peer->role, header->method))
        return refused(server, ASSAY_REFUSED_ROLE,
                       assay_err_set(err, ASSAY_PERMISSION_DENIED, "%s: a key of role %s may not call it",
                                     header->method, assay_role_name(peer->role)));
    if (server->draining && !stays_open(header->method))
        return refused(server, ASSAY_REFUSED_DRAINING,
                       assay_err_set(err, ASSAY_UNAVAILABLE, "%s: the server is going down", header->method));
    if (peer->calls_count >= server->limits.calls)
        return refused(server, ASSAY_REFUSED_PEER_CALLS,
                       assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                                     "%s: %zu calls of this connection are under way, at most %u are allowed",
                                     header->method, peer->calls_count, server->limits.calls));
    return ASSAY_OK;
}

static enum assay_status check_room(struct assay_server *server, const struct assay_frames *frames,
                                    const Assay__V1__Header *header, struct assay_err *err)
{
    if (server->calls_count >= ASSAY_WIRE_INFLIGHT_MAX)
        return refused(server, ASSAY_REFUSED_CALLS,
                       assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                                     "%s: %zu calls are under way, at most %d are allowed", header->method,
                                     server->calls_count, ASSAY_WIRE_INFLIGHT_MAX));
    if (frames->bytes > ASSAY_WIRE_HELD_BYTES_MAX - ASSAY_MIN(server->calls_bytes, ASSAY_WIRE_HELD_BYTES_MAX))
        return refused(server, ASSAY_REFUSED_HELD_BYTES,
                       assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                                     "%s: requests under way hold %zu bytes, at most %llu are allowed", header->method,
                                     server->calls_bytes, ASSAY_WIRE_HELD_BYTES_MAX));
    if (header->has_time_left_ms && header->time_left_ms == 0)
        return refused(server, ASSAY_REFUSED_DEADLINE,
                       assay_err_set(err, ASSAY_DEADLINE_EXCEEDED, "%s: the deadline has passed", header->method));
    return ASSAY_OK;
}

/* Makes the call and runs its handler, or says why not. */
static enum assay_status open_call(struct assay_server *server, struct assay_peer *peer, struct assay_frames *frames,
                                   const Assay__V1__Header *header, struct assay_err *err)
{
    const struct assay_service_row *row;
    unsigned method;
    enum assay_status status = check_peer(server, peer, header, err);
    if (status != ASSAY_OK)
        return status;
    if (!find_method(server, header->method, &row, &method))
        return refused(
            server, ASSAY_REFUSED_METHOD,
            assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s has no method \"%s\"", server->endpoint, header->method));
    status = check_room(server, frames, header, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_frames_check(frames, header, err);
    if (status != ASSAY_OK)
        return refused(server, ASSAY_REFUSED_FRAMES, status);
    const ProtobufCMethodDescriptor *descriptor = &row->descriptor->methods[method];
    ProtobufCMessage *request;
    status = assay_payload_unpack(descriptor->input, zmq_msg_data(&frames->parts[1]), zmq_msg_size(&frames->parts[1]),
                                  &request, err);
    if (status != ASSAY_OK)
        return refused(server, ASSAY_REFUSED_PAYLOAD, status);
    struct assay_incoming *incoming = assay_incoming_take(frames);
    struct assay_call *call = NULL;
    if (incoming)
        call = assay_call_new(server, peer, header, descriptor, row->streams >> method & 1, incoming, request);
    if (!call) {
        assay_incoming_free(incoming);
        protobuf_c_message_free_unpacked(request, NULL);
        return refused(server, ASSAY_REFUSED_MEMORY,
                       assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for a call", header->method));
    }
    assay_count_add(&server->counts.calls, 1);
    row->handlers[method](call, row->service);
    return ASSAY_OK;
}

static void pong(struct assay_server *server, struct assay_peer *peer, uint64_t call_id)
{
    Assay__V1__Header header = assay_answer_header(ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG, call_id, peer->instance);
    assay_peer_send_header(server, peer, &header);
}

/* What a peer says. False: nothing could be made of it. */
static bool on_header(struct assay_server *server, struct assay_peer *peer, struct assay_frames *frames,
                      const Assay__V1__Header *header)
{
    struct assay_call *call = assay_call_find(server, peer, header->call_id);
    struct assay_err err = ASSAY_ERR_INIT;
    bool in_time = assay_bucket_take(&peer->rate, server->limits.messages_per_s,
                                     (double)server->limits.messages_per_s * ASSAY_WIRE_BURST_S, peer->heard_ms);
    if (!in_time)
        assay_count_refusal(server, ASSAY_REFUSED_RATE);
    switch (header->kind) {
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST:
        if (call)
            return false;
        if (!in_time)
            assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "%s: this connection sends more than %u messages a second",
                          header->method, server->limits.messages_per_s);
        if (!in_time || open_call(server, peer, frames, header, &err) != ASSAY_OK) {
            refuse(server, peer, header->call_id, &err);
            tell_refused(server, header->method, err.status);
        }
        return true;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_PING:
        if (in_time)
            pong(server, peer, header->call_id);
        return true;
    /* The next two may cross the answer on its way. They end work or are cheap, so they are taken at any rate. */
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_CANCEL:
        if (call)
            assay_call_cancel(call);
        return true;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_CREDIT:
        if (call)
            assay_call_grant(call, header->credit);
        return true;
    default:
        return false;
    }
}

/* Whether the message keeps to the limits, and if not, which. */
static bool fits(const struct assay_server *server, const struct assay_frames *frames, enum assay_refusal *ret)
{
    bool too_many = frames->count >= ASSAY_WIRE_PARTS_MAX ? frames->excess : frames->count > server->limits.parts;
    *ret = too_many ? ASSAY_REFUSED_PARTS : ASSAY_REFUSED_BYTES;
    return !too_many && !frames->excess && frames->bytes <= server->limits.message_bytes;
}

static bool on_message(struct assay_server *server, struct assay_frames *frames)
{
    enum assay_refusal refusal;
    assay_count_add(&server->counts.messages, 1);
    assay_count_add(&server->counts.bytes, frames->bytes);
    struct assay_peer *peer = assay_admit(server, frames);
    if (!peer)
        return false;
    if (!fits(server, frames, &refusal)) {
        assay_admit_garbage(server, peer, refusal);
        return false;
    }
    Assay__V1__Header *header = NULL;
    if (frames->count > 0)
        header = assay_header_unpack(zmq_msg_data(&frames->parts[0]), zmq_msg_size(&frames->parts[0]));
    if (!header) {
        assay_admit_garbage(server, peer, ASSAY_REFUSED_HEADER);
        return false;
    }
    peer->heard_ms = assay_now_ms();
    bool understood = on_header(server, peer, frames, header);
    if (!understood)
        assay_admit_garbage(server, peer, ASSAY_REFUSED_KIND);
    assay__v1__header__free_unpacked(header, NULL);
    return understood;
}

static void on_readable(void *arg)
{
    struct assay_server *server = arg;
    struct assay_frames frames;
    int taken = 0;
    for (; taken < ASSAY_WIRE_BURST && assay_frames_recv(&frames, server->socket, true); taken++) {
        if (!on_message(server, &frames))
            assay_count_add(&server->counts.dropped, 1);
        assay_frames_clear(&frames);
    }
    server->watch.touched = taken == ASSAY_WIRE_BURST;
}

static void on_tick(void *arg)
{
    struct assay_server *server = arg;
    int64_t now_ms = assay_now_ms();
    atomic_store(&server->ticked_ms, now_ms);
    assay_admit_tick(server);
    assay_peers_tick(server, now_ms);
}

/* Binds one address and appends what it is to server->endpoint. */
static enum assay_status bind_address(struct assay_server *server, const struct assay_address *address,
                                      struct assay_err *err)
{
    char bound[ASSAY_ADDRESS_BYTES_MAX], key[ASSAY_KEY_DIGITS + 1] = "";
    size_t bytes = sizeof bound, used = strlen(server->endpoint);
    if (address->has_key)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "endpoint \"%.100s\": a server's key comes from its file",
                             address->text);
    enum assay_status status = assay_security_for_bind(server->security, server->socket, address, err);
    if (status == ASSAY_OK)
        status = assay_endpoint_check_bind(address, err);
    if (status == ASSAY_OK)
        status = assay_socket_suit(server->socket, address, err);
    if (status != ASSAY_OK)
        return status;
    if (zmq_bind(server->socket, address->text) != 0)
        return errno == EADDRINUSE
                   ? assay_err_set(err, ASSAY_UNAVAILABLE, "address in use: something listens on %s", address->text)
                   : assay_err_errno(err, errno, "cannot listen on %s", address->text);
    if (zmq_getsockopt(server->socket, ZMQ_LAST_ENDPOINT, bound, &bytes) != 0)
        return assay_err_errno(err, errno, "cannot tell the address of %s", address->text);
    if (server->security && !address->is_ipc)
        assay_public_key_text(&server->security->server.public_key, key);
    snprintf(server->endpoint + used, sizeof server->endpoint - used, "%s%s%s%s", used ? "," : "", bound,
             key[0] ? "#" : "", key);
    return ASSAY_OK;
}

static enum assay_status bind_socket(struct assay_server *server, const char *endpoints, struct assay_err *err)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count = 0;
    enum assay_status status = assay_addresses_parse(endpoints, addresses, &count, err);
    if (status == ASSAY_OK)
        status = assay_socket_new(assay_loop_zmq(server->loop), ZMQ_ROUTER, LINGER_MS, &server->socket, err);
    if (status == ASSAY_OK)
        status = assay_admit_open(server, err);
    server->is_ipc = true;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        server->is_ipc &= addresses[i].is_ipc;
        status = bind_address(server, &addresses[i], err);
    }
    return status;
}

struct watch_request {
    struct assay_server *server;
    enum assay_status status;
    struct assay_err *err;
};

static void join_loop(void *arg)
{
    struct watch_request *request = arg;
    struct assay_server *server = request->server;
    request->status = assay_loop_watch(server->loop, &server->watch, request->err);
    if (request->status == ASSAY_OK)
        request->status = assay_loop_watch(server->loop, &server->monitor_watch, request->err);
    if (request->status != ASSAY_OK)
        return;
    server->tick_timer = assay_loop_timer(server->loop, TICK_MS, TICK_MS, on_tick, server);
    if (server->tick_timer == 0)
        request->status = assay_err_set(request->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a server");
}

static void free_server(void *server)
{
    assay_server_free(server);
}

enum assay_status assay_server_new(struct assay_loop *loop, const char *endpoint, struct assay_server **ret,
                                   struct assay_err *err)
{
    struct assay_server *server = calloc(1, sizeof *server);
    if (!server)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a server");
    server->loop = loop;
    server->limits = (struct assay_server_limits)ASSAY_SERVER_LIMITS_DEFAULT;
    server->security = assay_loop_security(loop);
    if (server->security && !server->security->serves)
        server->security = NULL;
    server->sweep = (struct assay_wake){.fn = assay_peers_sweep, .arg = server};
    if (getrandom(&server->instance, sizeof server->instance, 0) != sizeof server->instance)
        server->instance = (uint64_t)assay_now_us() ^ (uint64_t)assay_wall_ms() << 20;
    atomic_init(&server->serving, true);
    atomic_init(&server->ticked_ms, assay_now_ms());
    server->health = assay_health_new(server);
    assay_reflection_add(server);
    assay_trace_add(server);
    enum assay_status status = ASSAY_OK;
    if (!server->health)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a server");
    if (status == ASSAY_OK)
        status = bind_socket(server, endpoint, err);
    if (status == ASSAY_OK) {
        server->watch =
            (struct assay_watch){.socket = server->socket, .events = ZMQ_POLLIN, .fn = on_readable, .arg = server};
        struct watch_request request = {.server = server, .err = err};
        assay_loop_call(loop, join_loop, &request);
        status = request.status;
    }
    if (status != ASSAY_OK) {
        assay_loop_call(loop, free_server, server);
        return status;
    }
    *ret = server;
    return ASSAY_OK;
}

void assay_server_free(struct assay_server *server)
{
    if (!server)
        return;
    assay_health_free(server->health);
    while (server->calls)
        assay_call_orphan(server->calls);
    assay_loop_timer_cancel(server->loop, server->tick_timer);
    assay_loop_timer_cancel(server->loop, server->retry_timer);
    assay_loop_unwake(server->loop, &server->sweep);
    assay_peers_free(server);
    if (server->socket) {
        assay_admit_close(server);
        assay_loop_unwatch(server->loop, &server->watch);
        if (server->endpoint[0])
            assay_socket_close_bound(server->socket, server->endpoint);
        else
            zmq_close(server->socket);
    }
    free(server);
}

const char *assay_server_endpoint(const struct assay_server *server)
{
    return server->endpoint;
}

void assay_server_add(struct assay_server *server, const ProtobufCServiceDescriptor *descriptor,
                      const assay_method_fn *handlers, void *service)
{
    if (server->services_count == ASSAY_WIRE_SERVICES_MAX || descriptor->n_methods > ASSAY_WIRE_METHODS_MAX)
        ASSAY_BUG("too many services or methods on one server");
    struct assay_service_row *row = &server->services[server->services_count++];
    *row = (struct assay_service_row){.descriptor = descriptor, .handlers = handlers, .service = service};
    for (unsigned i = 0; i < descriptor->n_methods; i++)
        row->streams |= (uint64_t)assay_method_is_stream(descriptor, i) << i;
}

void assay_server_set_serving(struct assay_server *server, bool serving)
{
    atomic_store(&server->serving, serving);
    assay_health_set(server->health, serving);
}

bool assay_server_is_serving(const struct assay_server *server)
{
    return atomic_load(&server->serving);
}

int64_t assay_server_ticked_ms(const struct assay_server *server)
{
    return atomic_load(&server->ticked_ms);
}

void assay_server_drain(struct assay_server *server)
{
    server->draining = true;
    assay_server_set_serving(server, false);
}

size_t assay_server_unary_calls(const struct assay_server *server)
{
    size_t count = 0;
    for (const struct assay_call *call = server->calls; call; call = call->next)
        count += !call->stream && call->peer;
    return count;
}

void assay_server_set_limits(struct assay_server *server, const struct assay_server_limits *limits)
{
    server->limits = *limits;
}

const char *assay_refusal_name(enum assay_refusal refusal)
{
    static const char *const names[] = {
        [ASSAY_REFUSED_PARTS] = "parts",
        [ASSAY_REFUSED_BYTES] = "bytes",
        [ASSAY_REFUSED_HEADER] = "header",
        [ASSAY_REFUSED_KIND] = "kind",
        [ASSAY_REFUSED_FRAMES] = "frames",
        [ASSAY_REFUSED_PAYLOAD] = "payload",
        [ASSAY_REFUSED_METHOD] = "method",
        [ASSAY_REFUSED_UNAUTHENTICATED] = "unauthenticated",
        [ASSAY_REFUSED_ROLE] = "role",
        [ASSAY_REFUSED_RATE] = "rate",
        [ASSAY_REFUSED_PEER_CALLS] = "peer_calls",
        [ASSAY_REFUSED_CALLS] = "calls",
        [ASSAY_REFUSED_HELD_BYTES] = "held_bytes",
        [ASSAY_REFUSED_MEMORY] = "memory",
        [ASSAY_REFUSED_DEADLINE] = "deadline",
        [ASSAY_REFUSED_DRAINING] = "draining",
        [ASSAY_REFUSED_IGNORED] = "ignored",
        [ASSAY_REFUSED_PEERS] = "peers",
        [ASSAY_REFUSED_CONNECTIONS] = "connections",
        [ASSAY_REFUSED_HANDSHAKE] = "handshake",
    };
    _Static_assert(ASSAY_COUNT(names) == ASSAY_REFUSALS, "each refusal has a name");
    return (size_t)refusal < ASSAY_COUNT(names) ? names[refusal] : "unknown";
}

void assay_server_counts(const struct assay_server *server, struct assay_server_counts *ret)
{
    *ret = (struct assay_server_counts){
        .messages = server->counts.messages,
        .bytes = server->counts.bytes,
        .calls = server->counts.calls,
        .cut = server->counts.cut,
        .connections = server->counts.connections,
        .peers = server->counts.peers,
        .calls_open = server->counts.calls_open,
        .calls_bytes = server->counts.calls_bytes,
    };
    for (size_t i = 0; i < ASSAY_REFUSALS; i++)
        ret->refused[i] = server->counts.refused[i];
}

uint64_t assay_server_dropped(const struct assay_server *server)
{
    return server->counts.dropped;
}
