/* Serves protobuf-c services on a ROUTER socket with gRPC's semantics. Handlers run on the loop's thread and must not
 * block; a handler may keep its call and answer later from any thread. Every call is answered exactly once.
 *
 * A client with calls under way says every 3 s at least that it is there (PING). The calls of a peer that was silent
 * for 10 s, that cannot be reached, or that does not read what is sent to it, are cancelled.
 *
 * Refused before a handler runs: a method that the peer's role may not call (PERMISSION_DENIED), unknown method
 * (UNIMPLEMENTED), a payload or header that does not unpack or holds invalid UTF-8 in a string field (INTERNAL for the
 * payload; a bad header is counted and dropped), more calls, messages or bytes than a limit allows
 * (RESOURCE_EXHAUSTED), a deadline that has passed (DEADLINE_EXCEEDED), a server that drains (UNAVAILABLE). A peer
 * whose key is no longer allowed, or that goes on sending what nobody can understand, is cut off. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base/limits.h"
#include "common/wire/attachment.h"
#include "common/wire/limits.h"
#include "common/wire/loop.h"
#include "common/wire/roles.h"

struct assay_server;
struct assay_call;

typedef void (*assay_method_fn)(struct assay_call *call, void *service);

/* Binds. Endpoints: "ipc://PATH" (the directory must exist and be ours alone, mode 0700) or "tcp://127.0.0.1:PORT"
 * ("tcp://127.0.0.1:*" takes a free port), or one of each with a comma between. On a loop with a server key
 * (security.h) tcp is CURVE, and any address may be bound. Errors: INVALID_ARGUMENT (not an endpoint, ipc path too
 * long), NOT_FOUND (no such directory), PERMISSION_DENIED (a bind that is not loopback or ipc, without keys; a
 * directory that is not ours alone), UNAVAILABLE (address in use). Any thread. */
enum assay_status assay_server_new(struct assay_loop *loop, const char *endpoint, struct assay_server **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Loop thread, or while the loop does not run. Calls that were not answered get UNAVAILABLE and become cancelled; their
 * handlers still end them, as long as they like later. NULL is fine. */
void assay_server_free(struct assay_server *server);

/* The endpoint to connect to (address.h), with the real port, and with the key where it is CURVE. */
const char *assay_server_endpoint(const struct assay_server *server);

/* Adds a service before the loop runs: handlers[i] serves descriptor->methods[i]; NULL answers UNIMPLEMENTED.
 * `assay.v1.Health`, `assay.v1.Reflection` and `assay.v1.Trace` are there without asking. */
void assay_server_add(struct assay_server *server, const ProtobufCServiceDescriptor *descriptor,
                      const assay_method_fn *handlers, void *service);

/* Loop thread: what Health/Check answers for the whole server; SERVING from the start. */
void assay_server_set_serving(struct assay_server *server, bool serving);
/* Loop thread: NOT_SERVING, and new calls are answered UNAVAILABLE, but those of Health and Reflection. Calls under way
 * go on. */
void assay_server_drain(struct assay_server *server);
/* Loop thread: unary calls that are not answered. Streams end when their handlers do, or with the server. */
size_t assay_server_unary_calls(const struct assay_server *server);

/* Any thread: what was set last, and when (monotonic) the loop last looked after its peers, as it does every second. */
bool assay_server_is_serving(const struct assay_server *server);
int64_t assay_server_ticked_ms(const struct assay_server *server);

/* What one peer, and all of them, may do. */
struct assay_server_limits {
    uint32_t parts;           /* of one message, its header included */
    uint64_t message_bytes;   /* of all parts of one message */
    uint32_t calls;           /* of one peer at once */
    uint32_t messages_per_s;  /* of one peer; a burst may have ASSAY_WIRE_BURST_S times as many */
    uint32_t garbage;         /* messages that nobody understands, before a peer is cut off */
    uint32_t connections;     /* of all peers */
    uint32_t key_connections; /* of one key */
};
#define ASSAY_SERVER_LIMITS_DEFAULT                                                                                    \
    {                                                                                                                  \
        .parts = ASSAY_WIRE_PARTS_MAX, .message_bytes = ASSAY_WIRE_MESSAGE_BYTES_MAX,                                  \
        .calls = ASSAY_WIRE_PEER_CALLS_MAX, .messages_per_s = ASSAY_WIRE_PEER_RATE,                                    \
        .garbage = ASSAY_WIRE_PEER_GARBAGE_MAX, .connections = ASSAY_WIRE_CONNECTIONS_MAX,                             \
        .key_connections = ASSAY_WIRE_KEY_PEERS_MAX                                                                    \
    }
/* Loop thread, or before it runs. Ceilings of limits.h hold beside them. */
void assay_server_set_limits(struct assay_server *server, const struct assay_server_limits *limits);

/* Why a message was not taken, or a connection. */
enum assay_refusal {
    ASSAY_REFUSED_PARTS,           /* too many parts */
    ASSAY_REFUSED_BYTES,           /* too large */
    ASSAY_REFUSED_HEADER,          /* no header */
    ASSAY_REFUSED_KIND,            /* of a kind that only servers send, or a call id in use */
    ASSAY_REFUSED_FRAMES,          /* other parts than the header announces */
    ASSAY_REFUSED_PAYLOAD,         /* not the method's message */
    ASSAY_REFUSED_METHOD,          /* unknown */
    ASSAY_REFUSED_UNAUTHENTICATED, /* the key is no longer allowed */
    ASSAY_REFUSED_ROLE,            /* the role may not call it */
    ASSAY_REFUSED_RATE,            /* too many messages a second */
    ASSAY_REFUSED_PEER_CALLS,      /* too many calls of this peer */
    ASSAY_REFUSED_CALLS,           /* of all peers */
    ASSAY_REFUSED_HELD_BYTES,      /* requests under way hold too much */
    ASSAY_REFUSED_MEMORY,
    ASSAY_REFUSED_DEADLINE, /* had passed */
    ASSAY_REFUSED_DRAINING,
    ASSAY_REFUSED_IGNORED,     /* of a peer that was cut off */
    ASSAY_REFUSED_PEERS,       /* too many connections with traffic */
    ASSAY_REFUSED_CONNECTIONS, /* too many connections */
    ASSAY_REFUSED_HANDSHAKE,   /* a connection: no ZeroMQ peer, no key, a wrong one */
    ASSAY_REFUSALS
};
/* "header", for labels of metrics. Static. */
const char *assay_refusal_name(enum assay_refusal refusal);

/* Since the start, but for the last four, which are of now. */
struct assay_server_counts {
    uint64_t messages, bytes; /* received */
    uint64_t calls;           /* handed to a handler */
    uint64_t refused[ASSAY_REFUSALS];
    uint64_t cut; /* peers cut off */
    uint64_t connections, peers, calls_open, calls_bytes;
};
/* Any thread. */
void assay_server_counts(const struct assay_server *server, struct assay_server_counts *ret);
/* Any thread: messages that were dropped, as no answer to them was possible. */
uint64_t assay_server_dropped(const struct assay_server *server);

/* --- a call. All functions: any thread, unless said otherwise. --- */

/* The unpacked request; valid until the call is answered and released. */
const void *assay_call_request(const struct assay_call *call);
size_t assay_call_attachments(const struct assay_call *call);
struct assay_bytes assay_call_attachment(const struct assay_call *call, size_t index);
/* INT64_MAX when the call has no deadline. */
int64_t assay_call_time_left_ms(const struct assay_call *call);
/* What the peer may do: the role of its key; without keys everybody who reaches a server is its admin. */
enum assay_role assay_call_role(const struct assay_call *call);
/* It came over ipc, so from a process of the server's owner on this machine. */
bool assay_call_is_local(const struct assay_call *call);
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
