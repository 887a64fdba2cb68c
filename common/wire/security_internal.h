/* What loops, servers, clients and sockets need of the keys. The loop's thread, or before it runs. */
#pragma once

#include "common/wire/keyring.h"
#include "common/wire/loop_internal.h"
#include "common/wire/security.h"

/* Keys that are kept out for a while; the one that came first makes room. */
#define ASSAY_BANS_MAX 64

struct assay_ban {
    struct assay_public_key key;
    int64_t until_ms;
};

struct assay_security {
    struct assay_loop *loop;
    bool serves, connects; /* by CURVE */
    struct assay_key_pair server, client;
    struct assay_keyring keyring;
    void (*report)(const char *sentence);
    void *zap; /* ROUTER that ZeroMQ asks */
    struct assay_watch watch;
    uint64_t timer;
    struct assay_ban bans[ASSAY_BANS_MAX];
    size_t bans_next;
    uint64_t refused; /* connections */
};

enum assay_status assay_security_new(struct assay_loop *loop, const struct assay_security_options *options,
                                     struct assay_security **ret, struct assay_err *err) ASSAY_MUST_USE;
/* NULL: the loop has no keys. */
struct assay_security *assay_loop_security(struct assay_loop *loop);
void assay_security_free(struct assay_security *security); /* NULL is fine */

/* Refuses connections of a key until then. Those that are there stay. */
void assay_security_ban(struct assay_security *security, const struct assay_public_key *key, int64_t until_ms);
/* By User-Id: the role of the owner on ipc, of a key now; ASSAY_ROLE_NONE for all else. ret_key may be NULL. */
enum assay_role assay_security_role(const struct assay_security *security, const char *user,
                                    struct assay_public_key *ret_key);

/* Options for the next bind of a server's socket, and before a client's connect. */
enum assay_status assay_security_for_bind(const struct assay_security *security, void *socket,
                                          const struct assay_address *address, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_security_for_connect(const struct assay_security *security, void *socket,
                                             const struct assay_address *address, struct assay_err *err) ASSAY_MUST_USE;
