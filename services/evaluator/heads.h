/* Heads of the variants that running jobs score: loaded once, shared by digest, freed when no job uses them.
 * Thread-safe. */
#pragma once

#include "common/nn/model.h"

struct assay_heads;

struct assay_heads *assay_heads_new(struct assay_pool *pool); /* NULL when out of memory; the pool outlives it */
void assay_heads_free(struct assay_heads *heads);             /* all heads were given back; NULL is fine */

/* The head of an artifact directory. Variants that have the same head get the same pointer. Slow when it is new. Errors
 * are those of assay_checkpoint_open and assay_head_load. */
enum assay_status assay_heads_get(struct assay_heads *heads, const char *artifact_dir, const struct assay_head **ret,
                                  struct assay_err *err) ASSAY_MUST_USE;
/* Once for each get. NULL is fine. */
void assay_heads_put(struct assay_heads *heads, const struct assay_head *head);
size_t assay_heads_count(struct assay_heads *heads);
