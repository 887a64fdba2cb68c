/* A Score request, checked and laid out: which records it needs, where their figures go. Pure.
 *
 * The same text twice is one unique chunk with two occurrences: it is scored once and counts twice. The same variant
 * twice (or the reference among the variants) is one source. */
#pragma once

#include "common/base/digest.h"
#include "services/evaluator/records.h"

struct assay_score_side {
    struct assay_variant_id variant;
    const char *artifact_dir;
    const char *label; /* for messages */
};

struct assay_score_spec {
    struct assay_score_side reference;
    const struct assay_score_side *variants; /* may be none: then the reference alone is measured */
    size_t variants_count;
    size_t chunks_count;
    const struct assay_chunk_key *keys;
    const uint32_t *tokens, *begin, *end; /* by chunk; rows [begin, end) are scored, row t predicts ids[t + 1] */
    const int32_t *ids;                   /* chunk after chunk */
    size_t ids_count;
    enum assay_record_dtype dtype; /* of the records that are scored */
    const char *const *numerics;   /* of the reference, then of the variants: the sets to score; "" or NULL: any */
};

/* Pairs of one job hold 17 bytes for each position: 4.5 GB. */
#define ASSAY_SCORE_PAIR_POSITIONS_MAX ((uint64_t)1 << 28)

struct assay_score_plan {
    size_t sources_count;
    struct assay_score_side *sources; /* the reference is the first; strings are the spec's */
    size_t pairs_count;               /* variants; the reference with itself when there are none */
    uint32_t *pair_sources;           /* by pair: the variant's source */

    size_t uniques_count;
    struct assay_chunk_key *unique_keys;
    uint32_t *unique_rows;
    size_t *unique_labels;  /* where the labels of a unique chunk begin */
    uint32_t *unique_first; /* its first occurrence */
    uint32_t *unique_occurrences;
    int32_t *labels;

    size_t occurrences_count;
    uint32_t *occurrence_next; /* the next one of the same chunk, UINT32_MAX at the end */
    size_t *offsets;           /* where the positions of an occurrence begin */
    size_t *sizes;             /* its positions */
    size_t positions;

    struct assay_record_key *record_keys; /* [unique][source] */
    uint32_t *record_map;                 /* open addressing over record_keys: number + 1 */
    size_t record_map_mask;
};

/* The spec outlives the plan. INVALID_ARGUMENT: no chunks, counts that do not fit, scored rows outside of a chunk, one
 * key with two shapes. RESOURCE_EXHAUSTED: beyond a ceiling or out of memory. */
enum assay_status assay_score_plan_make(const struct assay_score_spec *spec, struct assay_score_plan *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_score_plan_release(struct assay_score_plan *plan);

/* False: not a record of this job. */
bool assay_score_plan_find(const struct assay_score_plan *plan, const struct assay_record_key *key, uint32_t *unique,
                           uint32_t *source);
