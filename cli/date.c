#include "cli/date.h"

#include <time.h>

enum assay_status assay_date_read(const char *text, int64_t *ret, struct assay_err *err)
{
    if (!text) {
        *ret = (int64_t)time(NULL);
        return ASSAY_OK;
    }
    struct tm date = {.tm_hour = 12};
    const char *end = strptime(text, "%Y-%m-%d", &date);
    if (!end || *end)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--date is \"%s\", wanted YYYY-MM-DD", text);
    *ret = (int64_t)timegm(&date);
    return ASSAY_OK;
}
