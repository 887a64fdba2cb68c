/* What a model remembers of a sequence, so that it can go on: keys and values of every layer. With F32 what follows has
 * the bits that one pass over the whole sequence gives, as long as the positions rotate alike: with a rope whose angles
 * depend on the length (dynamic, longrope), what was kept keeps the angles of its time. One thread at a time. */
#pragma once

#include "common/nn/model.h"

struct assay_cache;

/* Room for tokens_max tokens. dtype: F32, F16, BF16 or I8 (common/kernels/kernels.h says what each keeps).
 * OUT_OF_RANGE beyond the model's positions; RESOURCE_EXHAUSTED. The model outlives it. */
enum assay_status assay_cache_new(const struct assay_model *model, enum assay_dtype dtype, size_t tokens_max,
                                  struct assay_cache **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_cache_free(struct assay_cache *cache); /* NULL is fine */

size_t assay_cache_tokens(const struct assay_cache *cache);
size_t assay_cache_tokens_max(const struct assay_cache *cache);
size_t assay_cache_bytes(const struct assay_cache *cache);
/* Forgets all but the first `tokens`. */
void assay_cache_truncate(struct assay_cache *cache, size_t tokens);

/* Whether a prompt must be given at once: the angles of the model's rope depend on the length (dynamic, longrope). */
bool assay_cache_wants_all(const struct assay_model *model);
/* Whether what is kept must be forgotten before the sequence has `tokens`, because longrope turns to its other factors
 * there; transformers does so, too. */
bool assay_cache_turned(const struct assay_model *model, const struct assay_cache *cache, size_t tokens);
