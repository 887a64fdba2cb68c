/* A server's inside: peers, calls, and who touches what. Everything belongs to the loop's thread but what stands under
 * call->lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "common/wire/envelope.h"
#include "common/wire/security_internal.h"
#include "common/wire/server.h"

#define ASSAY_WIRE_BUCKETS 1024

/* A token bucket: full at first, `burst` at most. Pure. */
struct assay_bucket {
    double taken; /* of the burst */
    int64_t at_ms;
};
/* Takes one; false when it is empty. */
bool assay_bucket_take(struct assay_bucket *bucket, double per_s, double burst, int64_t now_ms);

/* One connection of one client. */
struct assay_peer {
    struct assay_peer *next; /* in its bucket */
    unsigned char id[255];
    size_t id_bytes;
    /* Who: the User-Id of its messages, "" on a server without keys. The routing id is the peer's own choice. */
    char user[ASSAY_KEY_DIGITS + 1];
    struct assay_public_key key;
    enum assay_role role;
    bool is_local;       /* on ipc */
    uint64_t generation; /* of the allowed keys when the role was found */
    /* Its connection: the descriptor may have gone to another by now, the inode tells. */
    int fd;
    ino_t inode;
    struct assay_bucket rate, garbage;
    bool ignored; /* was cut off */
    size_t calls_count;
    /* What its PONGs carry. A client that was forgotten (silent, unreachable) and comes back finds another one, and
     * knows that its calls are lost. */
    uint64_t instance;
    int64_t heard_ms;
    bool gone; /* the sweep drops it */
    struct assay_call *calls;
    struct assay_outgoing *pending_head, **pending_tail; /* the pipe is full */
    size_t pending_count, pending_bytes;
};

struct assay_service_row {
    const ProtobufCServiceDescriptor *descriptor;
    const assay_method_fn *handlers;
    void *service;
    uint64_t streams; /* bit i: methods[i] is a stream */
};

struct assay_health;

struct assay_server {
    struct assay_loop *loop;
    void *socket;
    struct assay_watch watch;
    struct assay_wake sweep; /* drops peers that are gone */
    char endpoint[ASSAY_ADDRESSES_BYTES_MAX];
    uint64_t instance, peers_made;
    uint64_t tick_timer, retry_timer;
    struct assay_service_row services[ASSAY_WIRE_SERVICES_MAX];
    size_t services_count;
    struct assay_health *health;
    struct assay_peer *peers[ASSAY_WIRE_BUCKETS];
    size_t peers_count;
    struct assay_call *by_id[ASSAY_WIRE_BUCKETS]; /* calls that are open on the wire */
    struct assay_call *calls;                     /* all that a handler has not ended, cancelled ones too */
    size_t calls_count, calls_bytes;
    /* Any thread. */
    atomic_bool serving;
    atomic_int_fast64_t ticked_ms;
    struct assay_security *security; /* NULL: no keys, everybody is admin */
    bool is_ipc;                     /* all endpoints are; only without keys */
    bool draining;
    struct assay_server_limits limits;
    void *monitor; /* of connections */
    struct assay_watch monitor_watch;
    /* Written by the loop's thread alone. */
    struct {
        _Atomic uint64_t messages, bytes, calls, refused[ASSAY_REFUSALS], cut, dropped;
        _Atomic uint64_t connections, peers, calls_open, calls_bytes;
    } counts;
};

/* One writer, so no lock on the bus. */
static inline void assay_count_add(_Atomic uint64_t *count, uint64_t more)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + more, memory_order_relaxed);
}

struct assay_call {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* credit or cancelled */
    /* Under lock. */
    struct assay_server *server; /* NULL: freed. While it is there only the loop's thread frees the call. */
    struct assay_outgoing *out_head, **out_tail;
    bool answered; /* the handler has ended it */
    bool cancelled;
    bool cancel_due; /* on_cancel was set too late and runs with the wake */
    uint32_t credit;
    enum assay_status bare; /* answered, and no memory for the answer: this status is it */
    /* Fixed. */
    struct assay_loop *loop;
    struct assay_wake wake;
    uint64_t id;
    uint64_t instance; /* the peer's when it was made */
    const ProtobufCMethodDescriptor *method;
    bool stream;
    int64_t deadline_ms; /* INT64_MAX: none */
    ProtobufCMessage *request;
    struct assay_incoming *incoming;
    char trace_id[ASSAY_WIRE_TRACE_DIGITS + 1];
    char full_method[ASSAY_WIRE_METHOD_BYTES_MAX + 1];
    int64_t begin_us;
    /* For the observer: under lock until the call has ended. */
    enum assay_status outcome;
    int64_t end_us; /* 0: it has not */
    uint64_t sent_bytes;
    enum assay_role role;
    bool is_local;
    /* Loop thread. */
    struct assay_peer *peer; /* NULL: closed on the wire */
    struct assay_call *peer_prev, *peer_next, *id_next, *prev, *next;
    uint64_t timer;
    assay_loop_fn on_cancel, on_credit;
    void *cancel_arg, *credit_arg;
};

/* --- peers (peer.c) --- */

struct assay_peer *assay_peer_find(struct assay_server *server, const void *id, size_t id_bytes);
/* Finds or makes; NULL when there are too many or memory is out. `user` as in struct assay_peer: one of another user
 * with the same id is another. */
struct assay_peer *assay_peer_get(struct assay_server *server, const void *id, size_t id_bytes, const char *user);
/* The sweep drops it and cancels its calls. */
void assay_peer_mark_gone(struct assay_server *server, struct assay_peer *peer);
/* Whether its connection is still there, as far as one can tell. */
bool assay_peer_is_connected(const struct assay_peer *peer);
/* What goes to a client about a call. A REPLY and a PONG tell it which instance of the server it is served by. */
Assay__V1__Header assay_answer_header(Assay__V1__FrameKind kind, uint64_t call_id, uint64_t instance);
/* Sends, or queues while the pipe is full. Takes the message. A peer that cannot be reached is marked gone. */
void assay_peer_send(struct assay_server *server, struct assay_peer *peer, struct assay_outgoing *outgoing);
/* A header alone. Falls back on one without a sentence when memory is out. */
void assay_peer_send_header(struct assay_server *server, struct assay_peer *peer, Assay__V1__Header *header);
/* Drops peers that are silent, or whose connection is closed. */
void assay_peers_tick(struct assay_server *server, int64_t now_ms);
/* Drops the peers marked gone and cancels their calls. */
void assay_peers_sweep(void *server);
void assay_peers_free(struct assay_server *server);

/* --- who is let in (admit.c) --- */

void assay_count_refusal(struct assay_server *server, enum assay_refusal refusal);
/* The peer of a message, with its role as of now; NULL: the message is not to be looked at, and was counted. */
struct assay_peer *assay_admit(struct assay_server *server, const struct assay_frames *frames);
/* A message that nobody can understand: counts it, and cuts the peer off when it has sent too many. */
void assay_admit_garbage(struct assay_server *server, struct assay_peer *peer, enum assay_refusal refusal);
/* Cuts off the peers whose key is no longer allowed. */
void assay_admit_tick(struct assay_server *server);
/* Watches connections, to have no more of them than are allowed. */
enum assay_status assay_admit_open(struct assay_server *server, struct assay_err *err) ASSAY_MUST_USE;
void assay_admit_close(struct assay_server *server);

/* --- calls (call.c) --- */

/* A call on a request; incoming and request are taken on success. NULL when out of memory. */
struct assay_call *assay_call_new(struct assay_server *server, struct assay_peer *peer, const Assay__V1__Header *header,
                                  const ProtobufCMethodDescriptor *method, bool stream, struct assay_incoming *incoming,
                                  ProtobufCMessage *request);
struct assay_call *assay_call_find(struct assay_server *server, const struct assay_peer *peer, uint64_t id);
void assay_call_grant(struct assay_call *call, uint32_t credit);
/* Closes it on the wire without an answer and tells the handler. The call may be gone afterwards. */
void assay_call_cancel(struct assay_call *call);
/* The server goes: sends what is queued, answers UNAVAILABLE otherwise, lets go of the handler's call. */
void assay_call_orphan(struct assay_call *call);

/* --- health (health.c) --- */

struct assay_health *assay_health_new(struct assay_server *server);
void assay_health_set(struct assay_health *health, bool serving);
void assay_health_free(struct assay_health *health); /* ends all watches; NULL is fine */
