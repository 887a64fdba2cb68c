#include "common/base/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/limits.h"

static enum assay_status make_absolute(const char *dir, char path[ASSAY_PATH_MAX], struct assay_err *err)
{
    char cwd[ASSAY_PATH_MAX];
    if (dir[0] != '/') {
        if (!getcwd(cwd, sizeof cwd))
            return assay_err_errno(err, errno, "cannot read the current directory");
        return assay_path_join(path, cwd, dir, err);
    }
    if (strlen(dir) >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes: %.200s...", ASSAY_PATH_MAX - 1,
                             dir);
    strcpy(path, dir);
    return ASSAY_OK;
}

enum assay_status assay_data_dir(const char *given, char path[ASSAY_PATH_MAX], struct assay_err *err)
{
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (given && given[0])
        return make_absolute(given, path, err);
    if (xdg && xdg[0] == '/')
        return assay_path_join(path, xdg, "assay", err);
    if (home && home[0] == '/')
        return assay_path_join(path, home, ".local/share/assay", err);
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "no data directory: give --data DIR or set HOME");
}

enum assay_status assay_ipc_endpoint(const char *data_dir, const char *name, char endpoint[ASSAY_PATH_MAX],
                                     struct assay_err *err)
{
    size_t len = strlen(data_dir) + 1 + strlen(name);
    if (len > ASSAY_IPC_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "a Unix socket's path has at most %d bytes, found %zu: %s/%s; give a shorter --data",
                             ASSAY_IPC_PATH_MAX, len, data_dir, name);
    snprintf(endpoint, ASSAY_PATH_MAX, "ipc://%s/%s", data_dir, name);
    return ASSAY_OK;
}
