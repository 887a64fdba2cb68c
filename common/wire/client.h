/* Calls services over a DEALER socket. Calls block the calling thread, which is not the loop's; many threads may call
 * at once. A peer that dies, restarts or stays silent for 5 s ends its calls with UNAVAILABLE; a call that was sent may
 * then have been carried out. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/wire/attachment.h"
#include "common/wire/loop.h"
#include "common/wire/retry.h"

struct assay_call;
struct assay_client;
struct assay_reply;
struct assay_stream;

/* Connects in the background; a peer that is not there yet is no error. Of an endpoint that is a list the client takes
 * what suits its keys (address.h). INVALID_ARGUMENT: no endpoint. PERMISSION_DENIED: it needs keys, and the server's or
 * the loop's is missing (security.h). A server that refuses the loop's key ends calls with UNAUTHENTICATED, but those
 * that wait for it to be ready. */
enum assay_status assay_client_new(struct assay_loop *loop, const char *endpoint, struct assay_client **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Any thread but the loop's while it runs. Calls under way end with CANCELLED; streams are still closed by their
 * owners. Before the loop is freed. NULL is fine. */
void assay_client_free(struct assay_client *client);

/* What one call wants besides its request. */
struct assay_call_options {
    int64_t deadline_ms;  /* from now; 0 = none */
    bool wait_for_ready;  /* while the peer is not there, wait up to the deadline; else UNAVAILABLE after 5 s. A call
                           * that was  sent is not repeated */
    const char *trace_id; /* NULL: the calling thread's (common/obs/spans.h) */
    const struct assay_attachment *attachments; /* taken over, whatever the outcome */
    size_t attachments_count;
    const void *owner; /* for assay_client_cancel_owned, may be NULL */
    /* The call that is being answered by this one, or NULL: the time it has left bounds this one, its trace id is this
     * one's unless another is given, and this one ends soon after it was cancelled. It outlives this one. */
    const struct assay_call *parent;
    /* Unary calls that may be carried out twice: when to try again; NULL: never. The deadline covers all attempts. A
     * call with attachments, which are given away, is tried once. */
    const struct assay_retry_policy *retry;
};

/* A unary call: descriptor->methods[method]. On OK, *ret holds the reply; assay_reply_free ends it. `options` may be
 * NULL. On failure, err has the server's sentence and the status is the call's. */
enum assay_status assay_call_unary(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                   unsigned method, const ProtobufCMessage *request,
                                   const struct assay_call_options *options, struct assay_reply **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
const void *assay_reply_message(const struct assay_reply *reply);
size_t assay_reply_attachments(const struct assay_reply *reply);
struct assay_bytes assay_reply_attachment(const struct assay_reply *reply, size_t index);
void assay_reply_free(struct assay_reply *reply); /* NULL is fine */

/* A server-streaming call. `credit` messages may be under way at once (1 to 1024). One thread at a time uses a stream.
 */
enum assay_status assay_stream_open(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                    unsigned method, const ProtobufCMessage *request,
                                    const struct assay_call_options *options, uint32_t credit,
                                    struct assay_stream **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Waits up to wait_ms (-1 = for ever) for the next message. OK with *ret set: a message. OK with *ret NULL: the stream
 * ended well. DEADLINE_EXCEEDED with err->text empty: nothing within wait_ms, call again. Else: how the stream ended.
 */
enum assay_status assay_stream_next(struct assay_stream *stream, int64_t wait_ms, struct assay_reply **ret,
                                    struct assay_err *err) ASSAY_MUST_USE;
/* Cancels when it has not ended. NULL is fine. */
void assay_stream_close(struct assay_stream *stream);

/* Makes all calls under way on this client end with CANCELLED, from any thread (for a signal or a shutdown). */
void assay_client_cancel_all(struct assay_client *client);
/* The same for the calls whose options named `owner`. */
void assay_client_cancel_owned(struct assay_client *client, const void *owner);
