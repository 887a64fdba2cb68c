/* Schemas as text, in the notation of .proto files. */
#pragma once

#include "common/base/buf.h"

/* A service, a method "SERVICE/METHOD" (with the messages that it takes and returns) or a message, by full name.
 * NOT_FOUND: this build knows no such thing. */
enum assay_status assay_rpc_describe(const char *name, struct assay_buf *out, struct assay_err *err) ASSAY_MUST_USE;
