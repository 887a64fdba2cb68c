/* A server's inside: peers, calls, and who touches what. Everything belongs to the loop's thread but what stands under
 * call->lock. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "common/wire/envelope.h"
#include "common/wire/loop_internal.h"
#include "common/wire/server.h"

#define ASSAY_WIRE_BUCKETS 1024

/* One connection of one client. */
struct assay_peer {
    struct assay_peer *next; /* in its bucket */
    unsigned char id[255];
    size_t id_bytes;
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
    char endpoint[256];
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
    uint64_t dropped;
    /* Any thread. */
    atomic_bool serving;
    atomic_int_fast64_t ticked_ms;
};

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
    /* Loop thread. */
    struct assay_peer *peer; /* NULL: closed on the wire */
    struct assay_call *peer_prev, *peer_next, *id_next, *prev, *next;
    uint64_t timer;
    assay_loop_fn on_cancel, on_credit;
    void *cancel_arg, *credit_arg;
};

/* --- peers (peer.c) --- */

struct assay_peer *assay_peer_find(struct assay_server *server, const void *id, size_t id_bytes);
/* Finds or makes; NULL when there are too many or memory is out. */
struct assay_peer *assay_peer_get(struct assay_server *server, const void *id, size_t id_bytes);
/* Sends, or queues while the pipe is full. Takes the message. A peer that cannot be reached is marked gone. */
void assay_peer_send(struct assay_server *server, struct assay_peer *peer, struct assay_outgoing *outgoing);
/* A header alone. Falls back on one without a sentence when memory is out. */
void assay_peer_send_header(struct assay_server *server, struct assay_peer *peer, Assay__V1__Header *header);
/* Drops silent peers. */
void assay_peers_tick(struct assay_server *server, int64_t now_ms);
/* Drops the peers marked gone and cancels their calls. */
void assay_peers_sweep(void *server);
void assay_peers_free(struct assay_server *server);

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
