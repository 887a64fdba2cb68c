/* Raw bytes that travel behind a message, without a copy where ZeroMQ allows. */
#pragma once

#include "common/base/status.h"

/* Outgoing. `release(data, hint)` is called once, on any thread, when the bytes are no longer needed, also when the
 * send fails. NULL: the bytes are copied before the function that takes them returns. */
struct assay_attachment {
    const void *data;
    size_t bytes;
    void (*release)(void *data, void *hint);
    void *hint;
};

/* free() as a release function. */
void assay_attachment_free(void *data, void *hint);

/* Incoming: a view, valid as long as the call or message it came with. data is aligned to 8 bytes. */
struct assay_bytes {
    const void *data;
    size_t bytes;
};
