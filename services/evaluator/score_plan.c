#include "services/evaluator/score_plan.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "services/evaluator/records.h"

#define NONE UINT32_MAX

static enum assay_status no_memory(const struct assay_score_spec *spec, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job of %zu chunks and %zu variants",
                         spec->chunks_count, spec->variants_count);
}

/* --- checking --- */

static enum assay_status check_chunks(const struct assay_score_spec *spec, uint64_t *ret_positions,
                                      struct assay_err *err)
{
    uint64_t ids = 0, positions = 0;
    for (size_t i = 0; i < spec->chunks_count; i++) {
        uint32_t begin = spec->begin[i], end = spec->end[i];
        if (begin >= end || end >= spec->tokens[i] || end - begin > ASSAY_RECORD_ROWS_MAX)
            return assay_err_set(
                err, ASSAY_INVALID_ARGUMENT,
                "chunk %zu scores rows [%u, %u) of %u tokens, wanted begin < end < tokens and at most %u rows", i,
                begin, end, spec->tokens[i], ASSAY_RECORD_ROWS_MAX);
        ids += spec->tokens[i];
        positions += end - begin;
    }
    if (ids != spec->ids_count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the chunks have %llu tokens, the request has %zu ids",
                             (unsigned long long)ids, spec->ids_count);
    uint64_t pairs = ASSAY_MAX(spec->variants_count, (size_t)1);
    if (positions > ASSAY_SCORE_PAIR_POSITIONS_MAX / pairs)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "%llu scored positions times %llu variants are too many for one job, at most %llu",
                             (unsigned long long)positions, (unsigned long long)pairs,
                             (unsigned long long)ASSAY_SCORE_PAIR_POSITIONS_MAX);
    *ret_positions = positions;
    return ASSAY_OK;
}

static enum assay_status check_spec(const struct assay_score_spec *spec, uint64_t *ret_positions, struct assay_err *err)
{
    if (spec->chunks_count == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a job needs at least one chunk");
    if (spec->chunks_count > ASSAY_JOB_CHUNKS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a job has at most %u chunks, found %zu",
                             ASSAY_JOB_CHUNKS_MAX, spec->chunks_count);
    if (spec->variants_count > ASSAY_JOB_VARIANTS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a job has at most %d variants, found %zu",
                             ASSAY_JOB_VARIANTS_MAX, spec->variants_count);
    return check_chunks(spec, ret_positions, err);
}

/* --- sources --- */

static uint32_t add_source(struct assay_score_plan *plan, const struct assay_score_side *side)
{
    for (size_t i = 0; i < plan->sources_count; i++)
        if (assay_digest_equal(&plan->sources[i].variant.digest, &side->variant.digest))
            return (uint32_t)i;
    plan->sources[plan->sources_count] = *side;
    return (uint32_t)plan->sources_count++;
}

static enum assay_status plan_sources(const struct assay_score_spec *spec, struct assay_score_plan *plan,
                                      struct assay_err *err)
{
    plan->pairs_count = ASSAY_MAX(spec->variants_count, (size_t)1);
    plan->sources = calloc(spec->variants_count + 1, sizeof *plan->sources);
    plan->pair_sources = calloc(plan->pairs_count, sizeof *plan->pair_sources);
    if (!plan->sources || !plan->pair_sources)
        return no_memory(spec, err);
    add_source(plan, &spec->reference);
    for (size_t i = 0; i < spec->variants_count; i++)
        plan->pair_sources[i] = add_source(plan, &spec->variants[i]);
    return ASSAY_OK;
}

/* --- maps from digests to numbers: open addressing, at most half full --- */

static uint32_t *map_new(size_t count, size_t *ret_mask)
{
    size_t slots = 8;
    while (slots < 2 * count)
        slots *= 2;
    *ret_mask = slots - 1;
    return calloc(slots, sizeof(uint32_t));
}

static size_t map_start(const struct assay_digest *digest, size_t mask)
{
    uint64_t hash;
    memcpy(&hash, digest->bytes, sizeof hash);
    return (size_t)hash & mask;
}

/* The number of the digest among digests[], or NONE after noting it as number `fresh`. */
static uint32_t map_add(uint32_t *map, size_t mask, const struct assay_digest *digests,
                        const struct assay_digest *digest, uint32_t fresh)
{
    size_t at = map_start(digest, mask);
    for (; map[at]; at = (at + 1) & mask)
        if (assay_digest_equal(&digests[map[at] - 1], digest))
            return map[at] - 1;
    map[at] = fresh + 1;
    return NONE;
}

/* --- chunks --- */

static bool allocate_chunks(const struct assay_score_spec *spec, uint64_t positions, struct assay_score_plan *plan)
{
    size_t count = spec->chunks_count;
    plan->unique_keys = calloc(count, sizeof *plan->unique_keys);
    plan->unique_rows = calloc(count, sizeof *plan->unique_rows);
    plan->unique_labels = calloc(count, sizeof *plan->unique_labels);
    plan->unique_first = calloc(count, sizeof *plan->unique_first);
    plan->unique_occurrences = calloc(count, sizeof *plan->unique_occurrences);
    plan->labels = calloc(positions, sizeof *plan->labels);
    plan->occurrence_next = calloc(count, sizeof *plan->occurrence_next);
    plan->offsets = calloc(count, sizeof *plan->offsets);
    plan->sizes = calloc(count, sizeof *plan->sizes);
    return plan->unique_keys && plan->unique_rows && plan->unique_labels && plan->unique_first &&
           plan->unique_occurrences && plan->labels && plan->occurrence_next && plan->offsets && plan->sizes;
}

/* Adds an occurrence of a unique chunk in front of the others. */
static void add_occurrence(struct assay_score_plan *plan, uint32_t unique, uint32_t occurrence, uint32_t rows)
{
    plan->occurrence_next[occurrence] = plan->unique_occurrences[unique] ? plan->unique_first[unique] : NONE;
    plan->unique_first[unique] = occurrence;
    plan->unique_occurrences[unique]++;
    plan->offsets[occurrence] = plan->positions;
    plan->sizes[occurrence] = rows;
    plan->positions += rows;
}

static enum assay_status plan_chunks(const struct assay_score_spec *spec, uint64_t positions,
                                     struct assay_score_plan *plan, struct assay_err *err)
{
    size_t mask, ids = 0, labels = 0;
    assay_auto(assay_free_ptr) uint32_t *map = map_new(spec->chunks_count, &mask);
    if (!map || !allocate_chunks(spec, positions, plan))
        return no_memory(spec, err);
    plan->occurrences_count = spec->chunks_count;
    for (size_t i = 0; i < spec->chunks_count; i++) {
        uint32_t rows = spec->end[i] - spec->begin[i], fresh = (uint32_t)plan->uniques_count;
        uint32_t unique = map_add(map, mask, &plan->unique_keys[0].digest, &spec->keys[i].digest, fresh);
        const int32_t *first = spec->ids + ids + spec->begin[i] + 1;
        ids += spec->tokens[i];
        if (unique == NONE) {
            unique = fresh;
            plan->uniques_count++;
            plan->unique_keys[unique] = spec->keys[i];
            plan->unique_rows[unique] = rows;
            plan->unique_labels[unique] = labels;
            memcpy(plan->labels + labels, first, rows * sizeof *first);
            labels += rows;
        } else if (plan->unique_rows[unique] != rows ||
                   memcmp(plan->labels + plan->unique_labels[unique], first, rows * sizeof *first) != 0) {
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "chunk %zu has the key of an earlier chunk and other rows or ids", i);
        }
        add_occurrence(plan, unique, (uint32_t)i, rows);
    }
    return ASSAY_OK;
}

static enum assay_status plan_records(const struct assay_score_spec *spec, struct assay_score_plan *plan,
                                      struct assay_err *err)
{
    size_t count = plan->uniques_count * plan->sources_count;
    if (count > UINT32_MAX / 4)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a job needs at most %u records, found %zu", UINT32_MAX / 4,
                             count);
    plan->record_keys = calloc(count, sizeof *plan->record_keys);
    plan->record_map = map_new(count, &plan->record_map_mask);
    if (!plan->record_keys || !plan->record_map)
        return no_memory(spec, err);
    for (size_t i = 0; i < count; i++) {
        plan->record_keys[i] = assay_record_key_of(&plan->unique_keys[i / plan->sources_count],
                                                   &plan->sources[i % plan->sources_count].variant, spec->dtype);
        map_add(plan->record_map, plan->record_map_mask, &plan->record_keys[0].digest, &plan->record_keys[i].digest,
                (uint32_t)i);
    }
    return ASSAY_OK;
}

enum assay_status assay_score_plan_make(const struct assay_score_spec *spec, struct assay_score_plan *ret,
                                        struct assay_err *err)
{
    struct assay_score_plan plan = {0};
    uint64_t positions = 0;
    enum assay_status status = check_spec(spec, &positions, err);
    if (status == ASSAY_OK)
        status = plan_sources(spec, &plan, err);
    if (status == ASSAY_OK)
        status = plan_chunks(spec, positions, &plan, err);
    if (status == ASSAY_OK)
        status = plan_records(spec, &plan, err);
    if (status != ASSAY_OK) {
        assay_score_plan_release(&plan);
        return status;
    }
    *ret = plan;
    return ASSAY_OK;
}

void assay_score_plan_release(struct assay_score_plan *plan)
{
    free(plan->sources);
    free(plan->pair_sources);
    free(plan->unique_keys);
    free(plan->unique_rows);
    free(plan->unique_labels);
    free(plan->unique_first);
    free(plan->unique_occurrences);
    free(plan->labels);
    free(plan->occurrence_next);
    free(plan->offsets);
    free(plan->sizes);
    free(plan->record_keys);
    free(plan->record_map);
    *plan = (struct assay_score_plan){0};
}

bool assay_score_plan_find(const struct assay_score_plan *plan, const struct assay_record_key *key, uint32_t *unique,
                           uint32_t *source)
{
    size_t at = map_start(&key->digest, plan->record_map_mask);
    for (; plan->record_map[at]; at = (at + 1) & plan->record_map_mask) {
        uint32_t number = plan->record_map[at] - 1;
        if (assay_digest_equal(&plan->record_keys[number].digest, &key->digest)) {
            *unique = (uint32_t)(number / plan->sources_count);
            *source = (uint32_t)(number % plan->sources_count);
            return true;
        }
    }
    return false;
}
