/* A model out of a directory, for commands that run one in this process. */
#pragma once

#include "common/nn/model.h"

/* Loads what is not NULL, and closes the checkpoint. On failure both are left as they were. Errors: those of
 * assay_checkpoint_open, assay_model_load and assay_head_load. */
enum assay_status assay_load(const char *dir, struct assay_pool *pool, struct assay_model **ret_model,
                             struct assay_head **ret_head, struct assay_err *err) ASSAY_MUST_USE;
