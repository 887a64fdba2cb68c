/* A directory of plain files as pieces of one size with a digest each, so that it can be copied over a bus, go on after
 * an interruption, and be verified piece by piece. Any thread. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"

/* A piece is an attachment: small enough that several are on their way, large enough that a call a piece costs little.
 */
#define ASSAY_PIECE_BYTES ((uint64_t)8 << 20)
/* A shard a file, and a few more. */
#define ASSAY_PIECES_FILES_MAX 8192
/* Of one file: 512 TiB are a mistake. */
#define ASSAY_PIECES_FILE_BYTES_MAX ((uint64_t)1 << 49)

struct assay_pieces_file {
    char *name;
    uint64_t bytes;
    size_t count;
    struct assay_digest *digests; /* [count] */
};

struct assay_pieces {
    struct assay_digest digest; /* of the rest: BLAKE2b-256 over "assay.pieces.v1", piece_bytes, and of each file the
                                   name, bytes and digests */
    struct assay_pieces_file *files; /* by name */
    size_t count;
    uint64_t bytes; /* of all files */
};

#define ASSAY_PIECES_INIT                                                                                              \
    {                                                                                                                  \
        .files = NULL                                                                                                  \
    }

void assay_pieces_release(struct assay_pieces *pieces);

/* Reads all files of a directory whose names do not begin with a dot; links lead to what is copied. cancelled may be
 * NULL. NOT_FOUND: no such directory. CANCELLED. */
enum assay_status assay_pieces_describe(const char *dir, bool (*cancelled)(void *arg), void *arg,
                                        struct assay_pieces *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Makes room for a description that comes from outside; the caller fills digests[] of each file. INVALID_ARGUMENT: not
 * a plain file name, names out of order, too many, too large. */
enum assay_status assay_pieces_add_file(struct assay_pieces *pieces, const char *name, uint64_t bytes,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* What `digest` has to be. */
struct assay_digest assay_pieces_digest(const struct assay_pieces *pieces);

/* Bytes of one piece; index < count. */
size_t assay_piece_bytes(const struct assay_pieces_file *file, uint64_t index);
/* Reads one piece of a file into buffer[assay_piece_bytes]. FAILED_PRECONDITION: the file is shorter by now. */
enum assay_status assay_piece_read(const char *dir, const struct assay_pieces_file *file, uint64_t index, void *buffer,
                                   struct assay_err *err) ASSAY_MUST_USE;
