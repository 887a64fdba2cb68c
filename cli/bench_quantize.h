/* Speed of quantizing: the encoders alone, and the whole way from a checkpoint's files to an artifact's. */
#pragma once

#include "common/base/pool.h"
#include "common/formats/json.h"
#include "common/nn/model.h"

/* Adds to `result`, for int8, nf4 and int4: SCHEME_mb_per_core_second, MB of f32 weights that one thread encodes; and
 * for checkpoints of f32 and of bf16 with random weights of `shape`, DTYPE_SCHEME_file_to_file_mb_per_core_second, MB
 * of the source's weights by second of CPU time of all threads, and ..._mb_per_second by the clock. The files are
 * written below `dir`, which exists, and removed. Errors: those of files and of quantizing. */
enum assay_status bench_quantize(struct assay_pool *pool, const struct assay_model_config *shape, const char *dir,
                                 cJSON *result, struct assay_err *err) ASSAY_MUST_USE;
