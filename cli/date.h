/* Dates that a user gives. */
#pragma once

#include <stdint.h>

#include "common/base/status.h"

/* Seconds since 1970 of noon UTC of YYYY-MM-DD, so that no zone makes another day of it; of now for NULL. */
enum assay_status assay_date_read(const char *text, int64_t *ret, struct assay_err *err) ASSAY_MUST_USE;
