/* The loop's side of a client: what goes out, what comes in, whether the server is there. */
#include "common/wire/client.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/client_internal.h"
#include "common/wire/endpoint.h"

/* CANCELs under way when a client is freed get that long to leave. */
#define LINGER_MS 200
/* A server that refused us is tried again after that. */
#define CONNECT_AGAIN_MS 1000
/* While calls are under way, whether to ask is looked at that often. */
#define TICK_MS 1000
#define MONITOR_EVENTS (ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)

enum assay_status assay_client_call_end(struct assay_client_call *call, enum assay_status status, const char *format,
                                        ...)
{
    if (call->ended)
        return call->status;
    char text[sizeof call->err.text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    call->ended = true;
    call->status = assay_err_set(&call->err, status, "%s", text);
    pthread_cond_broadcast(&call->changed);
    return status;
}

static void end_refused(struct assay_client_call *call)
{
    assay_client_call_end(call, ASSAY_UNAUTHENTICATED, "%s: %s does not let this process in%s", call->method,
                          call->client->endpoint,
                          call->client->address.has_key ? ": its key is not allowed there" : " without a key");
}

void assay_client_call_expire(struct assay_client_call *call, const char *what)
{
    if (call->client->refused && !call->sent)
        end_refused(call);
    else
        assay_client_call_end(call, ASSAY_DEADLINE_EXCEEDED, "%s: %s %s within %lld ms", call->method, what,
                              call->client->endpoint, (long long)(call->deadline_ms - call->started_ms));
}

void assay_client_call_queue(struct assay_client_call *call, unsigned to_send)
{
    struct assay_client *client = call->client;
    call->to_send |= to_send;
    if (!call->queued) {
        call->queued = true;
        call->queue_next = NULL;
        *client->queue_tail = call;
        client->queue_tail = &call->queue_next;
    }
    assay_loop_wake(client->loop, &client->wake);
}

static Assay__V1__Header header_of(uint64_t call_id, Assay__V1__FrameKind kind)
{
    Assay__V1__Header header = ASSAY__V1__HEADER__INIT;
    header.has_kind = header.has_call_id = true;
    header.kind = kind;
    header.call_id = call_id;
    return header;
}

/* True unless the pipe is full. */
static bool send_request(struct assay_client *client, struct assay_client_call *call)
{
    Assay__V1__Header header = header_of(call->id, ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST);
    header.method = call->method;
    header.trace_id = call->trace_id[0] ? call->trace_id : NULL;
    if (call->deadline_ms != INT64_MAX) {
        header.has_time_left_ms = true;
        header.time_left_ms = (uint64_t)ASSAY_MAX(call->deadline_ms - assay_now_ms(), 0);
    }
    header.has_credit = call->stream;
    header.credit = call->credit_max;
    if (!assay_outgoing_header(call->request, &header)) {
        assay_client_call_end(call, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for a header", call->method);
        return true;
    }
    if (assay_outgoing_send(call->request, client->socket, NULL, 0) != ASSAY_SENT)
        return false;
    assay_outgoing_free(assay_steal(&call->request));
    call->sent = true;
    call->instance = client->instance;
    client->said_ms = assay_now_ms();
    return true;
}

/* Sends all that is due for one call, as far as the pipe takes it. True when nothing is left. */
static bool send_due(struct assay_client *client, struct assay_client_call *call)
{
    if (call->to_send & ASSAY_SEND_REQUEST) {
        if (!call->ended && (!client->ready || !send_request(client, call)))
            return false;
        call->to_send &= ~(unsigned)ASSAY_SEND_REQUEST;
    }
    if (call->to_send & ASSAY_SEND_CREDIT) {
        Assay__V1__Header header = header_of(call->id, ASSAY__V1__FRAME_KIND__FRAME_KIND_CREDIT);
        header.has_credit = true;
        header.credit = call->credit_due;
        if (!call->ended && call->credit_due > 0) {
            if (assay_header_send(&header, client->socket, NULL, 0) != ASSAY_SENT)
                return false;
            call->credit += call->credit_due;
            call->credit_due = 0;
        }
        call->to_send &= ~(unsigned)ASSAY_SEND_CREDIT;
    }
    if (call->to_send & ASSAY_SEND_CANCEL) {
        Assay__V1__Header header = header_of(call->id, ASSAY__V1__FRAME_KIND__FRAME_KIND_CANCEL);
        if (call->sent && assay_header_send(&header, client->socket, NULL, 0) != ASSAY_SENT)
            return false;
        call->to_send = 0;
    }
    return true;
}

/* Goes through the queue once. What has to wait stays: requests for a PONG, all for room in the pipe. */
static void flush(struct assay_client *client)
{
    bool full = false;
    client->watch.touched |= client->want_ping || client->queue_head;
    if (client->want_ping) {
        Assay__V1__Header ping = header_of(0, ASSAY__V1__FRAME_KIND__FRAME_KIND_PING);
        full = client->want_ping = assay_header_send(&ping, client->socket, NULL, 0) != ASSAY_SENT;
        if (!full)
            client->said_ms = assay_now_ms();
    }
    struct assay_client_call **at = &client->queue_head;
    while (*at) {
        struct assay_client_call *call = *at;
        bool may_go = client->ready || call->sent || call->ended;
        if (full || !may_go || !send_due(client, call)) {
            /* No room often means no connection. The next one may lead to another process: ask before more is sent. */
            if (may_go && !full)
                client->ready = !(full = client->want_ping = true);
            at = &call->queue_next;
            continue;
        }
        *at = call->queue_next;
        call->queued = false;
        if (call->abandoned)
            assay_client_call_free(call);
    }
    client->queue_tail = at;
    client->watch.events = ZMQ_POLLIN | (full ? ZMQ_POLLOUT : 0);
}

static void fail_sent(struct assay_client *client, bool other_instance_only, const char *reason)
{
    for (struct assay_client_call *call = client->calls; call; call = call->next)
        if (call->sent && !call->ended && !(other_instance_only && call->instance == client->instance))
            assay_client_call_end(call, ASSAY_UNAVAILABLE, "%s: %s %s", call->method, client->endpoint, reason);
}

static void on_tick(void *arg);
static void connect_again(void *arg);

/* A server that may not be there is asked more often than one that is. False when out of memory. */
static bool arm_timer(struct assay_client *client)
{
    int64_t delay_ms = client->ready ? TICK_MS : ASSAY_WIRE_PING_ANEW_MS;
    client->timer = assay_loop_timer(client->loop, delay_ms, 0, on_tick, client);
    return client->timer != 0;
}

static void fail_unsent(struct assay_client *client, int64_t now_ms)
{
    for (struct assay_client_call *call = client->calls; call; call = call->next)
        if (!client->ready && !call->sent && !call->wait_for_ready &&
            now_ms - call->started_ms >= ASSAY_WIRE_SERVER_SILENT_MS)
            assay_client_call_end(call, ASSAY_UNAVAILABLE, "%s: nobody answers at %s", call->method, client->endpoint);
}

static void fail_all_no_timer(struct assay_client *client)
{
    for (struct assay_client_call *call = client->calls; call; call = call->next)
        assay_client_call_end(call, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for a timer", call->method);
}

static void on_tick(void *arg)
{
    struct assay_client *client = arg;
    int64_t now_ms = assay_now_ms();
    bool due = false;
    pthread_mutex_lock(&client->lock);
    client->timer = 0;
    if (client->calls) {
        due = !client->ready || now_ms - client->heard_ms >= ASSAY_WIRE_PING_MS ||
              now_ms - ASSAY_MIN(client->said_ms, client->known_ms) >= ASSAY_WIRE_PING_BUSY_MS;
        client->want_ping |= due;
        if (now_ms - ASSAY_MAX(client->heard_ms, client->active_ms) >= ASSAY_WIRE_SERVER_SILENT_MS) {
            client->ready = false;
            fail_sent(client, false, "is silent");
        }
        fail_unsent(client, now_ms);
        if (!arm_timer(client))
            fail_all_no_timer(client);
    }
    flush(client);
    pthread_mutex_unlock(&client->lock);
    if (client->asked_ms == 0)
        client->asked_ms = due || client->want_ping ? now_ms : 0;
    else if (now_ms - client->asked_ms >= ASSAY_WIRE_SERVER_SILENT_MS && !client->address.is_ipc &&
             client->connect_timer == 0)
        connect_again(client);
}

/* The first call after a pause: is the server still the one that we know? */
static void become_active(struct assay_client *client)
{
    client->active_ms = assay_now_ms();
    if (client->active_ms - client->heard_ms > ASSAY_WIRE_FRESH_MS)
        client->ready = false;
    client->want_ping = !client->ready;
    if (!arm_timer(client))
        fail_all_no_timer(client);
}

static void on_wake(void *arg)
{
    struct assay_client *client = arg;
    pthread_mutex_lock(&client->lock);
    if (client->calls && client->timer == 0)
        become_active(client);
    flush(client);
    pthread_mutex_unlock(&client->lock);
}

/* Calls that were sent to another one are lost. */
static void on_instance(struct assay_client *client, const Assay__V1__Header *header)
{
    client->known_ms = client->heard_ms;
    if (client->instance == header->instance)
        return;
    client->instance = header->instance;
    fail_sent(client, true, "was restarted or lost the connection");
}

static void on_pong(struct assay_client *client, const Assay__V1__Header *header)
{
    client->ready = true;
    client->refused = false;
    on_instance(client, header);
}

/* With the lock held. */
static void on_contents(struct assay_client_call *call, struct assay_incoming *incoming)
{
    if (!incoming) {
        assay_client_call_end(call, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for a message", call->method);
        return;
    }
    call->received_bytes += incoming->bytes;
    incoming->next = NULL;
    *call->in_tail = incoming;
    call->in_tail = &incoming->next;
    pthread_cond_broadcast(&call->changed);
}

static void on_answer(struct assay_client_call *call, struct assay_frames *frames, const Assay__V1__Header *header)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (call->ended)
        return;
    if (assay_frames_check(frames, header, &err) != ASSAY_OK) {
        assay_client_call_end(call, ASSAY_INTERNAL, "%s: answer: %s", call->method, err.text);
        return;
    }
    bool is_message = header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM;
    bool is_reply = header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY;
    if (assay_header_error(header, call->method, &err) != ASSAY_OK) {
        call->sent = false; /* nothing is left to cancel */
        if (err.status == ASSAY_UNAVAILABLE)
            call->client->ready = false; /* it is going down: ask before more is sent */
        assay_client_call_end(call, err.status, "%s", err.text);
    } else if (is_reply == call->stream) {
        assay_client_call_end(call, ASSAY_UNIMPLEMENTED, "%s: the server takes it for %s", call->method,
                              is_reply ? "unary" : "a stream");
    } else if (is_message && call->credit == 0) {
        assay_client_call_end(call, ASSAY_INTERNAL, "%s: the server sent more than was granted", call->method);
    } else {
        if (is_message || is_reply)
            on_contents(call, assay_incoming_take(frames));
        call->credit -= is_message;
        if (!is_message) {
            call->sent = false;
            assay_client_call_end(call, ASSAY_OK, "ok");
        }
    }
}

static void on_message(struct assay_client *client, struct assay_frames *frames)
{
    if (frames->excess)
        return;
    Assay__V1__Header *header = assay_header_unpack(zmq_msg_data(&frames->parts[0]), zmq_msg_size(&frames->parts[0]));
    if (!header)
        return;
    client->heard_ms = assay_now_ms();
    client->asked_ms = 0;
    pthread_mutex_lock(&client->lock);
    struct assay_client_call *call = client->calls;
    switch (header->kind) {
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG:
        on_pong(client, header);
        break;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_END:
        while (call && call->id != header->call_id)
            call = call->next;
        if (call)
            on_answer(call, frames, header);
        if (header->has_instance)
            on_instance(client, header);
        break;
    default:
        break;
    }
    pthread_mutex_unlock(&client->lock);
    assay__v1__header__free_unpacked(header, NULL);
}

static void receive(struct assay_client *client)
{
    struct assay_frames frames;
    int taken = 0;
    for (; taken < ASSAY_WIRE_BURST && assay_frames_recv(&frames, client->socket, false); taken++) {
        on_message(client, &frames);
        assay_frames_clear(&frames);
    }
    client->watch.touched = taken == ASSAY_WIRE_BURST;
}

static void flush_locked(struct assay_client *client)
{
    pthread_mutex_lock(&client->lock);
    flush(client);
    pthread_mutex_unlock(&client->lock);
}

static void on_ready(void *arg)
{
    receive(arg);
    flush_locked(arg);
}

/* The connection was lost, and with it every call on it: the server answers to a connection, not to a client. */
static void on_disconnected(struct assay_client *client)
{
    receive(client); /* what had arrived before */
    pthread_mutex_lock(&client->lock);
    client->ready = false;
    client->want_ping = client->calls != NULL;
    fail_sent(client, false, "closed the connection");
    flush(client);
    pthread_mutex_unlock(&client->lock);
}

/* Anew from the beginning. ZeroMQ connects again after a lost connection, but not after bytes that it does not
 * understand; and where a length was spoiled on the way it waits for the rest for ever. */
static void connect_again(void *arg)
{
    struct assay_client *client = arg;
    client->connect_timer = 0;
    client->asked_ms = 0;
    client->watch.touched = true;
    zmq_disconnect(client->socket, client->address.text);
    if (zmq_connect(client->socket, client->address.text) != 0)
        client->connect_timer = assay_loop_timer(client->loop, CONNECT_AGAIN_MS, 0, connect_again, client);
}

/* The server does not let us in. ZeroMQ gives up then; but the key may be allowed a moment later. */
static void on_refused(struct assay_client *client)
{
    pthread_mutex_lock(&client->lock);
    client->ready = false;
    client->refused = true;
    for (struct assay_client_call *call = client->calls; call; call = call->next)
        if (!call->ended && !call->wait_for_ready)
            end_refused(call);
    pthread_mutex_unlock(&client->lock);
    if (client->connect_timer == 0)
        client->connect_timer = assay_loop_timer(client->loop, CONNECT_AGAIN_MS, 0, connect_again, client);
}

static void on_monitor(void *arg)
{
    struct assay_client *client = arg;
    unsigned event;
    int value;
    bool lost = false, refused = false;
    while (assay_monitor_next(client->monitor, &event, &value)) {
        lost |= event == ZMQ_EVENT_DISCONNECTED;
        refused |= event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH || event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL;
    }
    if (lost)
        on_disconnected(client);
    if (refused)
        on_refused(client);
}

static enum assay_status open_monitor(struct assay_client *client, struct assay_err *err)
{
    enum assay_status status =
        assay_monitor_open(assay_loop_zmq(client->loop), client->socket, MONITOR_EVENTS, &client->monitor, err);
    client->monitor_watch =
        (struct assay_watch){.socket = client->monitor, .events = ZMQ_POLLIN, .fn = on_monitor, .arg = client};
    return status;
}

static void close_sockets(struct assay_client *client)
{
    assay_monitor_close(client->socket, client->monitor);
    zmq_close(client->socket);
}

struct join {
    struct assay_client *client;
    enum assay_status status;
    struct assay_err *err;
};

static void join_loop(void *arg)
{
    struct join *join = arg;
    struct assay_client *client = join->client;
    join->status = assay_loop_watch(client->loop, &client->watch, join->err);
    if (join->status == ASSAY_OK)
        join->status = assay_loop_watch(client->loop, &client->monitor_watch, join->err);
    if (join->status != ASSAY_OK)
        assay_loop_unwatch(client->loop, &client->watch);
}

static enum assay_status choose_address(struct assay_client *client, const char *endpoint, struct assay_err *err)
{
    struct assay_address addresses[ASSAY_ADDRESSES_MAX];
    size_t count;
    const struct assay_security *security = assay_loop_security(client->loop);
    enum assay_status status = assay_addresses_parse(endpoint, addresses, &count, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_address *chosen = assay_address_choose(addresses, count, security && security->connects);
    client->address = chosen ? *chosen : addresses[0];
    return ASSAY_OK;
}

enum assay_status assay_client_new(struct assay_loop *loop, const char *endpoint, struct assay_client **ret,
                                   struct assay_err *err)
{
    struct assay_client *client = calloc(1, sizeof *client);
    if (!client)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a client");
    client->loop = loop;
    enum assay_status status = choose_address(client, endpoint, err);
    if (status == ASSAY_OK)
        status = assay_socket_new(assay_loop_zmq(loop), ZMQ_DEALER, LINGER_MS, &client->socket, err);
    if (status == ASSAY_OK)
        status = assay_security_for_connect(assay_loop_security(loop), client->socket, &client->address, err);
    if (status == ASSAY_OK)
        status = assay_socket_suit(client->socket, &client->address, err);
    if (status != ASSAY_OK) {
        if (client->socket)
            zmq_close(client->socket);
        free(client);
        return status;
    }
    client->endpoint = client->address.text;
    pthread_mutex_init(&client->lock, NULL);
    client->references = 1;
    client->queue_tail = &client->queue_head;
    client->heard_ms = INT64_MIN / 2;
    client->wake = (struct assay_wake){.fn = on_wake, .arg = client};
    client->watch = (struct assay_watch){.socket = client->socket, .events = ZMQ_POLLIN, .fn = on_ready, .arg = client};
    struct join join = {.client = client, .status = open_monitor(client, err), .err = err};
    if (join.status == ASSAY_OK && zmq_connect(client->socket, client->endpoint) != 0)
        join.status = assay_err_errno(err, zmq_errno(), "cannot connect to %s", client->endpoint);
    if (join.status == ASSAY_OK)
        assay_loop_call(loop, join_loop, &join);
    if (join.status != ASSAY_OK) {
        close_sockets(client);
        assay_client_unref(client);
        return join.status;
    }
    *ret = client;
    return ASSAY_OK;
}

static void cancel(struct assay_client *client, bool all, const void *owner)
{
    for (struct assay_client_call *call = client->calls; call; call = call->next)
        if (all || call->owner == owner)
            assay_client_call_end(call, ASSAY_CANCELLED, "%s: cancelled", call->method);
    for (struct assay_client_pause *pause = client->pauses; pause; pause = pause->next) {
        if (all || pause->owner == owner) {
            pause->cancelled = true;
            pthread_cond_broadcast(&pause->changed);
        }
    }
}

/* Tells the server what nobody waits for any more, and leaves the loop. */
static void leave_loop(void *arg)
{
    struct assay_client *client = arg;
    pthread_mutex_lock(&client->lock);
    client->closed = true;
    cancel(client, true, NULL);
    for (struct assay_client_call *call = client->calls; call; call = call->next) {
        call->to_send |= ASSAY_SEND_CANCEL;
        send_due(client, call);
    }
    while (client->queue_head) {
        struct assay_client_call *call = client->queue_head;
        client->queue_head = call->queue_next;
        call->queued = false;
        send_due(client, call);
        if (call->abandoned)
            assay_client_call_free(call);
    }
    assay_loop_unwake(client->loop, &client->wake);
    pthread_mutex_unlock(&client->lock);
    assay_loop_timer_cancel(client->loop, client->timer);
    assay_loop_timer_cancel(client->loop, client->connect_timer);
    assay_loop_unwatch(client->loop, &client->watch);
    assay_loop_unwatch(client->loop, &client->monitor_watch);
    close_sockets(client);
}

void assay_client_free(struct assay_client *client)
{
    if (!client)
        return;
    assay_loop_call(client->loop, leave_loop, client);
    assay_client_unref(client);
}

void assay_client_unref(struct assay_client *client)
{
    pthread_mutex_lock(&client->lock);
    size_t left = --client->references;
    pthread_mutex_unlock(&client->lock);
    if (left > 0)
        return;
    pthread_mutex_destroy(&client->lock);
    free(client);
}

void assay_client_cancel_all(struct assay_client *client)
{
    pthread_mutex_lock(&client->lock);
    cancel(client, true, NULL);
    pthread_mutex_unlock(&client->lock);
}

void assay_client_cancel_owned(struct assay_client *client, const void *owner)
{
    pthread_mutex_lock(&client->lock);
    cancel(client, false, owner);
    pthread_mutex_unlock(&client->lock);
}
