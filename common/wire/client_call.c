/* The caller's side of a call. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/obs/spans.h"
#include "common/wire/client_internal.h"
#include "common/wire/observer.h"
#include "common/wire/server.h"

struct assay_reply {
    ProtobufCMessage *message;
    struct assay_incoming *incoming;
};

/* A cancelled parent is noticed within that time. */
#define PARENT_TURN_MS 50

static void cond_init(pthread_cond_t *changed)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void set_options(struct assay_client_call *call, const struct assay_call_options *options)
{
    call->started_ms = assay_now_ms();
    call->deadline_ms = INT64_MAX;
    strcpy(call->trace_id, assay_trace_current());
    if (!options)
        return;
    if (options->deadline_ms > 0 && options->deadline_ms < INT64_MAX / 4)
        call->deadline_ms = call->started_ms + options->deadline_ms;
    call->wait_for_ready = options->wait_for_ready;
    call->owner = options->owner;
    call->parent = options->parent;
    if (call->parent) {
        int64_t left_ms = assay_call_time_left_ms(call->parent);
        if (left_ms < INT64_MAX / 4)
            call->deadline_ms = ASSAY_MIN(call->deadline_ms, call->started_ms + left_ms);
        if (assay_call_trace_id(call->parent)[0])
            strcpy(call->trace_id, assay_call_trace_id(call->parent));
    }
    if (options->trace_id && strlen(options->trace_id) == ASSAY_WIRE_TRACE_DIGITS)
        memcpy(call->trace_id, options->trace_id, ASSAY_WIRE_TRACE_DIGITS);
}

static struct assay_client_call *call_new(struct assay_client *client, const char *method,
                                          const struct assay_call_options *options)
{
    struct assay_client_call *call = calloc(1, sizeof *call);
    if (!call)
        return NULL;
    snprintf(call->method, sizeof call->method, "%s", method);
    set_options(call, options);
    call->client = client;
    call->in_tail = &call->in_head;
    cond_init(&call->changed);
    return call;
}

void assay_client_call_free(struct assay_client_call *call)
{
    assay_outgoing_free(call->request);
    while (call->in_head) {
        struct assay_incoming *incoming = call->in_head;
        call->in_head = incoming->next;
        assay_incoming_free(incoming);
    }
    pthread_cond_destroy(&call->changed);
    free(call);
}

/* Puts the call into the table and its request into the queue. */
static enum assay_status start(struct assay_client *client, struct assay_client_call *call, struct assay_err *err)
{
    pthread_mutex_lock(&client->lock);
    enum assay_status status = ASSAY_OK;
    if (client->closed) {
        status = assay_err_set(err, ASSAY_CANCELLED, "%s: the client is closed", call->method);
    } else {
        call->id = ++client->next_id;
        client->references++;
        call->next = client->calls;
        if (client->calls)
            client->calls->prev = call;
        client->calls = call;
        assay_client_call_queue(call, ASSAY_SEND_REQUEST);
    }
    pthread_mutex_unlock(&client->lock);
    return status;
}

enum assay_status assay_client_call_open(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                         unsigned method, const ProtobufCMessage *request,
                                         const struct assay_call_options *options, uint32_t credit,
                                         struct assay_client_call **ret, struct assay_err *err)
{
    const struct assay_attachment *attachments = options ? options->attachments : NULL;
    size_t count = options ? options->attachments_count : 0;
    char name[ASSAY_WIRE_METHOD_BYTES_MAX + 1];
    const ProtobufCMethodDescriptor *row = &descriptor->methods[method];
    int bytes = snprintf(name, sizeof name, "%s/%s", descriptor->name, row->name);
    enum assay_status status = ASSAY_OK;
    if (assay_loop_on_thread(client->loop))
        ASSAY_BUG("a blocking call on the loop's thread would wait for itself");
    if (bytes < 0 || (size_t)bytes >= sizeof name || request->descriptor != row->input)
        status = assay_err_set(err, ASSAY_INTERNAL, "%.128s is called with a %s, wanted %s", name,
                               request->descriptor->name, row->input->name);
    struct assay_client_call *call = status == ASSAY_OK ? call_new(client, name, options) : NULL;
    if (!call) {
        assay_attachments_release(attachments, count);
        return status != ASSAY_OK ? status
                                  : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for a call", name);
    }
    call->stream = credit > 0;
    call->credit = call->credit_max = ASSAY_MIN(credit, ASSAY_WIRE_CREDIT_MAX);
    call->begin_us = assay_now_us();
    status = assay_outgoing_new(request, attachments, count, &call->request, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "%s", name);
    } else {
        call->sent_bytes = call->request->bytes;
        status = start(client, call, err);
    }
    if (status != ASSAY_OK) {
        assay_client_call_free(call);
        return status;
    }
    assay_wire_began(false);
    *ret = call;
    return ASSAY_OK;
}

/* The call that this one is for has ended: nobody waits for this one. */
static void follow_parent(struct assay_client_call *call)
{
    if (!call->parent || call->ended || !assay_call_cancelled(call->parent))
        return;
    bool late = assay_call_time_left_ms(call->parent) == 0;
    assay_client_call_end(call, late ? ASSAY_DEADLINE_EXCEEDED : ASSAY_CANCELLED, "%s: the call that it was for %s",
                          call->method, late ? "has no time left" : "was cancelled");
}

bool assay_client_call_wait(struct assay_client_call *call, int64_t until_ms)
{
    for (;;) {
        follow_parent(call);
        if (call->ended || (call->stream && call->in_head))
            return true;
        int64_t turn_ms = call->parent ? ASSAY_MIN(until_ms, assay_now_ms() + PARENT_TURN_MS) : until_ms;
        struct timespec until = {.tv_sec = turn_ms / 1000, .tv_nsec = turn_ms % 1000 * 1000000};
        if (turn_ms == INT64_MAX)
            pthread_cond_wait(&call->changed, &call->client->lock);
        else if (pthread_cond_timedwait(&call->changed, &call->client->lock, &until) == ETIMEDOUT &&
                 assay_now_ms() >= until_ms)
            return call->ended || (call->stream && call->in_head);
    }
}

/* Locked. A stream that its owner leaves before its end is cancelled. */
static struct assay_wire_call told_of(const struct assay_client_call *call)
{
    return (struct assay_wire_call){.is_stream = call->stream,
                                    .method = call->method,
                                    .trace_id = call->trace_id,
                                    .status = call->ended ? call->status : ASSAY_CANCELLED,
                                    .begin_us = call->begin_us,
                                    .end_us = assay_now_us(),
                                    .sent_bytes = call->sent_bytes,
                                    .received_bytes = call->received_bytes};
}

void assay_client_call_leave(struct assay_client_call *call)
{
    struct assay_client *client = call->client;
    char method[sizeof call->method], trace_id[sizeof call->trace_id];
    pthread_mutex_lock(&client->lock);
    struct assay_wire_call told = told_of(call);
    told.method = strcpy(method, call->method);
    told.trace_id = strcpy(trace_id, call->trace_id);
    *(call->prev ? &call->prev->next : &client->calls) = call->next;
    if (call->next)
        call->next->prev = call->prev;
    call->ended = true;
    /* A call in the queue is the loop's to free, and one that the server works on is to be cancelled. */
    call->abandoned = !client->closed && (call->queued || call->sent);
    if (call->abandoned)
        assay_client_call_queue(call, ASSAY_SEND_CANCEL);
    bool mine = !call->abandoned;
    pthread_mutex_unlock(&client->lock);
    if (mine)
        assay_client_call_free(call);
    assay_client_unref(client);
    assay_wire_ended(&told);
}

enum assay_status assay_reply_new(struct assay_incoming *incoming, const ProtobufCMessageDescriptor *descriptor,
                                  struct assay_reply **ret, struct assay_err *err)
{
    struct assay_reply *reply = malloc(sizeof *reply);
    enum assay_status status =
        reply ? assay_payload_unpack(descriptor, zmq_msg_data(&incoming->payload), zmq_msg_size(&incoming->payload),
                                     &reply->message, err)
              : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a %s", descriptor->name);
    if (status != ASSAY_OK) {
        free(reply);
        assay_incoming_free(incoming);
        return status;
    }
    reply->incoming = incoming;
    *ret = reply;
    return ASSAY_OK;
}

const void *assay_reply_message(const struct assay_reply *reply)
{
    return reply->message;
}

size_t assay_reply_attachments(const struct assay_reply *reply)
{
    return reply->incoming->attachments_count;
}

struct assay_bytes assay_reply_attachment(const struct assay_reply *reply, size_t index)
{
    return assay_incoming_attachment(reply->incoming, index);
}

void assay_reply_free(struct assay_reply *reply)
{
    if (!reply)
        return;
    protobuf_c_message_free_unpacked(reply->message, NULL);
    assay_incoming_free(reply->incoming);
    free(reply);
}

static enum assay_status attempt(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                 unsigned method, const ProtobufCMessage *request,
                                 const struct assay_call_options *options, struct assay_reply **ret,
                                 struct assay_err *err)
{
    struct assay_client_call *call;
    enum assay_status status = assay_client_call_open(client, descriptor, method, request, options, 0, &call, err);
    if (status != ASSAY_OK)
        return status;
    pthread_mutex_lock(&client->lock);
    if (!assay_client_call_wait(call, call->deadline_ms))
        assay_client_call_expire(call, "no answer from");
    struct assay_incoming *incoming = call->in_head;
    call->in_head = NULL;
    call->in_tail = &call->in_head;
    status = call->status;
    if (status != ASSAY_OK)
        assay_err_set(err, status, "%s", call->err.text);
    pthread_mutex_unlock(&client->lock);
    assay_client_call_leave(call);
    if (status == ASSAY_OK)
        return assay_reply_new(incoming, descriptor->methods[method].output, ret, err);
    assay_incoming_free(incoming);
    return status;
}

/* Waits before another attempt. False: cancelled, the client is gone, or out of memory. */
static bool pause_ms(struct assay_client *client, const struct assay_call_options *options, int64_t ms)
{
    int64_t until_ms = assay_now_ms() + ms;
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    struct assay_client_pause *pause = calloc(1, sizeof *pause);
    if (!pause)
        return false;
    pause->owner = options->owner;
    cond_init(&pause->changed);
    pthread_mutex_lock(&client->lock);
    pause->next = client->pauses;
    client->pauses = pause;
    client->references++;
    while (!pause->cancelled && !client->closed && assay_now_ms() < until_ms)
        pthread_cond_timedwait(&pause->changed, &client->lock, &until);
    bool go_on = !pause->cancelled && !client->closed;
    struct assay_client_pause **at = &client->pauses;
    while (*at != pause)
        at = &(*at)->next;
    *at = pause->next;
    pthread_mutex_unlock(&client->lock);
    pthread_cond_destroy(&pause->changed);
    free(pause);
    assay_client_unref(client);
    return go_on;
}

static bool may_retry(struct assay_client *client, const struct assay_retry_policy *policy, unsigned attempts,
                      enum assay_status status)
{
    pthread_mutex_lock(&client->lock);
    bool may = assay_retry_may(policy, &client->throttle, attempts, status);
    pthread_mutex_unlock(&client->lock);
    return may;
}

enum assay_status assay_call_unary(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                   unsigned method, const ProtobufCMessage *request,
                                   const struct assay_call_options *options, struct assay_reply **ret,
                                   struct assay_err *err)
{
    if (!options || !options->retry || options->attachments_count > 0)
        return attempt(client, descriptor, method, request, options, ret, err);
    struct assay_call_options again = *options;
    int64_t until_ms = options->deadline_ms > 0 ? assay_now_ms() + options->deadline_ms : INT64_MAX;
    for (unsigned attempts = 1;; attempts++) {
        enum assay_status status = attempt(client, descriptor, method, request, &again, ret, err);
        bool may = may_retry(client, options->retry, attempts, status);
        int64_t backoff_ms = assay_retry_backoff_ms(options->retry, attempts, assay_jitter_random());
        if (!may || (until_ms != INT64_MAX && assay_now_ms() + backoff_ms >= until_ms) ||
            !pause_ms(client, options, backoff_ms))
            return status;
        if (until_ms != INT64_MAX)
            again.deadline_ms = ASSAY_MAX(until_ms - assay_now_ms(), 1);
    }
}
