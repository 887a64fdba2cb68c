/* Keys of a process: with which it serves, whom it lets in, with which it connects. They belong to a loop, and count
 * for all servers and clients that are made on it afterwards.
 *
 * A loop without keys serves and connects on ipc and on the loopback alone, and everybody who reaches it is its owner.
 * With a server key, tcp is CURVE, the loopback too; ipc stays as it is, for the owner of its directory. */
#pragma once

#include "common/wire/address.h"
#include "common/wire/loop.h"

struct assay_security_options {
    const char *server_key; /* secret file; NULL or "": nothing is served by CURVE */
    const char *keys;       /* directory of allowed keys; wanted with server_key, and only then */
    const char *key;        /* secret file to connect with; NULL or "": none */
    /* Told of changes of the allowed keys and of broken files, on the loop's thread; may be NULL. Never a secret. */
    void (*report)(const char *sentence);
};

/* Before servers and clients are made, and before the loop runs. Errors: of the files; INVALID_ARGUMENT: one of
 * server_key and keys without the other. */
enum assay_status assay_loop_secure(struct assay_loop *loop, const struct assay_security_options *options,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* `endpoint` as it goes to assay_client_new: with the key of the file behind it. `file` NULL or "", an ipc endpoint and
 * one that has a key are left as they are.
 * ret has room for ASSAY_PATH_MAX bytes. */
enum assay_status assay_endpoint_with_key(const char *endpoint, const char *file, char ret[ASSAY_PATH_MAX],
                                          struct assay_err *err) ASSAY_MUST_USE;
