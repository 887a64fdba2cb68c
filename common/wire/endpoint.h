/* Where a server listens: ipc sockets in a private directory, TCP on the loopback. Everything else needs CURVE keys. */
#pragma once

#include "common/base/status.h"

/* INVALID_ARGUMENT: not an endpoint, or an ipc path that is too long. PERMISSION_DENIED: TCP beyond the loopback. */
enum assay_status assay_endpoint_check(const char *endpoint, struct assay_err *err) ASSAY_MUST_USE;
/* What must hold before a bind. For ipc: the directory is there and ours alone (NOT_FOUND, PERMISSION_DENIED), and no
 * live process listens (UNAVAILABLE): ZeroMQ would silently take the path from it. */
enum assay_status assay_endpoint_check_bind(const char *endpoint, struct assay_err *err) ASSAY_MUST_USE;

/* A ROUTER or DEALER with all limits and times set; zmq_close ends it. */
enum assay_status assay_socket_new(void *zmq, int type, int linger_ms, void **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* Closes a socket that listens, and waits until nobody does any more: ZeroMQ works in the background, and the next
 * server here would find the address in use. What was sent still leaves (an unbind before the close would lose it). The
 * file of an ipc socket stays; the next bind takes it over. */
void assay_socket_close_bound(void *socket, const char *endpoint);
