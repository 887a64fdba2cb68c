#include "cli/output_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(ASSAY_PATH_MAX >= PATH_MAX, "realpath writes at most PATH_MAX bytes");

enum assay_status assay_output_dir_of(const char *text, struct assay_output_dir *ret, struct assay_err *err)
{
    char copy[ASSAY_PATH_MAX];
    size_t len = strlen(text);
    while (len > 1 && text[len - 1] == '/')
        len--;
    if (len >= sizeof copy)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes, found %zu", ASSAY_PATH_MAX - 1,
                             len);
    memcpy(copy, text, len);
    copy[len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    const char *parent = !slash ? "." : slash == copy ? "/" : copy;
    if (!assay_path_is_name(name))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "found '%.200s', wanted the name of a directory to make",
                             text);
    char kept[ASSAY_PATH_MAX];
    memcpy(kept, name, strlen(name) + 1);
    if (slash)
        *slash = '\0';
    if (slash == copy)
        parent = "/";
    if (!realpath(parent, ret->parent))
        return assay_err_errno(err, errno, "cannot make %.200s in %.200s", kept, parent);
    return assay_path_join(ret->path, ret->parent, kept, err);
}
