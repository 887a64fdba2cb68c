#include "common/base/exit_code.h"

int assay_exit_code(enum assay_status status)
{
    switch (status) {
    case ASSAY_OK:
        return ASSAY_EXIT_PASS;
    case ASSAY_INVALID_ARGUMENT:
    case ASSAY_NOT_FOUND:
    case ASSAY_OUT_OF_RANGE:
    case ASSAY_UNIMPLEMENTED:
    case ASSAY_DATA_LOSS:
    case ASSAY_FAILED_PRECONDITION:
    case ASSAY_ALREADY_EXISTS:
        return ASSAY_EXIT_BAD_INPUT;
    case ASSAY_UNAVAILABLE:
    case ASSAY_ABORTED:
        return ASSAY_EXIT_UNAVAILABLE;
    case ASSAY_RESOURCE_EXHAUSTED:
        return ASSAY_EXIT_RESOURCES;
    case ASSAY_DEADLINE_EXCEEDED:
        return ASSAY_EXIT_DEADLINE;
    case ASSAY_PERMISSION_DENIED:
    case ASSAY_UNAUTHENTICATED:
        return ASSAY_EXIT_PERMISSION;
    case ASSAY_CANCELLED:
        return ASSAY_EXIT_CANCELLED;
    case ASSAY_UNKNOWN:
    case ASSAY_INTERNAL:
        return ASSAY_EXIT_INTERNAL;
    }
    return ASSAY_EXIT_INTERNAL;
}
