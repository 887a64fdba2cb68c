/* `assay generate` by a worker. */
#pragma once

#include "cli/generate_options.h"
#include "common/base/status.h"

/* Prints what comes: one prompt's text as it streams, of several when all are there; with --json a line for each
 * message. Signals were prepared for (interrupt.h); CANCELLED after one, which cancels all calls. */
enum assay_status assay_generate_remote(const struct assay_generate_options *options,
                                        struct assay_err *err) ASSAY_MUST_USE;
