/* The output head of an artifact as a small checkpoint of its own: config.json and model.safetensors with the head's
 * tensors. Variants that share a head share it. */
#pragma once

#include "common/base/digest.h"
#include "common/base/fs.h"

/* Folder of heads beside the artifacts. */
#define ASSAY_HEADS_DIR ".heads"

/* Makes, or finds made, heads_dir/DIGEST for the head of artifact_dir; *dir is it. What stands there is whole at any
 * time. Errors are those of assay_checkpoint_open and of writing. */
enum assay_status assay_head_blob_make(const char *artifact_dir, const char *heads_dir, char dir[ASSAY_PATH_MAX],
                                       struct assay_err *err) ASSAY_MUST_USE;
