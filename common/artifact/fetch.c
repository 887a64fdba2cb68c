#include "common/artifact/fetch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_PREFIX ".lock-"
#define STAGING_PREFIX ".fetch-"
#define LOCK_AGAIN_MS 100

/* A copy in the making. */
struct copy {
    struct assay_fetch *fetch;
    struct assay_pieces pieces;
    char dir[ASSAY_PATH_MAX]; /* of the staging */
    int *fds;                 /* by file; -1 = not open */
    uint8_t **there;          /* by file and piece */
    pthread_mutex_t lock;     /* guards what follows, and the counts of the fetch */
    size_t next_file;
    uint64_t next_piece;
    enum assay_status status; /* of the first failure */
    struct assay_err err;
};

static bool is_cancelled(const struct assay_fetch *fetch)
{
    return fetch->cancelled && fetch->cancelled(fetch->arg);
}

static enum assay_status cancelled(const struct assay_fetch *fetch, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_CANCELLED, "fetching %s was cancelled", fetch->name);
}

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while fetching an artifact");
}

/* A full disk is told with what would be needed. */
static enum assay_status write_failed(const struct copy *copy, int errnum, const char *name, struct assay_err *err)
{
    if (errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "no room for %s in %s: the artifact has %llu bytes (%s); make room and try again", name,
                             copy->dir, (unsigned long long)copy->pieces.bytes, strerror(errnum));
    return assay_err_errno(err, errnum, "cannot write %s/%s", copy->dir, name);
}

/* --- the lock --- */

static enum assay_status path_of(const struct assay_fetch *fetch, const char *prefix, char path[ASSAY_PATH_MAX],
                                 struct assay_err *err)
{
    int len = snprintf(path, ASSAY_PATH_MAX, "%s/%s%s", fetch->cache_dir, prefix, fetch->name);
    if (len < 0 || len >= ASSAY_PATH_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes", ASSAY_PATH_MAX - 1);
    return ASSAY_OK;
}

/* Waits until no other process copies the same. The lock ends with the process, however it ends. */
static enum assay_status take_lock(const struct assay_fetch *fetch, int *ret_fd, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    const struct timespec pause = {.tv_nsec = LOCK_AGAIN_MS * 1000000L};
    enum assay_status status = path_of(fetch, LOCK_PREFIX, path, err);
    if (status != ASSAY_OK)
        return status;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int errnum = errno;
        if ((errnum == EWOULDBLOCK || errnum == EINTR) && !is_cancelled(fetch)) {
            nanosleep(&pause, NULL);
            continue;
        }
        close(fd);
        return is_cancelled(fetch) ? cancelled(fetch, err) : assay_err_errno(err, errnum, "cannot lock %s", path);
    }
    *ret_fd = fd;
    return ASSAY_OK;
}

/* --- files --- */

/* Opens a file of the staging at its full size, so that a full disk is known before anything is fetched. */
static enum assay_status open_file(struct copy *copy, size_t index, struct assay_err *err)
{
    const struct assay_pieces_file *file = &copy->pieces.files[index];
    char path[ASSAY_PATH_MAX];
    struct stat info;
    enum assay_status status = assay_path_join(path, copy->dir, file->name, err);
    if (status != ASSAY_OK)
        return status;
    copy->there[index] = calloc(file->count + 1, 1);
    if (!copy->there[index])
        return no_memory(err);
    copy->fds[index] = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (copy->fds[index] < 0 || fstat(copy->fds[index], &info) != 0)
        return write_failed(copy, errno, file->name, err);
    if (!S_ISREG(info.st_mode) || ((uint64_t)info.st_size != file->bytes && ftruncate(copy->fds[index], 0) != 0))
        return write_failed(copy, errno, file->name, err);
    int failed = file->bytes ? posix_fallocate(copy->fds[index], 0, (off_t)file->bytes) : 0;
    return failed ? write_failed(copy, failed, file->name, err) : ASSAY_OK;
}

/* What an interrupted copy left is used as far as its digests hold. */
static enum assay_status find_pieces(struct copy *copy, size_t index, void *buffer, struct assay_err *err)
{
    const struct assay_pieces_file *file = &copy->pieces.files[index];
    for (size_t i = 0; i < file->count; i++) {
        if (is_cancelled(copy->fetch))
            return cancelled(copy->fetch, err);
        enum assay_status status = assay_piece_read(copy->dir, file, i, buffer, err);
        if (status != ASSAY_OK)
            return status;
        struct assay_digest digest = assay_digest_of_bytes(buffer, assay_piece_bytes(file, i));
        copy->there[index][i] = assay_digest_equal(&digest, &file->digests[i]);
        copy->fetch->pieces_found += copy->there[index][i];
    }
    return ASSAY_OK;
}

/* Files that do not belong to the copy, from a time when the artifact was another one. */
static enum assay_status remove_strangers(const struct copy *copy, struct assay_err *err)
{
    DIR *stream = opendir(copy->dir);
    if (!stream)
        return assay_err_errno(err, errno, "cannot read directory %s", copy->dir);
    enum assay_status status = ASSAY_OK;
    for (struct dirent *entry; status == ASSAY_OK && (entry = readdir(stream));) {
        char path[ASSAY_PATH_MAX];
        bool known = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        for (size_t i = 0; !known && i < copy->pieces.count; i++)
            known = strcmp(entry->d_name, copy->pieces.files[i].name) == 0;
        if (known)
            continue;
        status = assay_path_join(path, copy->dir, entry->d_name, err);
        if (status == ASSAY_OK)
            status = assay_remove_tree(path, err);
    }
    closedir(stream);
    return status;
}

static enum assay_status prepare(struct copy *copy, struct assay_err *err)
{
    enum assay_status status = path_of(copy->fetch, STAGING_PREFIX, copy->dir, err);
    if (status != ASSAY_OK)
        return status;
    bool fresh = mkdir(copy->dir, 0755) == 0;
    if (!fresh && errno != EEXIST)
        return write_failed(copy, errno, "", err);
    assay_auto(assay_free_ptr) void *buffer = malloc(ASSAY_PIECE_BYTES);
    copy->fds = malloc((copy->pieces.count + 1) * sizeof *copy->fds);
    copy->there = calloc(copy->pieces.count + 1, sizeof *copy->there);
    for (size_t i = 0; copy->fds && i < copy->pieces.count; i++)
        copy->fds[i] = -1;
    if (!buffer || !copy->fds || !copy->there)
        return no_memory(err);
    status = fresh ? ASSAY_OK : remove_strangers(copy, err);
    for (size_t i = 0; i < copy->pieces.count && status == ASSAY_OK; i++) {
        status = open_file(copy, i, err);
        if (status == ASSAY_OK && !fresh)
            status = find_pieces(copy, i, buffer, err);
    }
    return status;
}

/* --- pieces; on several threads --- */

/* The next piece that is not there. */
static bool next_piece(struct copy *copy, size_t *ret_file, uint64_t *ret_piece)
{
    bool found = false;
    pthread_mutex_lock(&copy->lock);
    while (!found && copy->status == ASSAY_OK && copy->next_file < copy->pieces.count) {
        if (copy->next_piece >= copy->pieces.files[copy->next_file].count) {
            copy->next_file++;
            copy->next_piece = 0;
            continue;
        }
        found = !copy->there[copy->next_file][copy->next_piece];
        *ret_file = copy->next_file;
        *ret_piece = copy->next_piece++;
    }
    pthread_mutex_unlock(&copy->lock);
    return found;
}

static enum assay_status write_piece(struct copy *copy, size_t file, uint64_t piece, const void *buffer, size_t bytes,
                                     struct assay_err *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t put = pwrite(copy->fds[file], (const char *)buffer + done, bytes - done,
                             (off_t)(piece * ASSAY_PIECE_BYTES + done));
        if (put < 0 && errno != EINTR)
            return write_failed(copy, errno, copy->pieces.files[file].name, err);
        done += put > 0 ? (size_t)put : 0;
    }
    return ASSAY_OK;
}

static enum assay_status fetch_piece(struct copy *copy, size_t file, uint64_t piece, void *buffer,
                                     struct assay_err *err)
{
    struct assay_fetch *fetch = copy->fetch;
    const struct assay_pieces_file *of = &copy->pieces.files[file];
    size_t bytes = assay_piece_bytes(of, piece);
    for (int attempt = 1;; attempt++) {
        if (is_cancelled(fetch))
            return cancelled(fetch, err);
        enum assay_status status = fetch->read(fetch->arg, &copy->pieces, file, piece, buffer, bytes, err);
        if (status != ASSAY_OK)
            return status;
        struct assay_digest digest = assay_digest_of_bytes(buffer, bytes);
        bool holds = assay_digest_equal(&digest, &of->digests[piece]);
        pthread_mutex_lock(&copy->lock);
        fetch->pieces_fetched += holds;
        fetch->pieces_damaged += !holds;
        pthread_mutex_unlock(&copy->lock);
        if (holds)
            return write_piece(copy, file, piece, buffer, bytes, err);
        if (attempt == ASSAY_FETCH_TRIES_MAX)
            return assay_err_set(err, ASSAY_DATA_LOSS, "piece %llu of %s came damaged %d times",
                                 (unsigned long long)piece, of->name, attempt);
    }
}

static void *fetch_pieces(void *arg)
{
    struct copy *copy = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    void *buffer = malloc(ASSAY_PIECE_BYTES);
    enum assay_status status = buffer ? ASSAY_OK : no_memory(&err);
    size_t file = 0;
    uint64_t piece = 0;
    while (status == ASSAY_OK && next_piece(copy, &file, &piece))
        status = fetch_piece(copy, file, piece, buffer, &err);
    if (status != ASSAY_OK) {
        pthread_mutex_lock(&copy->lock);
        if (copy->status == ASSAY_OK) {
            copy->status = status;
            copy->err = err;
        }
        pthread_mutex_unlock(&copy->lock);
    }
    free(buffer);
    return NULL;
}

static enum assay_status fetch_all(struct copy *copy, struct assay_err *err)
{
    pthread_t threads[ASSAY_FETCH_THREADS];
    size_t started = 0;
    while (started < ASSAY_FETCH_THREADS && pthread_create(&threads[started], NULL, fetch_pieces, copy) == 0)
        started++;
    if (started == 0)
        fetch_pieces(copy);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return copy->status == ASSAY_OK ? ASSAY_OK : assay_err_set(err, copy->status, "%s", copy->err.text);
}

/* --- all of it --- */

static enum assay_status publish(struct copy *copy, const char *path, struct assay_err *err)
{
    for (size_t i = 0; i < copy->pieces.count; i++)
        if (fsync(copy->fds[i]) != 0)
            return write_failed(copy, errno, copy->pieces.files[i].name, err);
    enum assay_status status = assay_fsync_path(copy->dir, err);
    if (status == ASSAY_OK && rename(copy->dir, path) != 0)
        status = assay_err_errno(err, errno, "cannot rename %s to %s", copy->dir, path);
    return status == ASSAY_OK ? assay_fsync_path(copy->fetch->cache_dir, err) : status;
}

static void release(struct copy *copy)
{
    for (size_t i = 0; copy->fds && i < copy->pieces.count; i++)
        if (copy->fds[i] >= 0)
            close(copy->fds[i]);
    for (size_t i = 0; copy->there && i < copy->pieces.count; i++)
        free(copy->there[i]);
    free(copy->fds);
    free(copy->there);
    assay_pieces_release(&copy->pieces);
    pthread_mutex_destroy(&copy->lock);
}

static enum assay_status make_copy(struct assay_fetch *fetch, const char *path, struct assay_err *err)
{
    struct copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return no_memory(err);
    copy->fetch = fetch;
    pthread_mutex_init(&copy->lock, NULL);
    enum assay_status status = fetch->describe(fetch->arg, &copy->pieces, err);
    if (status == ASSAY_OK)
        status = prepare(copy, err);
    if (status == ASSAY_OK)
        status = fetch_all(copy, err);
    if (status == ASSAY_OK)
        status = publish(copy, path, err);
    release(copy);
    free(copy);
    return status;
}

enum assay_status assay_fetch_run(struct assay_fetch *fetch, char path[ASSAY_PATH_MAX], struct assay_err *err)
{
    char found[ASSAY_PATH_MAX];
    int lock = -1;
    fetch->pieces_fetched = fetch->pieces_found = fetch->pieces_damaged = 0;
    fetch->was_there = false;
    enum assay_status status = path_of(fetch, "", found, err);
    if (status == ASSAY_OK)
        status = assay_mkdirs(fetch->cache_dir, 0755, err);
    if (status == ASSAY_OK)
        status = take_lock(fetch, &lock, err);
    if (status != ASSAY_OK)
        return status;
    fetch->was_there = access(found, F_OK) == 0;
    if (!fetch->was_there)
        status = make_copy(fetch, found, err);
    close(lock);
    if (status == ASSAY_OK)
        strcpy(path, found);
    return status;
}
