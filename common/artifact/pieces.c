#include "common/artifact/pieces.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the pieces of an artifact");
}

void assay_pieces_release(struct assay_pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        free(pieces->files[i].name);
        free(pieces->files[i].digests);
    }
    free(pieces->files);
    *pieces = (struct assay_pieces)ASSAY_PIECES_INIT;
}

enum assay_status assay_pieces_add_file(struct assay_pieces *pieces, const char *name, uint64_t bytes,
                                        struct assay_err *err)
{
    if (!assay_path_is_name(name) || name[0] == '.')
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "an artifact has a file '%.80s', wanted a plain file name",
                             name);
    if (pieces->count > 0 && strcmp(pieces->files[pieces->count - 1].name, name) >= 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the files of an artifact are not in order at '%.80s'", name);
    if (pieces->count == ASSAY_PIECES_FILES_MAX || bytes > ASSAY_PIECES_FILE_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "an artifact has more than %d files, or '%.80s' is too large",
                             ASSAY_PIECES_FILES_MAX, name);
    struct assay_pieces_file *files = realloc(pieces->files, (pieces->count + 1) * sizeof *files);
    if (!files)
        return no_memory(err);
    pieces->files = files;
    struct assay_pieces_file file = {
        .name = strdup(name), .bytes = bytes, .count = (size_t)((bytes + ASSAY_PIECE_BYTES - 1) / ASSAY_PIECE_BYTES)};
    file.digests = calloc(file.count + 1, sizeof *file.digests);
    if (!file.name || !file.digests) {
        free(file.name);
        free(file.digests);
        return no_memory(err);
    }
    files[pieces->count++] = file;
    pieces->bytes += bytes;
    return ASSAY_OK;
}

struct assay_digest assay_pieces_digest(const struct assay_pieces *pieces)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.pieces.v1");
    assay_hash_u64(&hash, ASSAY_PIECE_BYTES);
    for (size_t i = 0; i < pieces->count; i++) {
        const struct assay_pieces_file *file = &pieces->files[i];
        assay_hash_str(&hash, file->name);
        assay_hash_u64(&hash, file->bytes);
        for (size_t j = 0; j < file->count; j++)
            assay_hash_digest(&hash, &file->digests[j]);
    }
    return assay_hash_final(&hash);
}

size_t assay_piece_bytes(const struct assay_pieces_file *file, uint64_t index)
{
    return (size_t)ASSAY_MIN(ASSAY_PIECE_BYTES, file->bytes - index * ASSAY_PIECE_BYTES);
}

static enum assay_status read_at(int fd, const char *path, void *buffer, size_t len, uint64_t offset,
                                 struct assay_err *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(fd, (char *)buffer + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return assay_err_errno(err, errno, "cannot read %s", path);
        if (got == 0)
            return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "%s became shorter while it was read", path);
        done += (size_t)got;
    }
    return ASSAY_OK;
}

enum assay_status assay_piece_read(const char *dir, const struct assay_pieces_file *file, uint64_t index, void *buffer,
                                   struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, file->name, err);
    if (status != ASSAY_OK)
        return status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return assay_err_errno(err, errno, "cannot open %s", path);
    status = read_at(fd, path, buffer, assay_piece_bytes(file, index), index * ASSAY_PIECE_BYTES, err);
    close(fd);
    return status;
}

/* --- describing --- */

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum assay_status list_files(const char *dir, struct assay_pieces *pieces, struct assay_err *err)
{
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, is_visible, by_bytes);
    if (count < 0)
        return assay_err_errno(err, errno, "cannot read directory %s", dir);
    enum assay_status status = ASSAY_OK;
    for (int i = 0; i < count; i++) {
        char path[ASSAY_PATH_MAX];
        struct stat info;
        if (status == ASSAY_OK)
            status = assay_path_join(path, dir, entries[i]->d_name, err);
        if (status == ASSAY_OK && stat(path, &info) != 0)
            status = assay_err_errno(err, errno, "cannot stat %s", path);
        if (status == ASSAY_OK && S_ISREG(info.st_mode))
            status = assay_pieces_add_file(pieces, entries[i]->d_name, (uint64_t)info.st_size, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static enum assay_status digest_file(const char *dir, struct assay_pieces_file *file, void *buffer,
                                     bool (*cancelled)(void *arg), void *arg, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < file->count && status == ASSAY_OK; i++) {
        if (cancelled && cancelled(arg))
            return assay_err_set(err, ASSAY_CANCELLED, "describing %s was cancelled", dir);
        status = assay_piece_read(dir, file, i, buffer, err);
        if (status == ASSAY_OK)
            file->digests[i] = assay_digest_of_bytes(buffer, assay_piece_bytes(file, i));
    }
    return status;
}

enum assay_status assay_pieces_describe(const char *dir, bool (*cancelled)(void *arg), void *arg,
                                        struct assay_pieces *ret, struct assay_err *err)
{
    struct assay_pieces pieces = ASSAY_PIECES_INIT;
    assay_auto(assay_free_ptr) void *buffer = malloc(ASSAY_PIECE_BYTES);
    enum assay_status status = buffer ? list_files(dir, &pieces, err) : no_memory(err);
    for (size_t i = 0; i < pieces.count && status == ASSAY_OK; i++)
        status = digest_file(dir, &pieces.files[i], buffer, cancelled, arg, err);
    if (status != ASSAY_OK) {
        assay_pieces_release(&pieces);
        return status;
    }
    pieces.digest = assay_pieces_digest(&pieces);
    *ret = pieces;
    return ASSAY_OK;
}
