#include "cli/directory.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cuts path down to the part that is there; "." or "/" when nothing of it is. */
static void keep_existing(char path[ASSAY_PATH_MAX])
{
    struct stat st;
    while (stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        char *slash = strrchr(path, '/');
        if (!slash) {
            strcpy(path, ".");
            return;
        }
        slash[slash == path] = '\0';
    }
}

enum assay_status assay_directory_make(const char *path, unsigned mode, struct assay_err *err)
{
    char existing[ASSAY_PATH_MAX];
    struct stat st;
    if (strlen(path) >= sizeof existing)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %zu bytes: %.200s...",
                             sizeof existing - 1, path);
    strcpy(existing, path);
    keep_existing(existing);
    if (stat(existing, &st) != 0)
        return assay_err_errno(err, errno, "directory %s", path);
    if (!S_ISDIR(st.st_mode))
        return assay_err_set(err, ASSAY_ALREADY_EXISTS, "directory %s: %s is there and is no directory", path,
                             existing);
    if (access(existing, W_OK | X_OK) != 0)
        return assay_err_errno(err, errno, "directory %s: cannot write to %s", path, existing);
    return assay_mkdirs(path, mode, err);
}
