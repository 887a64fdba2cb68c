/* A checkpoint directory in the Hugging Face layout: config.json and model.safetensors, or shards with
 * model.safetensors.index.json. Artifacts of ours have the same layout. */
#pragma once

#include "common/base/digest.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"

struct assay_checkpoint;

/* Opens and checks all shards. Errors name the file. NOT_FOUND: no such directory, no config.json, or no weights (says
 * which files it looked for; pytorch_model.bin alone is INVALID_ARGUMENT with the sentence that tells how to convert).
 * INVALID_ARGUMENT: an index that names a file outside the directory, a tensor in two shards, an indexed tensor that
 * its shard lacks. */
enum assay_status assay_checkpoint_open(const char *dir, struct assay_checkpoint **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_checkpoint_close(struct assay_checkpoint *checkpoint); /* NULL is fine */

const char *assay_checkpoint_dir(const struct assay_checkpoint *checkpoint);
const cJSON *assay_checkpoint_config(const struct assay_checkpoint *checkpoint);
size_t assay_checkpoint_count(const struct assay_checkpoint *checkpoint);
const struct assay_tensor *assay_checkpoint_at(const struct assay_checkpoint *checkpoint,
                                               size_t index); /* by name order */
const struct assay_tensor *assay_checkpoint_find(const struct assay_checkpoint *checkpoint, const char *name);

/* A weight file by its name in the directory, as mapped; NULL when there is none of that name. */
const struct assay_safetensors *assay_checkpoint_file(const struct assay_checkpoint *checkpoint, const char *name);
/* As assay_safetensors_forget. */
void assay_checkpoint_forget(const struct assay_checkpoint *checkpoint, const struct assay_tensor *tensor);

/* Digest of everything that decides what the model computes: config.json and the weight files by content, in name
 * order. `digest_of` returns the digest of one file (so that a caller can cache by inode); NULL reads every byte. */
typedef enum assay_status (*assay_file_digest_fn)(void *arg, const char *path, struct assay_digest *ret,
                                                  struct assay_err *err);
enum assay_status assay_checkpoint_id(const char *dir, assay_file_digest_fn digest_of, void *arg,
                                      struct assay_model_id *ret, struct assay_err *err) ASSAY_MUST_USE;
