/* Half-made artifacts. Each stands in its own directory ".tmp-VARIANT-PID" inside the artifacts directory, locked by
 * its maker (flock), until one rename(2) makes it visible under its digest. The lock, and not the pid, tells whether
 * the maker lives: in containers every maker is process 1. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"

struct assay_staging {
    char dir[ASSAY_PATH_MAX];
    int lock; /* descriptor of dir */
};

/* Makes an empty, locked directory inside artifacts_dir, which exists. */
enum assay_status assay_staging_open(const char *artifacts_dir, const struct assay_variant_id *id,
                                     struct assay_staging *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Syncs the directory (its files are synced by who wrote them) and renames it to artifact_dir, beside it; syncs the
 * parent. The staging is then over. ALREADY_EXISTS: something stands there; the staging stays as it is. */
enum assay_status assay_staging_publish(struct assay_staging *staging, const char *artifact_dir,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* Takes what stands under artifact_dir out of the way: it becomes a half-made artifact and is removed. */
enum assay_status assay_staging_displace(const struct assay_staging *staging, const char *artifact_dir,
                                         struct assay_err *err) ASSAY_MUST_USE;

/* Removes the directory. A staging that is over is fine. */
void assay_staging_abandon(struct assay_staging *staging);

/* Removes the half-made artifacts whose makers are dead; says how many. Any process may do so at any time. */
enum assay_status assay_staging_sweep(const char *artifacts_dir, size_t *ret_removed,
                                      struct assay_err *err) ASSAY_MUST_USE;
