/* What a peer may do: each key has a role, each method a set of roles. Pure. Any thread. */
#pragma once

#include "common/base/status.h"

/* In the order of their names in a key file. */
enum assay_role {
    ASSAY_ROLE_NONE,   /* no key, or one that is not allowed: nothing at all */
    ASSAY_ROLE_WORKER, /* runs chunks: registers as inference, leases, puts records */
    ASSAY_ROLE_CLIENT, /* submits jobs, reads their results and the cache */
    ASSAY_ROLE_METRIC, /* a metric service: registers as one */
    ASSAY_ROLE_ADMIN,  /* everything; also the coordinator, quantizers and evaluators among themselves */
};

/* "worker"; "none" for ASSAY_ROLE_NONE. */
const char *assay_role_name(enum assay_role role);
/* False: no name of a role that a key may have. */
bool assay_role_parse(const char *name, enum assay_role *ret);

/* Whether `role` may call "assay.v1.Service/Method". A method that has no row is the admin's alone. */
bool assay_role_may_call(enum assay_role role, const char *method);
/* Whether the table has a row for the method: for the test that every method of proto/ has one. */
bool assay_role_knows(const char *method);
