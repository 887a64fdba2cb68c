/* Commands that ask a running stack's coordinator one thing and show the answer. */
#pragma once

#include "cli/remote.h"

struct assay_listing {
    const char *name, *usage, *summary;
    enum assay_coordinator_method method;
    const ProtobufCMessage *request;
    enum assay_status (*print)(const ProtobufCMessage *reply, struct assay_err *err); /* as a table, on stdout */
};

/* The whole command, with --data, --coordinator, the keys and --json (the reply by the JSON mapping of proto3); its
 * exit code. */
int assay_listing_run(const struct assay_listing *listing, int argc, char **argv);
