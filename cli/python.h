/* The user's own Python, for what comes with it: pip with its settings, and zipfile. */
#pragma once

#include "common/base/status.h"

/* Runs python3 (of PATH) with arguments up to a NULL: no shell, stdin from /dev/null, its output to stderr, nothing of
 * it for quiet. UNAVAILABLE when it ends with another code than 0, FAILED_PRECONDITION when there is no python3,
 * CANCELLED after Ctrl-C (assay_interrupt_prepare comes first), when it has been ended. */
enum assay_status assay_python_run(const char *const *arguments, bool quiet, struct assay_err *err) ASSAY_MUST_USE;
