#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum assay_status assay_path_join(char path[ASSAY_PATH_MAX], const char *a, const char *b, struct assay_err *err)
{
    int len = snprintf(path, ASSAY_PATH_MAX, "%s/%s", a, b);
    if (len < 0 || len >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes: %.100s/%.100s...",
                             ASSAY_PATH_MAX - 1, a, b);
    return ASSAY_OK;
}

bool assay_path_is_name(const char *name)
{
    return name[0] != '\0' && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

enum assay_status assay_mkdirs(const char *path, unsigned mode, struct assay_err *err)
{
    char partial[ASSAY_PATH_MAX];
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof partial)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a directory name has 1 to %d bytes, found %zu",
                             ASSAY_PATH_MAX - 1, len);
    memcpy(partial, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (partial[i] != '/' && partial[i] != '\0')
            continue;
        char saved = partial[i];
        partial[i] = '\0';
        struct stat st;
        int failed = mkdir(partial, mode) == 0 ? 0 : errno;
        if (failed && (stat(partial, &st) != 0 || !S_ISDIR(st.st_mode)))
            return assay_err_errno(err, failed, "cannot make directory %s", partial);
        partial[i] = saved;
    }
    return ASSAY_OK;
}

static enum assay_status read_all(int fd, const char *path, size_t bytes_max, char **ret, size_t *ret_bytes,
                                  struct assay_err *err)
{
    size_t capacity = 1 << 16, len = 0;
    char *data = malloc(capacity + 1);
    while (data) {
        ssize_t got = read(fd, data + len, capacity - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(data);
            return assay_err_errno(err, errno, "cannot read %s", path);
        }
        if (got == 0) {
            data[len] = '\0';
            *ret = data;
            *ret_bytes = len;
            return ASSAY_OK;
        }
        len += (size_t)got;
        if (len > bytes_max) {
            free(data);
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s has more than the %zu bytes allowed", path,
                                 bytes_max);
        }
        if (len == capacity) {
            char *grown = realloc(data, capacity * 2 + 1);
            if (!grown)
                free(data);
            data = grown;
            capacity *= 2;
        }
    }
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while reading %s", path);
}

enum assay_status assay_file_read(const char *path, size_t bytes_max, char **ret, size_t *ret_bytes,
                                  struct assay_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    enum assay_status status = read_all(fd, path, bytes_max, ret, ret_bytes, err);
    close(fd);
    return status;
}

static enum assay_status write_all(int fd, const char *path, const char *bytes, size_t len, struct assay_err *err)
{
    while (len) {
        ssize_t put = write(fd, bytes, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return assay_err_errno(err, errno, "cannot write %s", path);
        bytes += put;
        len -= (size_t)put;
    }
    if (fsync(fd) != 0)
        return assay_err_errno(err, errno, "cannot sync %s", path);
    return ASSAY_OK;
}

enum assay_status assay_file_write(const char *path, const void *bytes, size_t len, struct assay_err *err)
{
    char temporary[ASSAY_PATH_MAX];
    int used = snprintf(temporary, sizeof temporary, "%s.tmp-XXXXXX", path);
    if (used < 0 || (size_t)used >= sizeof temporary)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes: %.200s...", ASSAY_PATH_MAX - 1,
                             path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot write %s", path);
    enum assay_status status = write_all(fd, path, bytes, len, err);
    fchmod(fd, 0644);
    close(fd);
    if (status == ASSAY_OK && rename(temporary, path) != 0)
        status = assay_err_errno(err, errno, "cannot write %s", path);
    if (status != ASSAY_OK)
        unlink(temporary);
    return status;
}

enum assay_status assay_fsync_path(const char *path, struct assay_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    enum assay_status status = ASSAY_OK;
    if (fsync(fd) != 0)
        status = assay_err_errno(err, errno, "cannot sync %s", path);
    close(fd);
    return status;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

enum assay_status assay_remove_tree(const char *path, struct assay_err *err)
{
    enum { OPEN_DIRECTORIES_MAX = 32 };
    if (nftw(path, remove_one, OPEN_DIRECTORIES_MAX, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return assay_err_errno(err, errno, "cannot remove %s", path);
    return ASSAY_OK;
}

static struct assay_file_identity identity_of(const struct stat *st)
{
    return (struct assay_file_identity){
        .device = (uint64_t)st->st_dev,
        .inode = (uint64_t)st->st_ino,
        .bytes = (uint64_t)st->st_size,
        .modified_s = (uint64_t)st->st_mtim.tv_sec,
        .modified_ns = (uint64_t)st->st_mtim.tv_nsec,
        .changed_s = (uint64_t)st->st_ctim.tv_sec,
        .changed_ns = (uint64_t)st->st_ctim.tv_nsec,
    };
}

enum assay_status assay_file_identify(const char *path, struct assay_file_identity *ret, struct assay_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return assay_err_errno(err, errno, "cannot read %s", path);
    *ret = identity_of(&st);
    return ASSAY_OK;
}

bool assay_file_is_settled(const struct assay_file_identity *file)
{
    enum { SETTLED_S = 2 };
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t latest_s = ASSAY_MAX(file->changed_s, file->modified_s);
    return latest_s < (uint64_t)now.tv_sec && (uint64_t)now.tv_sec - latest_s > SETTLED_S;
}

enum assay_status assay_map_file(const char *path, struct assay_mapping *ret, struct assay_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    struct stat st;
    enum assay_status status = ASSAY_OK;
    struct assay_mapping mapping = {0};
    if (fstat(fd, &st) != 0)
        status = assay_err_errno(err, errno, "cannot stat %s", path);
    else if (!S_ISREG(st.st_mode))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a regular file", path);
    else if (st.st_size > 0) {
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
            status = assay_err_errno(err, errno, "cannot map %s", path);
        else
            mapping = (struct assay_mapping){data, (size_t)st.st_size, identity_of(&st)};
    }
    close(fd);
    if (status == ASSAY_OK)
        *ret = mapping;
    return status;
}

void assay_map_forget(const struct assay_mapping *mapping, const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)mapping->data, from = (uintptr_t)data;
    if (!mapping->data || from < first || from - first > mapping->bytes || bytes > mapping->bytes - (from - first))
        return;
    uintptr_t begin = (from + page - 1) / page * page, end = (from + bytes) / page * page;
    /* Pages of a file that cannot be dropped stay: nothing depends on it. */
    if (end > begin)
        (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void assay_unmap(struct assay_mapping *mapping)
{
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->bytes);
    *mapping = (struct assay_mapping){0};
}

enum assay_status assay_program_dir(char path[ASSAY_PATH_MAX], struct assay_err *err)
{
    ssize_t len = readlink("/proc/self/exe", path, ASSAY_PATH_MAX - 1);
    if (len < 0)
        return assay_err_errno(err, errno, "cannot read /proc/self/exe");
    path[len] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    return ASSAY_OK;
}
