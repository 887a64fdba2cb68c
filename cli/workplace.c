#include "cli/workplace.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/directory.h"

/* The directory that holds `path`. */
static enum assay_status parent_of(const char *path, char parent[ASSAY_PATH_MAX], struct assay_err *err)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes: %.200s...", ASSAY_PATH_MAX - 1,
                             path);
    memcpy(parent, len ? path : ".", len ? len : 1);
    parent[len ? len : 1] = '\0';
    return ASSAY_OK;
}

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    size_t entries = 0;
    while (dir && entries < 3 && readdir(dir))
        entries++;
    if (dir)
        closedir(dir);
    return dir && entries == 2; /* "." and ".." */
}

/* rename replaces an empty directory, and nothing else may stand there. */
static enum assay_status check_target(const char *target, struct assay_err *err)
{
    struct stat st;
    if (*target == '\0')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the directory's name is empty");
    if (lstat(target, &st) != 0)
        return errno == ENOENT ? ASSAY_OK : assay_err_errno(err, errno, "directory %s", target);
    if (!S_ISDIR(st.st_mode) || !is_empty(target))
        return assay_err_set(err, ASSAY_ALREADY_EXISTS, "%s is there already: name a directory that is not", target);
    return ASSAY_OK;
}

enum assay_status assay_workplace_open(const char *target, struct assay_workplace *ret, struct assay_err *err)
{
    struct assay_workplace place = {0};
    char parent[ASSAY_PATH_MAX];
    enum assay_status status = parent_of(target, parent, err);
    if (status == ASSAY_OK)
        status = check_target(target, err);
    if (status == ASSAY_OK)
        status = assay_directory_make(parent, 0755, err);
    if (status == ASSAY_OK)
        status = assay_path_join(place.work, parent, ".assay-part-XXXXXX", err);
    if (status != ASSAY_OK)
        return status;
    strcpy(place.target, target);
    if (!mkdtemp(place.work))
        return assay_err_errno(err, errno, "cannot make a directory in %s", parent);
    status = assay_path_join(place.model, place.work, "model", err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(place.model, 0755, err);
    if (status == ASSAY_OK)
        *ret = place;
    else
        assay_workplace_close(&place);
    return status;
}

enum assay_status assay_workplace_commit(struct assay_workplace *place, struct assay_err *err)
{
    char parent[ASSAY_PATH_MAX];
    enum assay_status status = parent_of(place->target, parent, err);
    if (status == ASSAY_OK)
        status = assay_fsync_path(place->model, err);
    if (status == ASSAY_OK && rename(place->model, place->target) != 0)
        status = assay_err_errno(err, errno, "cannot rename %s to %s", place->model, place->target);
    return status == ASSAY_OK ? assay_fsync_path(parent, err) : status;
}

void assay_workplace_close(struct assay_workplace *place)
{
    if (place->work[0] && assay_remove_tree(place->work, NULL) == ASSAY_OK)
        place->work[0] = '\0';
}
