#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/store/internal.h"

#define LOCK_NAME "owner.lock"
#define STAMP_NAME "layout"
#define STAMP_TEXT "assay store 1\n"
#define MARKER_NAME "unsynced"
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

enum assay_status store_lock(const char *dir, int *ret_fd, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], text[32] = "";
    enum assay_status status = assay_path_join(path, dir, LOCK_NAME, err);
    if (status != ASSAY_OK)
        return status;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    /* flock goes away with its process, so a file that a killed process left behind locks nobody out. */
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int why = errno;
        ssize_t got = pread(fd, text, sizeof text - 1, 0);
        close(fd);
        if (why != EWOULDBLOCK)
            return assay_err_errno(err, why, "cannot lock %s", path);
        long pid = got > 0 ? strtol(text, NULL, 10) : 0;
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "the store %s is in use by process %ld", dir, pid);
    }
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)len, 0) != len) {
        int why = errno;
        close(fd);
        return assay_err_errno(err, why, "cannot write %s", path);
    }
    *ret_fd = fd;
    return ASSAY_OK;
}

/* The kernel's id of this boot; "" where there is none. */
static void read_boot_id(char id[64])
{
    id[0] = '\0';
    int fd = open(BOOT_ID_PATH, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, id, 63);
    close(fd);
    id[got > 0 ? got : 0] = '\0';
    id[strcspn(id, "\n")] = '\0';
}

static enum assay_status trust_marker(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], boot[64];
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t bytes;
    enum assay_status status = assay_path_join(path, dir, MARKER_NAME, err);
    if (status != ASSAY_OK || access(path, F_OK) != 0)
        return status;
    status = assay_file_read(path, 4096, &text, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    read_boot_id(boot);
    /* Within one boot the kernel still has every page that a killed process had written. */
    if (boot[0] && strcmp(text, boot) == 0)
        return ASSAY_OK;
    return assay_err_set(err, ASSAY_DATA_LOSS,
                         "the store %s cannot be trusted: the machine went down while its last commits were on their "
                         "way to the disk",
                         dir);
}

enum assay_status store_trust(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t bytes;
    struct stat info;
    enum assay_status status = trust_marker(dir, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, STAMP_NAME, err);
    if (status != ASSAY_OK || access(path, F_OK) != 0)
        return status;
    status = assay_file_read(path, 4096, &text, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    if (strcmp(text, STAMP_TEXT) != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s names a layout that this version does not know: '%.40s'",
                             path, text);
    status = assay_path_join(path, dir, "data.mdb", err);
    if (status != ASSAY_OK)
        return status;
    if (stat(path, &info) != 0 || info.st_size == 0)
        return assay_err_set(err, ASSAY_DATA_LOSS, "the store %s is damaged: data.mdb is missing or empty", dir);
    return ASSAY_OK;
}

enum assay_status store_stamp(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, STAMP_NAME, err);
    if (status != ASSAY_OK || access(path, F_OK) == 0)
        return status;
    return assay_file_write(path, STAMP_TEXT, strlen(STAMP_TEXT), err);
}

enum assay_status store_mark_unsynced(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX], boot[64];
    enum assay_status status = assay_path_join(path, dir, MARKER_NAME, err);
    if (status != ASSAY_OK)
        return status;
    read_boot_id(boot);
    return assay_file_write(path, boot, strlen(boot), err);
}

enum assay_status store_clear_unsynced(const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, MARKER_NAME, err);
    if (status == ASSAY_OK && unlink(path) != 0 && errno != ENOENT)
        return assay_err_errno(err, errno, "cannot remove %s", path);
    return status;
}
