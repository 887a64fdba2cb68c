/* --health: whether a service serves, asked as its clients ask: over CURVE where it has keys. */
#pragma once

#include "common/wire/security.h"

struct assay_probe {
    const char *program; /* for what is said on stderr */
    /* Whom to ask: the first of these that is given. `public_endpoint` counts with a server key only. */
    const char *endpoint, *public_endpoint, *listen;
    const char *server_key; /* secret file of the service that is asked: its public key belongs to tcp endpoints */
    const char *key;        /* secret file to connect with; not given: server_key */
};

/* The exit code: 0 when the server answers within 3 s that it serves, else 1 with the reason on stderr. Addresses that
 * mean all of a host are asked on its loopback. A usage error when nobody said whom to ask. */
int assay_probe(const struct assay_probe *probe);
