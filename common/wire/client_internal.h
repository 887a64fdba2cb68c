/* A client's inside. Callers' threads put calls into the table and the send queue; the loop's thread alone touches the
 * socket. */
#pragma once

#include <pthread.h>

#include "common/wire/client.h"
#include "common/wire/envelope.h"
#include "common/wire/security_internal.h"

/* What the loop has to send for a call. */
enum { ASSAY_SEND_REQUEST = 1, ASSAY_SEND_CREDIT = 2, ASSAY_SEND_CANCEL = 4 };

/* A thread that waits before it tries a call again. Under client->lock. */
struct assay_client_pause {
    struct assay_client_pause *next;
    const void *owner;
    bool cancelled;
    pthread_cond_t changed;
};

/* One call, of a thread that waits or of a stream. Under client->lock, but what is fixed. */
struct assay_client_call {
    struct assay_client *client; /* holds a reference */
    uint64_t id;
    char method[ASSAY_WIRE_METHOD_BYTES_MAX + 1];
    char trace_id[ASSAY_WIRE_TRACE_DIGITS + 1];
    bool stream, wait_for_ready;
    const void *owner;
    const struct assay_call *parent;
    int64_t started_ms, deadline_ms; /* INT64_MAX: none */
    struct assay_outgoing *request;  /* until it is sent */
    bool sent;                       /* the server may know it */
    bool ended;                      /* status is final */
    bool abandoned;                  /* its owner has left: the loop sends the CANCEL and frees it */
    uint64_t instance;               /* the server's when it was sent */
    enum assay_status status;
    struct assay_err err;
    unsigned to_send; /* ASSAY_SEND_* */
    bool queued;
    struct assay_client_call *queue_next;
    struct assay_client_call *prev, *next; /* in the table */
    pthread_cond_t changed;
    /* Messages that came: the reply, or what a stream's owner has not taken yet. */
    struct assay_incoming *in_head, **in_tail;
    uint32_t credit;     /* granted, and not used by the server */
    uint32_t credit_due; /* taken by the owner, to be granted again */
    uint32_t credit_max;
    /* For the observer. */
    int64_t begin_us;
    uint64_t sent_bytes, received_bytes;
};

struct assay_client {
    struct assay_loop *loop;
    struct assay_address address;
    const char *endpoint; /* address.text */
    pthread_mutex_t lock;
    /* Under lock. */
    size_t references;
    bool closed; /* the loop is no longer to be touched */
    struct assay_client_call *calls;
    struct assay_client_pause *pauses;
    struct assay_throttle throttle;
    struct assay_client_call *queue_head, **queue_tail;
    uint64_t next_id;
    struct assay_wake wake;
    /* Loop thread. */
    void *socket;
    struct assay_watch watch;
    void *monitor; /* tells lost and refused connections */
    struct assay_watch monitor_watch;
    uint64_t timer; /* runs while there are calls */
    uint64_t connect_timer;
    bool ready; /* a PONG came, and silence was never long since */
    bool want_ping;
    bool refused; /* by the server, for the key; until a PONG comes. Under lock */
    uint64_t instance;
    int64_t heard_ms;  /* last traffic from the server */
    int64_t known_ms;  /* when it last said which instance it is */
    int64_t said_ms;   /* the last PING or request to it */
    int64_t asked_ms;  /* when the first of the PINGs was due that nothing has come since, 0 = none */
    int64_t active_ms; /* since when there are calls: silence counts from there */
};

/* --- client.c; with the lock held --- */

/* Ends a call with a status that was found here, not sent by the server. */
enum assay_status assay_client_call_end(struct assay_client_call *call, enum assay_status status, const char *format,
                                        ...) ASSAY_PRINTF(3, 4);
/* Ends a call whose deadline has passed; `what` as "no answer from". One that a server does not even let in is
 * UNAUTHENTICATED. */
void assay_client_call_expire(struct assay_client_call *call, const char *what);
/* Queues what has to be sent and wakes the loop. */
void assay_client_call_queue(struct assay_client_call *call, unsigned to_send);

/* --- client_call.c --- */

/* Makes a call, packs its request and hands it to the loop. The attachments are taken over, whatever the outcome. */
enum assay_status assay_client_call_open(struct assay_client *client, const ProtobufCServiceDescriptor *descriptor,
                                         unsigned method, const ProtobufCMessage *request,
                                         const struct assay_call_options *options, uint32_t credit,
                                         struct assay_client_call **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Waits until the call has a message or has ended, or until until_ms. False: until_ms has come. With the lock held. */
bool assay_client_call_wait(struct assay_client_call *call, int64_t until_ms) ASSAY_MUST_USE;
/* The owner leaves: cancels at the server what has not ended. */
void assay_client_call_leave(struct assay_client_call *call);
/* Loop thread or no one else knows the call. */
void assay_client_call_free(struct assay_client_call *call);
/* A reply from a message; it takes incoming, whatever the outcome. */
enum assay_status assay_reply_new(struct assay_incoming *incoming, const ProtobufCMessageDescriptor *descriptor,
                                  struct assay_reply **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_client_unref(struct assay_client *client);
