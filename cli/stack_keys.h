/* Keys of a stack that other hosts reach. */
#pragma once

#include "common/wire/address.h"

struct assay_stack_keys {
    char endpoint[ASSAY_ADDRESS_BYTES_MAX]; /* of the coordinator for other hosts; "" = none, and no keys */
    char server_key[ASSAY_PATH_MAX], allowed_dir[ASSAY_PATH_MAX];
};

/* Makes DATA/keys/server.key and server.pub unless they are there, and DATA/keys/allowed. public_endpoint NULL or "":
 * nothing. INVALID_ARGUMENT: it is not tcp://ADDRESS:PORT. */
enum assay_status assay_stack_keys_make(const char *data_dir, const char *public_endpoint, struct assay_stack_keys *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* The same host with a free port: for quantizer and evaluators. */
void assay_stack_keys_port_of_any(const struct assay_stack_keys *keys, char ret[ASSAY_ADDRESS_BYTES_MAX]);
