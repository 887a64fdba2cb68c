/* Artifacts and heads where they are wanted: in place when their directory is visible here, else fetched from who has
 * them (service Artifacts) into a cache directory of ours. Blocking; any thread but the loop's. */
#pragma once

#include "common/artifact/fetch.h"
#include "common/wire/client.h"

struct assay_artifact_source {
    struct assay_loop *loop;
    const struct assay_variant_id *variant;
    const char *artifact_dir; /* where it stands on the host of who made it */
    const char *endpoint;     /* NULL or "": it is not to be had over the bus */
    const char *cache_dir;    /* DATA/artifacts of ours */
    bool head_only;
    bool (*cancelled)(void *arg); /* may be NULL */
    void *arg;
};

/* *dir is a directory that holds it; artifact_dir itself, unchecked, when nobody serves it. Errors are those of
 * assay_fetch_run. */
enum assay_status assay_artifact_find(const struct assay_artifact_source *source, char dir[ASSAY_PATH_MAX],
                                      struct assay_err *err) ASSAY_MUST_USE;
