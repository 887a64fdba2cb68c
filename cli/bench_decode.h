/* Speed of generating one token after the other: products of one row, or a few, with every weight of a model. */
#pragma once

#include "common/base/pool.h"
#include "common/formats/json.h"
#include "common/kernels/kernels.h"
#include "common/nn/model.h"

/* Adds to `result` for each of f32, bf16, int8, nf4 and int4 (random weights of the linears of `shape`; the head stays
 * bf16), with `rows` tokens at once: SCHEME_read_gb_per_second, what the pool's threads read from large pages of memory
 * together, SCHEME_gb_per_second of weight bytes, SCHEME_share_of_read and SCHEME_tokens_per_second, a bound since
 * attention is not there. Medians of turns of reading and decoding; times are CPU time by thread. */
enum assay_status bench_decode(struct assay_pool *pool, const struct assay_kernels *kernels,
                               const struct assay_model_config *shape, size_t rows, cJSON *result,
                               struct assay_err *err) ASSAY_MUST_USE;
