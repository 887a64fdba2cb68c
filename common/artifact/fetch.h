/* Copies a directory piece by piece into a cache directory that several processes of one host may share: a lock lets
 * one of them copy at a time, the others find the copy. Half-made copies stand in ".fetch-NAME" and are gone on with
 * after an interruption; what is visible under NAME is whole. Blocking; any thread. */
#pragma once

#include "common/artifact/pieces.h"

/* Calls under way at once, so at most so many pieces in flight. */
#define ASSAY_FETCH_THREADS 4
/* How often a piece may come damaged before the copy fails. */
#define ASSAY_FETCH_TRIES_MAX 4

struct assay_fetch {
    const char *cache_dir; /* made when absent */
    const char *name;      /* of the directory in it; a plain file name */
    /* What is to be copied, checked. */
    enum assay_status (*describe)(void *arg, struct assay_pieces *ret, struct assay_err *err);
    /* One piece into buffer[bytes]; several threads at once. */
    enum assay_status (*read)(void *arg, const struct assay_pieces *pieces, size_t file, uint64_t piece, void *buffer,
                              size_t bytes, struct assay_err *err);
    bool (*cancelled)(void *arg); /* any thread; may be NULL */
    void *arg;
    /* Counts of this run. */
    uint64_t pieces_fetched, pieces_found, pieces_damaged;
    bool was_there;
};

/* *path is the directory. A piece whose digest does not hold is fetched again; DATA_LOSS after ASSAY_FETCH_TRIES_MAX.
 * RESOURCE_EXHAUSTED: the disk has no room, which the sentence says with the bytes that are wanted; nothing is lost of
 * what was fetched. CANCELLED. Else as describe and read. */
enum assay_status assay_fetch_run(struct assay_fetch *fetch, char path[ASSAY_PATH_MAX],
                                  struct assay_err *err) ASSAY_MUST_USE;
