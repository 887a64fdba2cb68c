/* A growing byte buffer, always NUL-terminated. Not thread-safe. */
#pragma once

#include <stdarg.h>

#include "common/base/status.h"

struct assay_buf {
    char *data; /* NULL until the first append */
    size_t len;
    size_t capacity;
    bool failed; /* an append ran out of memory; later appends do nothing */
};

#define ASSAY_BUF_INIT                                                                                                 \
    {                                                                                                                  \
        0                                                                                                              \
    }

void assay_buf_release(struct assay_buf *buf);
void assay_buf_append(struct assay_buf *buf, const void *bytes, size_t len);
void assay_buf_str(struct assay_buf *buf, const char *text);
void assay_buf_printf(struct assay_buf *buf, const char *format, ...) ASSAY_PRINTF(2, 3);

/* The contents as a string, "" when empty. Valid until the next append. */
const char *assay_buf_cstr(const struct assay_buf *buf);

/* RESOURCE_EXHAUSTED if any append failed. */
enum assay_status assay_buf_check(const struct assay_buf *buf, struct assay_err *err) ASSAY_MUST_USE;
