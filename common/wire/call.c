#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/wire/observer.h"
#include "common/wire/server_internal.h"

static struct assay_call **bucket_of(struct assay_server *server, const struct assay_peer *peer, uint64_t id)
{
    uint64_t hash = (id ^ peer->instance) * 0x9e3779b97f4a7c15u;
    return &server->by_id[(hash >> 32) % ASSAY_WIRE_BUCKETS];
}

struct assay_call *assay_call_find(struct assay_server *server, const struct assay_peer *peer, uint64_t id)
{
    struct assay_call *call = *bucket_of(server, peer, id);
    while (call && (call->id != id || call->peer != peer))
        call = call->id_next;
    return call;
}

/* Closes the call on the wire: it is no longer found, and its deadline no longer runs. */
static void detach(struct assay_server *server, struct assay_call *call)
{
    struct assay_peer *peer = call->peer;
    if (!peer)
        return;
    struct assay_call **at = bucket_of(server, peer, call->id);
    while (*at != call)
        at = &(*at)->id_next;
    *at = call->id_next;
    *(call->peer_prev ? &call->peer_prev->peer_next : &peer->calls) = call->peer_next;
    if (call->peer_next)
        call->peer_next->peer_prev = call->peer_prev;
    peer->calls_count--;
    call->peer = NULL;
    assay_loop_timer_cancel(server->loop, call->timer);
}

static void count_calls(struct assay_server *server)
{
    atomic_store_explicit(&server->counts.calls_open, server->calls_count, memory_order_relaxed);
    atomic_store_explicit(&server->counts.calls_bytes, server->calls_bytes, memory_order_relaxed);
}

static void attach(struct assay_server *server, struct assay_peer *peer, struct assay_call *call)
{
    call->peer = peer;
    struct assay_call **bucket = bucket_of(server, peer, call->id);
    call->id_next = *bucket;
    *bucket = call;
    call->peer_next = peer->calls;
    if (peer->calls)
        peer->calls->peer_prev = call;
    peer->calls = call;
    peer->calls_count++;
    call->next = server->calls;
    if (server->calls)
        server->calls->prev = call;
    server->calls = call;
    server->calls_count++;
    server->calls_bytes += call->incoming->bytes;
    count_calls(server);
}

static void unlink_from_server(struct assay_server *server, struct assay_call *call)
{
    detach(server, call);
    assay_loop_unwake(server->loop, &call->wake);
    *(call->prev ? &call->prev->next : &server->calls) = call->next;
    if (call->next)
        call->next->prev = call->prev;
    server->calls_count--;
    server->calls_bytes -= call->incoming->bytes;
    count_calls(server);
}

static void drop_out(struct assay_outgoing *out)
{
    while (out) {
        struct assay_outgoing *next = out->next;
        assay_outgoing_free(out);
        out = next;
    }
}

/* Locked. The first end counts: an answer behind a deadline that has passed is none. */
static void note_end(struct assay_call *call, enum assay_status status)
{
    if (call->end_us)
        return;
    call->end_us = assay_now_us();
    call->outcome = status;
}

static void call_free(struct assay_call *call)
{
    const struct assay_wire_call told = {.is_server = true,
                                         .is_stream = call->stream,
                                         .method = call->full_method,
                                         .trace_id = call->trace_id,
                                         .status = call->outcome,
                                         .begin_us = call->begin_us,
                                         .end_us = call->end_us,
                                         .sent_bytes = call->sent_bytes,
                                         .received_bytes = call->incoming->bytes};
    assay_wire_ended(&told);
    drop_out(call->out_head);
    if (call->request)
        protobuf_c_message_free_unpacked(call->request, NULL);
    assay_incoming_free(call->incoming);
    pthread_cond_destroy(&call->changed);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

static Assay__V1__FrameKind last_kind(const struct assay_call *call)
{
    return call->stream ? ASSAY__V1__FRAME_KIND__FRAME_KIND_END : ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY;
}

static void send_failure(struct assay_call *call, struct assay_err *err)
{
    Assay__V1__Header header = assay_answer_header(last_kind(call), call->id, call->instance);
    assay_header_set_error(&header, err);
    assay_peer_send_header(call->server, call->peer, &header);
}

/* Sends what the handler has queued; frees the call when that was all. */
static void flush(struct assay_call *call)
{
    struct assay_server *server = call->server;
    pthread_mutex_lock(&call->lock);
    struct assay_outgoing *out = call->out_head;
    call->out_head = NULL;
    call->out_tail = &call->out_head;
    bool answered = call->answered;
    enum assay_status bare = call->bare;
    bool cancel_due = call->cancel_due && !answered;
    call->cancel_due = false;
    pthread_mutex_unlock(&call->lock);
    while (out && call->peer) {
        struct assay_outgoing *next = out->next;
        assay_peer_send(server, call->peer, out);
        out = next;
    }
    drop_out(out);
    if (answered) {
        if (call->peer && bare != ASSAY_OK) {
            struct assay_err err = {.status = bare, .text = "out of memory for the answer"};
            send_failure(call, &err);
        }
        unlink_from_server(server, call);
        call_free(call);
    } else if (cancel_due && call->on_cancel) {
        call->on_cancel(call->cancel_arg);
    }
}

static void flush_wake(void *call)
{
    flush(call);
}

/* Marks it cancelled. False when the handler has ended it: then its answer stands. */
static bool mark_cancelled(struct assay_call *call)
{
    pthread_mutex_lock(&call->lock);
    bool open = !call->answered && !call->cancelled;
    call->cancelled = true;
    note_end(call, ASSAY_CANCELLED);
    pthread_cond_broadcast(&call->changed);
    pthread_mutex_unlock(&call->lock);
    return open;
}

void assay_call_cancel(struct assay_call *call)
{
    bool open = mark_cancelled(call);
    detach(call->server, call);
    if (open && call->on_cancel)
        call->on_cancel(call->cancel_arg);
}

static void expire(void *arg)
{
    struct assay_call *call = arg;
    call->timer = 0;
    pthread_mutex_lock(&call->lock);
    bool answered = call->answered;
    if (!answered)
        note_end(call, ASSAY_DEADLINE_EXCEEDED);
    pthread_mutex_unlock(&call->lock);
    if (answered) {
        flush(call);
        return;
    }
    struct assay_err err = ASSAY_ERR_INIT;
    assay_err_set(&err, ASSAY_DEADLINE_EXCEEDED, "%s: the deadline has passed", call->method->name);
    send_failure(call, &err);
    assay_call_cancel(call);
}

struct assay_call *assay_call_new(struct assay_server *server, struct assay_peer *peer, const Assay__V1__Header *header,
                                  const ProtobufCMethodDescriptor *method, bool stream, struct assay_incoming *incoming,
                                  ProtobufCMessage *request)
{
    struct assay_call *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    call->deadline_ms = INT64_MAX;
    if (header->has_time_left_ms && header->time_left_ms < INT64_MAX / 4) {
        int64_t left_ms = (int64_t)header->time_left_ms;
        call->deadline_ms = assay_now_ms() + left_ms;
        call->timer = assay_loop_timer(server->loop, left_ms, 0, expire, call);
        if (call->timer == 0) {
            free(call);
            return NULL;
        }
    }
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->changed, NULL);
    call->server = server;
    call->loop = server->loop;
    call->out_tail = &call->out_head;
    call->wake = (struct assay_wake){.fn = flush_wake, .arg = call};
    call->id = header->call_id;
    call->instance = peer->instance;
    call->method = method;
    call->role = peer->role;
    call->is_local = peer->is_local;
    call->stream = stream;
    call->request = request;
    call->incoming = incoming;
    call->credit = stream ? ASSAY_MIN(header->credit, ASSAY_WIRE_CREDIT_MAX) : 0;
    if (header->trace_id)
        memcpy(call->trace_id, header->trace_id, sizeof call->trace_id);
    memcpy(call->full_method, header->method, ASSAY_MIN(strlen(header->method), sizeof call->full_method - 1));
    call->begin_us = assay_now_us();
    assay_wire_began(true);
    attach(server, peer, call);
    return call;
}

void assay_call_grant(struct assay_call *call, uint32_t credit)
{
    pthread_mutex_lock(&call->lock);
    call->credit += ASSAY_MIN(credit, ASSAY_WIRE_CREDIT_MAX - call->credit);
    pthread_cond_broadcast(&call->changed);
    bool tell = !call->answered && !call->cancelled;
    pthread_mutex_unlock(&call->lock);
    if (tell && call->on_credit)
        call->on_credit(call->credit_arg);
}

void assay_call_orphan(struct assay_call *call)
{
    pthread_mutex_lock(&call->lock);
    if (call->answered) {
        pthread_mutex_unlock(&call->lock);
        flush(call);
        return;
    }
    /* Once the lock is free the handler may end the call at any time, which frees it. */
    if (call->peer) {
        struct assay_err err = ASSAY_ERR_INIT;
        assay_err_set(&err, ASSAY_UNAVAILABLE, "%s: the server is going down", call->method->name);
        send_failure(call, &err);
    }
    unlink_from_server(call->server, call);
    assay_loop_fn on_cancel = call->cancelled ? NULL : call->on_cancel;
    void *cancel_arg = call->cancel_arg;
    call->server = NULL;
    call->cancelled = true;
    note_end(call, ASSAY_UNAVAILABLE);
    pthread_cond_broadcast(&call->changed);
    pthread_mutex_unlock(&call->lock);
    if (on_cancel)
        on_cancel(cancel_arg);
}

const void *assay_call_request(const struct assay_call *call)
{
    return call->request;
}

size_t assay_call_attachments(const struct assay_call *call)
{
    return call->incoming->attachments_count;
}

struct assay_bytes assay_call_attachment(const struct assay_call *call, size_t index)
{
    return assay_incoming_attachment(call->incoming, index);
}

enum assay_role assay_call_role(const struct assay_call *call)
{
    return call->role;
}

bool assay_call_is_local(const struct assay_call *call)
{
    return call->is_local;
}

const char *assay_call_trace_id(const struct assay_call *call)
{
    return call->trace_id;
}

int64_t assay_call_time_left_ms(const struct assay_call *call)
{
    return call->deadline_ms == INT64_MAX ? INT64_MAX : ASSAY_MAX(call->deadline_ms - assay_now_ms(), 0);
}

bool assay_call_cancelled(const struct assay_call *call)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&call->lock;
    pthread_mutex_lock(lock);
    bool cancelled = call->cancelled;
    pthread_mutex_unlock(lock);
    return cancelled || assay_call_time_left_ms(call) == 0;
}

void assay_call_on_cancel(struct assay_call *call, assay_loop_fn fn, void *arg)
{
    call->on_cancel = fn;
    call->cancel_arg = arg;
    pthread_mutex_lock(&call->lock);
    if (call->cancelled && call->server) {
        call->cancel_due = true;
        assay_loop_wake(call->loop, &call->wake);
    }
    pthread_mutex_unlock(&call->lock);
}

void assay_call_on_credit(struct assay_call *call, assay_loop_fn fn, void *arg)
{
    call->on_credit = fn;
    call->credit_arg = arg;
}

size_t assay_call_credit(const struct assay_call *call)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&call->lock;
    pthread_mutex_lock(lock);
    size_t credit = call->credit;
    pthread_mutex_unlock(lock);
    return credit;
}

/* The handler's last word; out NULL: there was no memory for it. */
static void finish(struct assay_call *call, enum assay_status status, struct assay_outgoing *out)
{
    pthread_mutex_lock(&call->lock);
    if (call->answered)
        ASSAY_BUG("a call was answered twice");
    call->answered = true;
    note_end(call, out ? status : ASSAY_RESOURCE_EXHAUSTED);
    if (out) {
        call->sent_bytes += out->bytes;
        out->next = NULL;
        *call->out_tail = out;
        call->out_tail = &out->next;
    } else {
        call->bare = ASSAY_RESOURCE_EXHAUSTED;
    }
    bool orphan = !call->server;
    bool here = !orphan && assay_loop_on_thread(call->loop);
    if (!orphan && !here)
        assay_loop_wake(call->loop, &call->wake);
    pthread_mutex_unlock(&call->lock);
    if (orphan)
        call_free(call);
    else if (here)
        flush(call);
}

/* A header alone as the last word. */
static void finish_with(struct assay_call *call, Assay__V1__Header *header)
{
    struct assay_outgoing *out = NULL;
    if (assay_outgoing_new(NULL, NULL, 0, &out, NULL) == ASSAY_OK && !assay_outgoing_header(out, header)) {
        assay_outgoing_free(out);
        out = NULL;
    }
    finish(call, (enum assay_status)header->status, out);
}

void assay_call_fail(struct assay_call *call, const struct assay_err *err)
{
    struct assay_err copy = *err;
    if (copy.status == ASSAY_OK)
        assay_err_set(&copy, ASSAY_UNKNOWN, "%s: failed without a status", call->method->name);
    Assay__V1__Header header = assay_answer_header(last_kind(call), call->id, call->instance);
    assay_header_set_error(&header, &copy);
    finish_with(call, &header);
}

static void fail_internal(struct assay_call *call, const char *what)
{
    struct assay_err err = ASSAY_ERR_INIT;
    assay_err_set(&err, ASSAY_INTERNAL, "%s: the handler %s", call->method->name, what);
    assay_call_fail(call, &err);
}

/* A packed message of the call. The attachments are taken over. */
static enum assay_status pack(const struct assay_call *call, Assay__V1__FrameKind kind, const ProtobufCMessage *message,
                              const struct assay_attachment *attachments, size_t count, struct assay_outgoing **ret,
                              struct assay_err *err)
{
    struct assay_outgoing *out;
    enum assay_status status = assay_outgoing_new(message, attachments, count, &out, err);
    if (status != ASSAY_OK)
        return status;
    Assay__V1__Header header = assay_answer_header(kind, call->id, call->instance);
    if (!assay_outgoing_header(out, &header)) {
        assay_outgoing_free(out);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a header");
    }
    *ret = out;
    return ASSAY_OK;
}

void assay_call_reply(struct assay_call *call, const ProtobufCMessage *reply,
                      const struct assay_attachment *attachments, size_t count)
{
    if (call->stream || reply->descriptor != call->method->output) {
        assay_attachments_release(attachments, count);
        fail_internal(call, "answered with a message of the wrong kind");
        return;
    }
    struct assay_outgoing *out = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (pack(call, ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY, reply, attachments, count, &out, &err) == ASSAY_OK)
        finish(call, ASSAY_OK, out);
    else
        assay_call_fail(call, &err);
}

void assay_call_end(struct assay_call *call)
{
    if (!call->stream) {
        fail_internal(call, "ended without a reply");
        return;
    }
    Assay__V1__Header header = assay_answer_header(ASSAY__V1__FRAME_KIND__FRAME_KIND_END, call->id, call->instance);
    finish_with(call, &header);
}

/* Takes one credit, waiting for it off the loop's thread. */
static enum assay_status take_credit(struct assay_call *call)
{
    bool wait = !assay_loop_on_thread(call->loop);
    pthread_mutex_lock(&call->lock);
    while (wait && call->credit == 0 && !call->cancelled)
        pthread_cond_wait(&call->changed, &call->lock);
    enum assay_status status = call->cancelled     ? ASSAY_CANCELLED
                               : call->credit == 0 ? ASSAY_RESOURCE_EXHAUSTED
                                                   : ASSAY_OK;
    if (status == ASSAY_OK)
        call->credit--;
    pthread_mutex_unlock(&call->lock);
    return status;
}

enum assay_status assay_call_send(struct assay_call *call, const ProtobufCMessage *message,
                                  const struct assay_attachment *attachments, size_t count)
{
    bool fits = call->stream && message->descriptor == call->method->output;
    enum assay_status status = fits ? take_credit(call) : ASSAY_INTERNAL;
    if (status != ASSAY_OK) {
        assay_attachments_release(attachments, count);
        return status;
    }
    struct assay_outgoing *out = NULL;
    status = pack(call, ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM, message, attachments, count, &out, NULL);
    pthread_mutex_lock(&call->lock);
    if (status != ASSAY_OK || call->cancelled) {
        call->credit++;
        pthread_mutex_unlock(&call->lock);
        assay_outgoing_free(out);
        return status != ASSAY_OK ? status : ASSAY_CANCELLED;
    }
    call->sent_bytes += out->bytes;
    out->next = NULL;
    *call->out_tail = out;
    call->out_tail = &out->next;
    bool here = assay_loop_on_thread(call->loop);
    if (!here)
        assay_loop_wake(call->loop, &call->wake);
    pthread_mutex_unlock(&call->lock);
    if (here)
        flush(call);
    return ASSAY_OK;
}
