/* Sockets: where a server may listen, options, what becomes of connections. */
#pragma once

#include "common/wire/address.h"

/* What must hold before a bind. For ipc: the directory is there and ours alone (NOT_FOUND, PERMISSION_DENIED), and no
 * live process listens (UNAVAILABLE): ZeroMQ would silently take the path from it. */
enum assay_status assay_endpoint_check_bind(const struct assay_address *address, struct assay_err *err) ASSAY_MUST_USE;

/* A ROUTER or DEALER with all limits and times set; zmq_close ends it. */
enum assay_status assay_socket_new(void *zmq, int type, int linger_ms, void **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;

/* Before each bind or connect of a socket: what connections over this address need. INTERNAL: ZeroMQ refuses. */
enum assay_status assay_socket_suit(void *socket, const struct assay_address *address,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* What ZeroMQ tells of a socket's connections, as a stream of events. ZMQ_EVENT_*: their numbers; `value` is ZeroMQ's
 * (a descriptor, an error, a status). */
enum assay_status assay_monitor_open(void *zmq, void *socket, int events, void **ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
bool assay_monitor_next(void *monitor, unsigned *ret_event, int *ret_value); /* false: no more for now */
void assay_monitor_close(void *socket, void *monitor);                       /* before the socket; NULL is fine */

/* Closes a socket that listens at `endpoints` (a list as in address.h), and waits until nobody does any more: ZeroMQ
 * works in the background, and the next server here would find the address in use. What was sent still leaves (an
 * unbind before the close would lose it). The file of an ipc socket stays; the next bind takes it over. */
void assay_socket_close_bound(void *socket, const char *endpoints);
