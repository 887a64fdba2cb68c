/* Which engine runs a variant. A worker's engine is what stands before the first '-' of its numerics id: "assay",
 * "transformers". A variant that names one ("fp32:engine=transformers") has its chunks in a queue of its own,
 * "fp32@transformers", from which only workers of that engine are served; all others are in "fp32". Pure. */
#pragma once

#include "common/quant/scheme.h"
#include "services/coordinator/registry.h"

/* With its NUL. */
#define ASSAY_QUEUE_BYTES_MAX 32

/* Where a variant's chunks wait. Returns `ret`. */
const char *assay_queue_of_spec(const struct assay_spec *spec, char ret[ASSAY_QUEUE_BYTES_MAX]);
/* The queue that only workers of this precision and engine are served from; "", where nothing waits, for an engine with
 * a longer name than any that a variant can name. Returns `ret`. */
const char *assay_queue_of_worker(const char *precision, const char *numerics, char ret[ASSAY_QUEUE_BYTES_MAX]);
/* Whether a live worker is served from the queue. */
bool assay_queue_has_worker(const struct assay_registry *registry, const char *queue);
/* The precision of a queue that our own workers can serve, into ret. False: another engine's. */
bool assay_queue_is_ours(const char *queue, char ret[ASSAY_QUEUE_BYTES_MAX]);
