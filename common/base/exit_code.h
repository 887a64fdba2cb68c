/* Exit codes of every program. */
#pragma once

#include "common/base/status.h"

enum assay_exit {
    ASSAY_EXIT_PASS = 0,
    ASSAY_EXIT_FAIL = 1,         /* a threshold did not hold */
    ASSAY_EXIT_INCONCLUSIVE = 2, /* the data do not decide */
    ASSAY_EXIT_USAGE = 3,        /* unknown option, bad value of a setting */
    ASSAY_EXIT_BAD_INPUT = 4,    /* model, corpus, file: missing, broken, or of a kind we do not have */
    ASSAY_EXIT_INTERNAL = 5,     /* a fault of ours */
    ASSAY_EXIT_UNAVAILABLE = 6,  /* a service, port or lock is not to be had */
    ASSAY_EXIT_RESOURCES = 7,    /* memory, disk, quota */
    ASSAY_EXIT_DEADLINE = 8,
    ASSAY_EXIT_PERMISSION = 9,
    ASSAY_EXIT_CANCELLED = 10,
    ASSAY_EXIT_PARTIAL = 11, /* cancelled; figures of what was done until then were printed */
};

/* The code of a program that ends because of `status` (usage errors are answered where arguments are parsed):
 * INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE, UNIMPLEMENTED, DATA_LOSS, FAILED_PRECONDITION, ALREADY_EXISTS = bad input.
 */
int assay_exit_code(enum assay_status status);
