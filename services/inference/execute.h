/* One loaded model and its forward passes. One thread. */
#pragma once

#include "common/nn/model.h"

struct assay_executor;

/* The pool outlives the executor. NULL when out of memory. */
struct assay_executor *assay_executor_new(struct assay_pool *pool);
void assay_executor_free(struct assay_executor *executor); /* NULL is fine */

/* The variant whose model is loaded, or NULL. */
const struct assay_variant_id *assay_executor_loaded(const struct assay_executor *executor);

/* Loads the model of an artifact unless it is there. The former one is freed first, so that two never stand in memory.
 * On failure none is loaded. *ret_was_loaded: nothing had to be done. Errors are those of assay_checkpoint_open,
 * assay_model_load and assay_model_check_rows. */
enum assay_status assay_executor_load(struct assay_executor *executor, const struct assay_variant_id *variant,
                                      const char *artifact_dir, bool *ret_was_loaded,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* Columns of hidden states. A model is loaded. */
size_t assay_executor_width(const struct assay_executor *executor);

/* One forward pass over a batch; errors are those of assay_model_forward. A model is loaded. */
enum assay_status assay_executor_run(struct assay_executor *executor, const struct assay_sequence *sequences,
                                     size_t count, uint64_t *ret_compute_us, struct assay_err *err) ASSAY_MUST_USE;

/* How many of the next chunks, of tokens[i] each, go into one batch: as many as fit into tokens_max, at least one.
 * 0 only when count is 0. Pure. */
size_t assay_batch_length(const uint32_t *tokens, size_t count, size_t tokens_max);
