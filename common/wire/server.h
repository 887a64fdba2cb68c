/* Serves protobuf-c services on a ROUTER socket with gRPC's semantics. Handlers run on the loop's thread and must not
 * block; a handler may keep its call and answer later from any thread. Every call is answered exactly once.
 *
 * A client with calls under way says every second that it is there (PING). The calls of a peer that was silent for 10
 * s, that cannot be reached, or that does not read what is sent to it, are cancelled.
 *
 * Refused before a handler runs: unknown method (UNIMPLEMENTED), a payload or header that does not unpack or holds
 * invalid UTF-8 in a string field (INTERNAL for the payload; a bad header is counted and dropped), more than
 * ASSAY_WIRE_INFLIGHT_MAX calls (RESOURCE_EXHAUSTED), a deadline that has passed (DEADLINE_EXCEEDED). */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/wire/attachment.h"
#include "common/wire/loop.h"

struct assay_server;
struct assay_call;

typedef void (*assay_method_fn)(struct assay_call *call, void *service);

/* Binds. Endpoints: "ipc://PATH" (the directory must exist and be ours alone, mode 0700) or "tcp://127.0.0.1:PORT"
 * ("tcp://127.0.0.1:*" takes a free port). Errors: INVALID_ARGUMENT (not an endpoint, ipc path too long),
 * NOT_FOUND (no such directory), PERMISSION_DENIED (a bind that is not loopback or ipc: needs CURVE; a directory that
 * is not ours alone), UNAVAILABLE (address in use). Any thread. */
enum assay_status assay_server_new(struct assay_loop *loop, const char *endpoint, struct assay_server **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Loop thread, or while the loop does not run. Calls that were not answered get UNAVAILABLE and become cancelled; their
 * handlers still end them, as long as they like later. NULL is fine. */
void assay_server_free(struct assay_server *server);

/* The endpoint to connect to, with the real port. */
const char *assay_server_endpoint(const struct assay_server *server);

/* Adds a service before the loop runs: handlers[i] serves descriptor->methods[i]; NULL answers UNIMPLEMENTED.
 * `assay.v1.Health`, `assay.v1.Reflection` and `assay.v1.Trace` are there without asking. */
void assay_server_add(struct assay_server *server, const ProtobufCServiceDescriptor *descriptor,
                      const assay_method_fn *handlers, void *service);

/* Loop thread: what Health/Check answers for the whole server; SERVING from the start. */
void assay_server_set_serving(struct assay_server *server, bool serving);

/* Any thread: what was set last, and when (monotonic) the loop last looked after its peers, as it does every second. */
bool assay_server_is_serving(const struct assay_server *server);
int64_t assay_server_ticked_ms(const struct assay_server *server);

/* Loop thread: messages that were dropped, as no answer to them was possible. */
uint64_t assay_server_dropped(const struct assay_server *server);

/* --- a call. All functions: any thread, unless said otherwise. --- */

/* The unpacked request; valid until the call is answered and released. */
const void *assay_call_request(const struct assay_call *call);
size_t assay_call_attachments(const struct assay_call *call);
struct assay_bytes assay_call_attachment(const struct assay_call *call, size_t index);
/* INT64_MAX when the call has no deadline. */
int64_t assay_call_time_left_ms(const struct assay_call *call);
/* 32 hexadecimal digits, or "" when the client gave none. Valid as the request is. */
const char *assay_call_trace_id(const struct assay_call *call);
/* The client cancelled, its deadline passed, or it is gone. Long work polls this. */
bool assay_call_cancelled(const struct assay_call *call);
/* Loop thread: fn(arg) runs on the loop's thread when the call becomes cancelled before it is answered. */
void assay_call_on_cancel(struct assay_call *call, assay_loop_fn fn, void *arg);

/* Unary: sends the reply; the call must not be touched afterwards. Attachments are taken over. */
void assay_call_reply(struct assay_call *call, const ProtobufCMessage *reply,
                      const struct assay_attachment *attachments, size_t count);
/* Unary or stream: ends with a status that is not OK; the call must not be touched afterwards. */
void assay_call_fail(struct assay_call *call, const struct assay_err *err);

/* Stream: queues one message. Waits for credit when called off the loop's thread. On the loop's thread it answers
 * RESOURCE_EXHAUSTED when there is no credit. CANCELLED when the client went away. */
enum assay_status assay_call_send(struct assay_call *call, const ProtobufCMessage *message,
                                  const struct assay_attachment *attachments, size_t count) ASSAY_MUST_USE;
/* Loop thread: messages that may be sent now. */
size_t assay_call_credit(const struct assay_call *call);
/* Loop thread: fn(arg) runs on the loop's thread whenever credit arrives. */
void assay_call_on_credit(struct assay_call *call, assay_loop_fn fn, void *arg);
/* Stream: ends with OK; the call must not be touched afterwards. */
void assay_call_end(struct assay_call *call);
