/* Files and directories. Paths are NUL-terminated; errors name the path. Any thread. */
#pragma once

#include "common/base/status.h"

#define ASSAY_PATH_MAX 4096

/* "a/b" into path[ASSAY_PATH_MAX]. INVALID_ARGUMENT when it does not fit. */
enum assay_status assay_path_join(char path[ASSAY_PATH_MAX], const char *a, const char *b,
                                  struct assay_err *err) ASSAY_MUST_USE;

/* True when name is one plain path component from the outside: not empty, no '/', not "." or "..". */
bool assay_path_is_name(const char *name);

/* Makes path and its parents; existing directories are fine. New ones get `mode`. */
enum assay_status assay_mkdirs(const char *path, unsigned mode, struct assay_err *err) ASSAY_MUST_USE;

/* The whole file into *ret (malloc, NUL-terminated, caller frees) and *ret_bytes (without the NUL).
 * RESOURCE_EXHAUSTED when it has more than bytes_max bytes. */
enum assay_status assay_file_read(const char *path, size_t bytes_max, char **ret, size_t *ret_bytes,
                                  struct assay_err *err) ASSAY_MUST_USE;

/* Writes beside the target, syncs, renames: readers see the old file or the whole new one. */
enum assay_status assay_file_write(const char *path, const void *bytes, size_t len,
                                   struct assay_err *err) ASSAY_MUST_USE;

/* fsync of a file or directory by path. */
enum assay_status assay_fsync_path(const char *path, struct assay_err *err) ASSAY_MUST_USE;

/* Removes path and all below it. Does not follow links. A path that is not there is fine. */
enum assay_status assay_remove_tree(const char *path, struct assay_err *err) ASSAY_MUST_USE;

/* What tells one state of a file's contents from another. */
struct assay_file_identity {
    uint64_t device, inode, bytes;
    uint64_t modified_s, modified_ns, changed_s, changed_ns;
};
/* Follows links. */
enum assay_status assay_file_identify(const char *path, struct assay_file_identity *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* False when the file was changed in the last two seconds: another change might leave its times as they are. */
bool assay_file_is_settled(const struct assay_file_identity *file);

/* A read-only mapping of a regular file. bytes is 0 and data NULL for an empty one. */
struct assay_mapping {
    const unsigned char *data;
    size_t bytes;
    struct assay_file_identity identity; /* when it was mapped */
};
enum assay_status assay_map_file(const char *path, struct assay_mapping *ret, struct assay_err *err) ASSAY_MUST_USE;
/* The whole pages within [data, data + bytes), which lie in the mapping, leave memory until they are read again. */
void assay_map_forget(const struct assay_mapping *mapping, const void *data, size_t bytes);
void assay_unmap(struct assay_mapping *mapping); /* leaves it empty; empty is fine */

/* Directory of the running program. */
enum assay_status assay_program_dir(char path[ASSAY_PATH_MAX], struct assay_err *err) ASSAY_MUST_USE;
