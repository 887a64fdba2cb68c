/* Forward passes of chunks. */
#pragma once

#include "services/inference/models.h"

/* One forward pass over a batch, in its turn; *ret_compute_us is what it took. Errors are those of assay_model_forward.
 */
enum assay_status assay_execute(struct assay_models *models, const struct assay_model *model, struct assay_pool *pool,
                                const struct assay_sequence *sequences, size_t count, uint64_t *ret_compute_us,
                                struct assay_err *err) ASSAY_MUST_USE;

/* How many of the next chunks, of tokens[i] each, go into one batch: as many as fit into tokens_max, at least one.
 * 0 only when count is 0. Pure. */
size_t assay_batch_length(const uint32_t *tokens, size_t count, size_t tokens_max);
