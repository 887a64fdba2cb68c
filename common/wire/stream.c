/* The receiving side of a stream. */
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/wire/client_internal.h"

struct assay_stream {
    struct assay_client_call *call;
    const ProtobufCMessageDescriptor *output;
};

enum assay_status assay_stream_open(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                    unsigned method, const ProtobufCMessage *request,
                                    const struct assay_call_options *options, uint32_t credit,
                                    struct assay_stream **ret, struct assay_err *err)
{
    struct assay_stream *stream = malloc(sizeof *stream);
    if (!stream) {
        if (options)
            assay_attachments_release(options->attachments, options->attachments_count);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a stream");
    }
    stream->output = descriptor->methods[method].output;
    enum assay_status status =
        assay_client_call_open(client, descriptor, method, request, options, ASSAY_MAX(credit, 1u), &stream->call, err);
    if (status != ASSAY_OK) {
        free(stream);
        return status;
    }
    *ret = stream;
    return ASSAY_OK;
}

/* The owner took a message. Grants go out in halves of the window, so that a long stream costs few of them. */
static void took_one(struct assay_client_call *call)
{
    call->credit_due++;
    if (!call->ended && !call->client->closed && call->credit_due >= (call->credit_max + 1) / 2)
        assay_client_call_queue(call, ASSAY_SEND_CREDIT);
}

/* The next message, or NULL with the status: OK at the end, DEADLINE_EXCEEDED with an empty text when wait_ms passed.
 */
static struct assay_incoming *next(struct assay_client_call *call, int64_t wait_ms, enum assay_status *ret_status,
                                   struct assay_err *err)
{
    int64_t until_ms = wait_ms < 0 || wait_ms > INT64_MAX / 4 ? INT64_MAX : assay_now_ms() + wait_ms;
    bool came = assay_client_call_wait(call, ASSAY_MIN(until_ms, call->deadline_ms));
    if (!call->ended && assay_now_ms() >= call->deadline_ms)
        assay_client_call_expire(call, "not ended by");
    struct assay_incoming *incoming = NULL;
    if (!came && !call->ended) {
        *ret_status = assay_err_set(err, ASSAY_DEADLINE_EXCEEDED, "%s", "");
    } else if (call->in_head && !(call->ended && call->sent)) {
        /* Messages before the server's END are delivered; an end that was made here comes at once. */
        incoming = call->in_head;
        call->in_head = incoming->next;
        if (!call->in_head)
            call->in_tail = &call->in_head;
        took_one(call);
        *ret_status = ASSAY_OK;
    } else {
        *ret_status = call->status;
        if (call->status != ASSAY_OK)
            assay_err_set(err, call->status, "%s", call->err.text);
    }
    return incoming;
}

enum assay_status assay_stream_next(struct assay_stream *stream, int64_t wait_ms, struct assay_reply **ret,
                                    struct assay_err *err)
{
    struct assay_client_call *call = stream->call;
    enum assay_status status;
    pthread_mutex_lock(&call->client->lock);
    struct assay_incoming *incoming = next(call, wait_ms, &status, err);
    pthread_mutex_unlock(&call->client->lock);
    if (incoming)
        return assay_reply_new(incoming, stream->output, ret, err);
    if (status == ASSAY_OK)
        *ret = NULL;
    return status;
}

void assay_stream_close(struct assay_stream *stream)
{
    if (!stream)
        return;
    assay_client_call_leave(stream->call);
    free(stream);
}
