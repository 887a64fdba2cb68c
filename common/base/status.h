/* Status codes: gRPC's numbers and meanings, used inside a process and on the wire alike.
 * Source: gRPC, doc/statuscodes.md. */
#pragma once

#include <stdbool.h>

#include "common/base/macros.h"

#define ASSAY_STATUS_MAP(X)                                                                                            \
    X(OK, 0, "ok")                                                                                                     \
    X(CANCELLED, 1, "cancelled")                                                                                       \
    X(UNKNOWN, 2, "unknown error")                                                                                     \
    X(INVALID_ARGUMENT, 3, "invalid argument")                                                                         \
    X(DEADLINE_EXCEEDED, 4, "deadline exceeded")                                                                       \
    X(NOT_FOUND, 5, "not found")                                                                                       \
    X(ALREADY_EXISTS, 6, "already exists")                                                                             \
    X(PERMISSION_DENIED, 7, "permission denied")                                                                       \
    X(RESOURCE_EXHAUSTED, 8, "resource exhausted")                                                                     \
    X(FAILED_PRECONDITION, 9, "failed precondition")                                                                   \
    X(ABORTED, 10, "aborted")                                                                                          \
    X(OUT_OF_RANGE, 11, "out of range")                                                                                \
    X(UNIMPLEMENTED, 12, "unimplemented")                                                                              \
    X(INTERNAL, 13, "internal error")                                                                                  \
    X(UNAVAILABLE, 14, "unavailable")                                                                                  \
    X(DATA_LOSS, 15, "data loss")                                                                                      \
    X(UNAUTHENTICATED, 16, "unauthenticated")

enum assay_status {
#define ASSAY_STATUS_ENUM(name, number, text) ASSAY_##name = number,
    ASSAY_STATUS_MAP(ASSAY_STATUS_ENUM)
#undef ASSAY_STATUS_ENUM
};

/* "NOT_FOUND"; "UNKNOWN" for a number outside the map. Static. */
const char *assay_status_name(enum assay_status status);

/* The sentence for a human: what, where, found, wanted. Written once, where the error is found. */
struct assay_err {
    enum assay_status status;
    char text[512];
};

#define ASSAY_ERR_INIT                                                                                                 \
    {                                                                                                                  \
        ASSAY_OK,                                                                                                      \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }

/* Sets *err (which may be NULL) and returns `status`, so that `return assay_err_set(err, ...)` reads well. */
enum assay_status assay_err_set(struct assay_err *err, enum assay_status status, const char *format, ...)
    ASSAY_PRINTF(3, 4);

/* Puts "prefix: " before the sentence that is there; keeps the status. err may be NULL. */
void assay_err_prefix(struct assay_err *err, const char *format, ...) ASSAY_PRINTF(2, 3);

/* assay_err_set with ": " and strerror(errnum) behind; the status follows from errnum. */
enum assay_status assay_err_errno(struct assay_err *err, int errnum, const char *format, ...) ASSAY_PRINTF(3, 4);
