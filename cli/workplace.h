/* Directories that appear whole or not at all. */
#pragma once

#include "common/base/fs.h"

/* A place to work in beside the target, on the same file system. */
struct assay_workplace {
    char target[ASSAY_PATH_MAX];
    char work[ASSAY_PATH_MAX];  /* "" before open and after close */
    char model[ASSAY_PATH_MAX]; /* work/model: what becomes the target */
};

/* Makes the target's parents, work and model. ALREADY_EXISTS when the target is there and is no empty directory. */
enum assay_status assay_workplace_open(const char *target, struct assay_workplace *ret,
                                       struct assay_err *err) ASSAY_MUST_USE;
/* Renames model to the target. */
enum assay_status assay_workplace_commit(struct assay_workplace *place, struct assay_err *err) ASSAY_MUST_USE;
void assay_workplace_close(struct assay_workplace *place); /* removes work and all below it; may come twice */
