#include "common/artifact/staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGING_PREFIX ".tmp-"

/* The directory, opened and locked, or -1: it is gone, or its maker lives. The lock counts only while the name leads to
 * it. */
static int lock_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat mine, there;
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &mine) == 0 && stat(path, &there) == 0 &&
        mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
        return fd;
    close(fd);
    return -1;
}

enum assay_status assay_staging_open(const char *artifacts_dir, const struct assay_variant_id *id,
                                     struct assay_staging *ret, struct assay_err *err)
{
    enum { ATTEMPTS_MAX = 8 };
    char name[128], hex[ASSAY_DIGEST_HEX], path[ASSAY_PATH_MAX];
    snprintf(name, sizeof name, STAGING_PREFIX "%s-%ld", assay_digest_hex(&id->digest, hex), (long)getpid());
    enum assay_status status = assay_path_join(path, artifacts_dir, name, err);
    /* What stands there is a dead maker's, or a sweep takes the directory before it is locked: then it is made again.
     */
    for (int attempt = 0; attempt < ATTEMPTS_MAX && status == ASSAY_OK; attempt++) {
        bool fresh = mkdir(path, 0755) == 0;
        if (!fresh && errno != EEXIST)
            return assay_err_errno(err, errno, "cannot make directory %s", path);
        int fd = lock_directory(path);
        if (fd < 0)
            continue;
        if (fresh) {
            memcpy(ret->dir, path, sizeof path);
            ret->lock = fd;
            return ASSAY_OK;
        }
        status = assay_remove_tree(path, err);
        close(fd);
    }
    return status != ASSAY_OK
               ? status
               : assay_err_set(err, ASSAY_ABORTED, "%s is being made by another process of the same id", path);
}

enum assay_status assay_staging_publish(struct assay_staging *staging, const char *artifact_dir, struct assay_err *err)
{
    enum assay_status status = assay_fsync_path(staging->dir, err);
    if (status != ASSAY_OK)
        return status;
    if (rename(staging->dir, artifact_dir) != 0) {
        if (errno == EEXIST || errno == ENOTEMPTY)
            return assay_err_set(err, ASSAY_ALREADY_EXISTS, "%s exists", artifact_dir);
        return assay_err_errno(err, errno, "cannot rename %s to %s", staging->dir, artifact_dir);
    }
    close(staging->lock);
    staging->lock = -1;
    char parent[ASSAY_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", artifact_dir);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent)
        *slash = '\0';
    return assay_fsync_path(parent, err);
}

enum assay_status assay_staging_displace(const struct assay_staging *staging, const char *artifact_dir,
                                         struct assay_err *err)
{
    char aside[ASSAY_PATH_MAX];
    int len = snprintf(aside, sizeof aside, "%s-old", staging->dir);
    if (len < 0 || (size_t)len >= sizeof aside)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes: %.200s...", ASSAY_PATH_MAX - 1,
                             staging->dir);
    enum assay_status status = assay_remove_tree(aside, err);
    if (status != ASSAY_OK)
        return status;
    if (rename(artifact_dir, aside) != 0)
        return errno == ENOENT ? ASSAY_OK : assay_err_errno(err, errno, "cannot rename %s to %s", artifact_dir, aside);
    return assay_remove_tree(aside, err);
}

void assay_staging_abandon(struct assay_staging *staging)
{
    if (staging->lock < 0)
        return;
    enum assay_status ignored =
        assay_remove_tree(staging->dir, NULL); /* what is left over is swept at the next start */
    (void)ignored;
    close(staging->lock);
    staging->lock = -1;
}

enum assay_status assay_staging_sweep(const char *artifacts_dir, size_t *ret_removed, struct assay_err *err)
{
    DIR *stream = opendir(artifacts_dir);
    if (!stream)
        return assay_err_errno(err, errno, "cannot read directory %s", artifacts_dir);
    size_t removed = 0;
    enum assay_status status = ASSAY_OK;
    for (struct dirent *entry; status == ASSAY_OK && (entry = readdir(stream));) {
        char path[ASSAY_PATH_MAX];
        if (strncmp(entry->d_name, STAGING_PREFIX, strlen(STAGING_PREFIX)) != 0)
            continue;
        status = assay_path_join(path, artifacts_dir, entry->d_name, err);
        int fd = status == ASSAY_OK ? lock_directory(path) : -1;
        if (fd < 0)
            continue;
        status = assay_remove_tree(path, err);
        close(fd);
        removed++;
    }
    closedir(stream);
    if (status == ASSAY_OK)
        *ret_removed = removed;
    return status;
}
