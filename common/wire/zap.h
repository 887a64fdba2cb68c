/* ZeroMQ asks a ZAP handler about every connection to a socket with a domain (RFC 27/ZAP 1.0). This is the answer:
 * by key on tcp, everybody on ipc, whose directory is its owner's alone. Pure. */
#pragma once

#include "common/wire/attachment.h"
#include "common/wire/keyring.h"

/* Domains of our sockets. */
#define ASSAY_ZAP_DOMAIN_CURVE "curve"
#define ASSAY_ZAP_DOMAIN_IPC "ipc"
/* User-Id of the owner's processes on ipc; by key it is the key's 64 digits. */
#define ASSAY_ZAP_USER_LOCAL "local"

/* Frames of a request behind the routing id: empty, version, request id, domain, address, identity, mechanism,
 * credentials. */
#define ASSAY_ZAP_FRAMES_MAX 16
#define ASSAY_ZAP_ID_BYTES_MAX 255

struct assay_zap_answer {
    struct assay_bytes request_id; /* within the request; NULL data: it is no request, and gets no answer */
    const char *code, *text;       /* "200", "300", "400"; static */
    char user[ASSAY_KEY_DIGITS + 1];
    bool has_key; /* the peer has shown this one, allowed or not */
    struct assay_public_key key;
};

/* `keyring` NULL: no key is allowed. */
void assay_zap_decide(const struct assay_keyring *keyring, const struct assay_bytes *frames, size_t count,
                      struct assay_zap_answer *ret);
