#include "common/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void assay_buf_release(struct assay_buf *buf)
{
    free(buf->data);
    *buf = (struct assay_buf)ASSAY_BUF_INIT;
}

static bool reserve(struct assay_buf *buf, size_t extra)
{
    if (buf->failed || extra > SIZE_MAX / 2 - buf->len) {
        buf->failed = true;
        return false;
    }
    size_t wanted = buf->len + extra + 1;
    if (wanted <= buf->capacity)
        return true;
    size_t capacity = ASSAY_MAX(wanted, buf->capacity * 2);
    char *data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void assay_buf_append(struct assay_buf *buf, const void *bytes, size_t len)
{
    if (!reserve(buf, len))
        return;
    if (len)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void assay_buf_str(struct assay_buf *buf, const char *text)
{
    assay_buf_append(buf, text, strlen(text));
}

void assay_buf_printf(struct assay_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len >= 0 && reserve(buf, (size_t)len)) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    va_end(again);
}

const char *assay_buf_cstr(const struct assay_buf *buf)
{
    return buf->data ? buf->data : "";
}

enum assay_status assay_buf_check(const struct assay_buf *buf, struct assay_err *err)
{
    if (buf->failed)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while building a text of %zu bytes",
                             buf->len);
    return ASSAY_OK;
}
