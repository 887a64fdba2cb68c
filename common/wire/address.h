/* Endpoints as text. One: "ipc://PATH", or "tcp://HOST:PORT" ("tcp://[::1]:PORT" for IPv6, by number alone), where
 * "#KEY" may follow: the server's public key, 64 hexadecimal digits, without which nobody beyond the loopback is talked
 * to. A server that listens at two places is both, with a comma between. Pure. Any thread. */
#pragma once

#include "common/wire/keys.h"

/* Of one endpoint, and of a list. */
#define ASSAY_ADDRESS_BYTES_MAX 256
#define ASSAY_ADDRESSES_MAX 2
#define ASSAY_ADDRESSES_BYTES_MAX 512

struct assay_address {
    char text[ASSAY_ADDRESS_BYTES_MAX]; /* as ZeroMQ takes it: without the key */
    bool is_ipc;
    bool is_loopback; /* tcp on 127.x.y.z, [::1] or [::ffff:127.x.y.z] */
    bool is_ipv6;     /* tcp, and the host is a number in brackets */
    bool is_host;     /* tcp, and the host is a number or a name, not a pattern or an interface */
    bool has_key;
    struct assay_public_key key;
};

/* INVALID_ARGUMENT: not an endpoint, an IPv6 address without brackets, with a zone or that is none, a port beyond
 * 65535, an ipc path that is longer than a socket's may be, something else than a key behind '#', too many. Whether a
 * host may be used is not decided here. */
enum assay_status assay_addresses_parse(const char *text, struct assay_address ret[ASSAY_ADDRESSES_MAX],
                                        size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE;

/* a.b.c.d with numbers below 256, as it stands in `text`. */
bool assay_ipv4_parse(const char *text, size_t bytes, unsigned ret[4]);

/* Which of several a client uses: with a key of its own, the first that has a server's key; without, the first ipc
 * socket, else the first without a key. NULL: there is none that it may use. */
const struct assay_address *assay_address_choose(const struct assay_address *addresses, size_t count, bool has_own_key);

/* `endpoint` with "#KEY" behind. INVALID_ARGUMENT: not one tcp endpoint without a key, or too long. */
enum assay_status assay_address_add_key(const char *endpoint, const struct assay_public_key *key,
                                        char ret[ASSAY_ADDRESS_BYTES_MAX], struct assay_err *err) ASSAY_MUST_USE;

/* What others are told of endpoints that a server is bound to: with `host` for the addresses that mean all of them
 * (0.0.0.0 and [::]). An IPv6 number may stand in brackets or not. INVALID_ARGUMENT: there is such an address, and host
 * is NULL or "", or no name or number of a host. */
enum assay_status assay_address_advertise(const char *endpoints, const char *host, char *ret, size_t ret_bytes,
                                          struct assay_err *err) ASSAY_MUST_USE;
