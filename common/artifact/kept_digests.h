/* Digests that take seconds of every gigabyte, kept from one artifact to the next: one small file each, named by what
 * the digest follows from. Whoever may write in the directory decides what is found: it is as private as the artifacts
 * beside it. Removing it costs the time and nothing else. Any thread, any number of processes. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"

#define ASSAY_KEPT_DIGESTS_DIR ".digests" /* within the artifacts directory */

/* What a file's digest is kept under: all that changes when its contents do. */
struct assay_digest assay_kept_file_key(const struct assay_file_identity *file);
/* The same for the head of a model. */
struct assay_digest assay_kept_head_key(const struct assay_model_id *model);

/* False: not there, or not to be read. dir may be NULL: nothing is there. */
bool assay_kept_find(const char *dir, const struct assay_digest *key, struct assay_digest *ret);
/* Best effort; logs why it failed. dir may be NULL: nothing is kept. */
void assay_kept_put(const char *dir, const struct assay_digest *key, const struct assay_digest *value);
