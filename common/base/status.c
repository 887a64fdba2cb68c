#include "common/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *assay_status_name(enum assay_status status)
{
    switch (status) {
#define ASSAY_STATUS_NAME(name, number, text)                                                                          \
    case ASSAY_##name:                                                                                                 \
        return #name;
        ASSAY_STATUS_MAP(ASSAY_STATUS_NAME)
#undef ASSAY_STATUS_NAME
    }
    return "UNKNOWN";
}

enum assay_status assay_err_set(struct assay_err *err, enum assay_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        err->status = status;
    }
    return status;
}

void assay_err_prefix(struct assay_err *err, const char *format, ...)
{
    if (!err)
        return;
    char prefix[256], whole[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    size_t used = (size_t)snprintf(whole, sizeof whole, "%s: ", prefix);
    strncpy(whole + used, err->text, sizeof whole - used - 1);
    whole[sizeof whole - 1] = '\0';
    memcpy(err->text, whole, sizeof whole);
}

static enum assay_status status_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return ASSAY_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ASSAY_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return ASSAY_RESOURCE_EXHAUSTED;
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return ASSAY_INVALID_ARGUMENT;
    case EEXIST:
        return ASSAY_ALREADY_EXISTS;
    case EADDRINUSE:
        return ASSAY_UNAVAILABLE;
    default:
        return ASSAY_INTERNAL;
    }
}

enum assay_status assay_err_errno(struct assay_err *err, int errnum, const char *format, ...)
{
    char what[384];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return assay_err_set(err, status_of_errno(errnum), "%s: %s", what, strerror(errnum));
}

_Noreturn void assay_bug(const char *file, int line, const char *text)
{
    fprintf(stderr, "%s:%d: internal error: %s\n", file, line, text);
    abort();
}

void assay_free_ptr(void *pointer_to_pointer)
{
    void **p = pointer_to_pointer;
    free(*p);
    *p = NULL;
}
