#include "services/evaluator/score_merge.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "services/evaluator/score_figures.h"

/* Figures of one chunk and pair from records of f32, kept until the end: they count in the order of the job. */
struct measured {
    uint32_t unique;
    struct assay_position *positions;
};

struct measured_list {
    struct measured at[SCORE_DTYPE_CHUNKS_MAX]; /* by unique */
    size_t count;
};

struct merge;

struct part {
    struct merge *merge;
    const struct assay_score_share *share;
    struct assay_score_spec spec;
    struct assay_chunk_key *keys;
    uint32_t *tokens, *begin, *end;
    int32_t *ids;
    size_t ids_capacity;
    pthread_t thread;
    bool started, ended;
    uint64_t compute_us;
    enum assay_status status;
    struct assay_err err;
};

struct merge {
    const struct assay_score_spec *spec;
    const struct assay_score_sink *sink;
    struct assay_score_plan plan;
    struct part *parts;
    size_t parts_count;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool cancelled; /* the shares are to end */
    struct score_figures figures;
    uint64_t *filled;                               /* by unique: pairs that are there, by bit */
    uint8_t *cached;                                /* by unique: all of them were in the store */
    char (*numerics)[ASSAY_NUMERICS_BYTES_MAX + 1]; /* by source; "" = not told yet */
    struct measured_list *measured;                 /* by pair */
    struct assay_score_lost *lost;
    size_t lost_count, lost_capacity;
    uint64_t chunks_done, chunks_cached, tokens_scored;
    bool news;
    int64_t sent_at_ms;
};

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a job over several evaluators");
}

/* --- the parts --- */

static bool allocate_part(struct merge *merge, struct part *part, size_t chunks, size_t ids)
{
    part->merge = merge;
    part->ids_capacity = ids;
    part->keys = calloc(chunks + 1, sizeof *part->keys);
    part->tokens = calloc(chunks + 1, sizeof *part->tokens);
    part->begin = calloc(chunks + 1, sizeof *part->begin);
    part->end = calloc(chunks + 1, sizeof *part->end);
    part->ids = calloc(ids + 1, sizeof *part->ids);
    return part->keys && part->tokens && part->begin && part->end && part->ids;
}

static void add_chunk(struct part *part, const struct assay_score_spec *spec, size_t chunk, const int32_t *ids)
{
    size_t at = part->spec.chunks_count++;
    part->keys[at] = spec->keys[chunk];
    part->tokens[at] = spec->tokens[chunk];
    part->begin[at] = spec->begin[chunk];
    part->end[at] = spec->end[chunk];
    memcpy(part->ids + part->spec.ids_count, ids, spec->tokens[chunk] * sizeof *ids);
    part->spec.ids_count += spec->tokens[chunk];
}

/* Which part each chunk belongs to; UINT32_MAX for a chunk that stood before. */
static uint32_t *assign(const struct merge *merge, size_t (*owner)(void *arg, const struct assay_chunk_key *chunk),
                        void *arg)
{
    const struct assay_score_plan *plan = &merge->plan;
    uint32_t *parts = malloc((plan->occurrences_count + 1) * sizeof *parts);
    for (size_t i = 0; parts && i < plan->occurrences_count; i++)
        parts[i] = UINT32_MAX;
    for (size_t unique = 0; parts && unique < plan->uniques_count; unique++) {
        uint32_t first = plan->unique_first[unique]; /* the last occurrence leads to the ones before */
        for (uint32_t at = first; at != UINT32_MAX; at = plan->occurrence_next[at])
            first = ASSAY_MIN(first, at);
        parts[first] = (uint32_t)owner(arg, &plan->unique_keys[unique]);
    }
    return parts;
}

static enum assay_status make_parts(struct merge *merge, const struct assay_score_share *shares, size_t count,
                                    size_t (*owner)(void *arg, const struct assay_chunk_key *chunk), void *arg,
                                    struct assay_err *err)
{
    const struct assay_score_spec *spec = merge->spec;
    assay_auto(assay_free_ptr) uint32_t *assigned = assign(merge, owner, arg);
    assay_auto(assay_free_ptr) size_t *sizes = calloc(2 * count + 1, sizeof *sizes);
    merge->parts = calloc(count + 1, sizeof *merge->parts);
    if (!assigned || !sizes || !merge->parts)
        return no_memory(err);
    merge->parts_count = count;
    for (size_t i = 0; i < spec->chunks_count; i++) {
        if (assigned[i] == UINT32_MAX)
            continue;
        sizes[2 * assigned[i]]++;
        sizes[2 * assigned[i] + 1] += spec->tokens[i];
    }
    for (size_t i = 0; i < count; i++) {
        if (!allocate_part(merge, &merge->parts[i], sizes[2 * i], sizes[2 * i + 1]))
            return no_memory(err);
        merge->parts[i].share = &shares[i];
    }
    const int32_t *ids = spec->ids;
    for (size_t i = 0; i < spec->chunks_count; ids += spec->tokens[i++])
        if (assigned[i] != UINT32_MAX)
            add_chunk(&merge->parts[assigned[i]], spec, i, ids);
    for (size_t i = 0; i < count; i++) {
        struct part *part = &merge->parts[i];
        struct assay_score_spec own = part->spec;
        part->spec = *spec;
        part->spec.chunks_count = own.chunks_count;
        part->spec.ids_count = own.ids_count;
        part->spec.keys = part->keys;
        part->spec.tokens = part->tokens;
        part->spec.begin = part->begin;
        part->spec.end = part->end;
        part->spec.ids = part->ids;
    }
    return ASSAY_OK;
}

/* --- what the shares tell; each on its own thread --- */

static bool part_cancelled(void *arg)
{
    struct merge *merge = ((struct part *)arg)->merge;
    pthread_mutex_lock(&merge->lock);
    bool cancelled = merge->cancelled;
    pthread_mutex_unlock(&merge->lock);
    return cancelled;
}

/* Locked. */
static bool add_lost(struct merge *merge, const struct assay_score_progress *progress)
{
    size_t wanted = merge->lost_count + progress->lost_count;
    if (wanted > merge->lost_capacity) {
        struct assay_score_lost *lost = realloc(merge->lost, 2 * wanted * sizeof *lost);
        if (!lost)
            return false;
        merge->lost = lost;
        merge->lost_capacity = 2 * wanted;
    }
    if (progress->lost_count > 0)
        memcpy(merge->lost + merge->lost_count, progress->lost, progress->lost_count * sizeof *merge->lost);
    merge->lost_count = wanted;
    return true;
}

/* Locked: the numerics of each source, as the share scored it. */
static enum assay_status take_numerics(struct merge *merge, const struct assay_score_progress *progress,
                                       struct assay_err *err)
{
    for (size_t i = 0; i < progress->results_count && i <= merge->spec->variants_count; i++) {
        uint32_t source = i == 0 ? 0 : merge->plan.pair_sources[i - 1];
        const char *told = progress->results[i].numerics;
        char *known = merge->numerics[source];
        if (!known[0])
            strncpy(known, told, ASSAY_NUMERICS_BYTES_MAX);
        else if (strcmp(known, told) != 0)
            return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                                 "the evaluators have records of %.80s with different numerics ids: %.60s and %.60s",
                                 merge->plan.sources[source].label, known, told);
    }
    return ASSAY_OK;
}

static enum assay_status part_progress(void *arg, const struct assay_score_progress *progress, struct assay_err *err)
{
    struct part *part = arg;
    struct merge *merge = part->merge;
    pthread_mutex_lock(&merge->lock);
    part->compute_us = progress->compute_us;
    enum assay_status status = add_lost(merge, progress) ? take_numerics(merge, progress, err) : no_memory(err);
    merge->news = true;
    pthread_cond_signal(&merge->changed);
    pthread_mutex_unlock(&merge->lock);
    return status;
}

/* Locked. Keeps the first ones by unique. */
static bool keep_measured(struct measured_list *list, uint32_t unique, const struct assay_score_samples *samples)
{
    size_t at = 0;
    while (at < list->count && list->at[at].unique < unique)
        at++;
    if (at == SCORE_DTYPE_CHUNKS_MAX || (at < list->count && list->at[at].unique == unique))
        return true;
    struct assay_position *copy = malloc(samples->rows * sizeof *copy);
    if (!copy)
        return false;
    memcpy(copy, samples->positions, samples->rows * sizeof *copy);
    if (list->count == SCORE_DTYPE_CHUNKS_MAX)
        free(list->at[--list->count].positions);
    memmove(&list->at[at + 1], &list->at[at], (list->count - at) * sizeof list->at[0]);
    list->at[at] = (struct measured){unique, copy};
    list->count++;
    return true;
}

/* Locked. */
static void fill_chunk(struct merge *merge, uint32_t unique, const struct assay_score_samples *samples)
{
    uint64_t all = merge->plan.pairs_count == 64 ? UINT64_MAX : ((uint64_t)1 << merge->plan.pairs_count) - 1;
    uint64_t before = merge->filled[unique];
    score_figures_fill(&merge->figures, &merge->plan, unique, samples->first_pair, samples->pairs, samples->positions);
    for (size_t i = 0; i < samples->pairs; i++)
        merge->filled[unique] |= (uint64_t)1 << (samples->first_pair + i);
    merge->cached[unique] = (before == 0 || merge->cached[unique]) && samples->cached;
    if (before == all || merge->filled[unique] != all)
        return;
    uint32_t occurrences = merge->plan.unique_occurrences[unique];
    merge->chunks_done += occurrences;
    merge->chunks_cached += merge->cached[unique] ? occurrences : 0;
    merge->tokens_scored += (uint64_t)occurrences * samples->rows;
}

static enum assay_status part_samples(void *arg, const struct assay_score_samples *samples, struct assay_err *err)
{
    struct merge *merge = ((struct part *)arg)->merge;
    const struct assay_score_plan *plan = &merge->plan;
    struct assay_record_key key = assay_record_key_of(&samples->chunk, &plan->sources[0].variant, merge->spec->dtype);
    uint32_t unique, source;
    if (!assay_score_plan_find(plan, &key, &unique, &source) || plan->unique_rows[unique] != samples->rows ||
        samples->pairs < 1 || samples->first_pair >= plan->pairs_count ||
        samples->pairs > plan->pairs_count - samples->first_pair)
        return assay_err_set(err, ASSAY_INTERNAL, "an evaluator told figures that nobody asked it for");
    bool kept = true;
    pthread_mutex_lock(&merge->lock);
    if (samples->from_f32)
        kept = keep_measured(&merge->measured[samples->first_pair], unique, samples);
    else
        fill_chunk(merge, unique, samples);
    merge->news = true;
    pthread_cond_signal(&merge->changed);
    pthread_mutex_unlock(&merge->lock);
    return kept ? ASSAY_OK : no_memory(err);
}

static void *part_main(void *arg)
{
    struct part *part = arg;
    struct merge *merge = part->merge;
    const struct assay_score_sink sink = {part, part_cancelled, part_progress, part_samples};
    enum assay_status status = part->share->run(part->share->arg, &part->spec, &sink, &part->err);
    pthread_mutex_lock(&merge->lock);
    part->status = status;
    part->ended = true;
    pthread_cond_signal(&merge->changed);
    pthread_mutex_unlock(&merge->lock);
    return NULL;
}

/* --- the job --- */

static enum assay_status allocate(struct merge *merge, struct assay_err *err)
{
    const struct assay_score_plan *plan = &merge->plan;
    merge->filled = calloc(plan->uniques_count, sizeof *merge->filled);
    merge->cached = calloc(plan->uniques_count, 1);
    merge->numerics = calloc(plan->sources_count, sizeof *merge->numerics);
    merge->measured = calloc(plan->pairs_count, sizeof *merge->measured);
    if (!merge->filled || !merge->cached || !merge->numerics || !merge->measured)
        return no_memory(err);
    return score_figures_init(&merge->figures, plan, err);
}

static enum assay_status start_parts(struct merge *merge, struct assay_err *err)
{
    for (size_t i = 0; i < merge->parts_count; i++) {
        struct part *part = &merge->parts[i];
        if (part->spec.chunks_count == 0) {
            part->ended = true;
            continue;
        }
        int failed = pthread_create(&part->thread, NULL, part_main, part);
        if (failed)
            return assay_err_errno(err, failed, "cannot start a thread for a share of a job");
        part->started = true;
    }
    return ASSAY_OK;
}

/* Locked. The first failure ends the job. */
static enum assay_status look_at_parts(const struct merge *merge, bool *ret_ended, struct assay_err *err)
{
    bool ended = true;
    for (size_t i = 0; i < merge->parts_count; i++) {
        const struct part *part = &merge->parts[i];
        if (part->ended && part->status != ASSAY_OK)
            return assay_err_set(err, part->status, "%s", part->err.text);
        ended = ended && part->ended;
    }
    *ret_ended = ended;
    return ASSAY_OK;
}

static enum assay_status tell(struct merge *merge, const struct assay_score_result *results, size_t results_count,
                              struct assay_err *err)
{
    pthread_mutex_lock(&merge->lock);
    struct assay_score_lost *lost = assay_steal(&merge->lost);
    struct assay_score_progress progress = {.chunks_done = merge->chunks_done,
                                            .chunks_total = merge->plan.occurrences_count,
                                            .chunks_cached = merge->chunks_cached,
                                            .tokens_scored = merge->tokens_scored,
                                            .lost = lost,
                                            .lost_count = ASSAY_MIN(merge->lost_count, (size_t)ASSAY_SCORE_LOST_MAX),
                                            .results = results,
                                            .results_count = results_count};
    for (size_t i = 0; i < merge->parts_count; i++)
        progress.compute_us += merge->parts[i].compute_us;
    merge->lost_count = merge->lost_capacity = 0;
    merge->news = false;
    pthread_mutex_unlock(&merge->lock);
    enum assay_status status = merge->sink->send(merge->sink->arg, &progress, err);
    merge->sent_at_ms = assay_now_ms();
    free(lost);
    return status;
}

static enum assay_status send_figures(void *arg, const struct assay_score_result *results, size_t count,
                                      struct assay_err *err)
{
    return tell(arg, results, count, err);
}

/* Until all shares have ended well. */
static enum assay_status follow(struct merge *merge, struct assay_err *err)
{
    for (bool ended = false; !ended;) {
        if (merge->sink->cancelled(merge->sink->arg))
            return assay_err_set(err, ASSAY_CANCELLED, "scoring was cancelled");
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += ASSAY_SCORE_PROGRESS_MS / 2 * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_mutex_lock(&merge->lock);
        enum assay_status status = look_at_parts(merge, &ended, err);
        if (status == ASSAY_OK && !ended)
            pthread_cond_timedwait(&merge->changed, &merge->lock, &until);
        bool due = merge->news && assay_now_ms() - merge->sent_at_ms >= ASSAY_SCORE_PROGRESS_MS;
        pthread_mutex_unlock(&merge->lock);
        if (status == ASSAY_OK && due && !ended)
            status = tell(merge, NULL, 0, err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static struct assay_dtype_error total_error(const struct merge *merge, size_t pair)
{
    struct score_dtype_tally tally = {0};
    const struct measured_list *list = &merge->measured[pair];
    for (size_t i = 0; i < list->count; i++)
        score_dtype_add(&tally, &merge->figures, &merge->plan, pair, list->at[i].unique, list->at[i].positions);
    return score_dtype_total(&tally);
}

static enum assay_status send_results(struct merge *merge, struct assay_err *err)
{
    size_t variants = merge->spec->variants_count;
    assay_auto(assay_free_ptr) const char **numerics = calloc(merge->plan.sources_count, sizeof *numerics);
    assay_auto(assay_free_ptr) struct assay_dtype_error *errors = calloc(variants + 1, sizeof *errors);
    if (!numerics || !errors)
        return no_memory(err);
    if (merge->chunks_done != merge->plan.occurrences_count)
        return assay_err_set(err, ASSAY_INTERNAL, "the evaluators scored %llu of %zu chunks",
                             (unsigned long long)merge->chunks_done, merge->plan.occurrences_count);
    for (size_t i = 0; i < merge->plan.sources_count; i++)
        numerics[i] = merge->numerics[i];
    bool half = merge->spec->dtype == ASSAY_RECORD_F16;
    for (size_t i = 0; half && i < variants; i++)
        errors[i] = total_error(merge, i);
    const struct score_ending ending = {&merge->plan,       &merge->figures,      numerics,
                                        merge->spec->dtype, half ? errors : NULL, variants};
    return score_figures_send(&ending, send_figures, merge, err);
}

static void release(struct merge *merge)
{
    pthread_mutex_lock(&merge->lock);
    merge->cancelled = true;
    pthread_mutex_unlock(&merge->lock);
    for (size_t i = 0; merge->parts && i < merge->parts_count; i++) {
        struct part *part = &merge->parts[i];
        if (part->started)
            pthread_join(part->thread, NULL);
        free(part->keys);
        free(part->tokens);
        free(part->begin);
        free(part->end);
        free(part->ids);
    }
    for (size_t i = 0; merge->measured && i < merge->plan.pairs_count; i++)
        for (size_t j = 0; j < merge->measured[i].count; j++)
            free(merge->measured[i].at[j].positions);
    free(merge->measured);
    free(merge->parts);
    free(merge->lost);
    free(merge->numerics);
    free(merge->cached);
    free(merge->filled);
    score_figures_release(&merge->figures);
    assay_score_plan_release(&merge->plan);
    pthread_cond_destroy(&merge->changed);
    pthread_mutex_destroy(&merge->lock);
}

enum assay_status assay_score_merge(const struct assay_score_spec *spec, const struct assay_score_share *shares,
                                    size_t shares_count,
                                    size_t (*owner)(void *arg, const struct assay_chunk_key *chunk), void *arg,
                                    const struct assay_score_sink *sink, struct assay_err *err)
{
    struct merge merge = {.spec = spec, .sink = sink, .sent_at_ms = INT64_MIN / 2, .news = true};
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&merge.changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&merge.lock, NULL);
    enum assay_status status = assay_score_plan_make(spec, &merge.plan, err);
    if (status == ASSAY_OK)
        status = allocate(&merge, err);
    if (status == ASSAY_OK)
        status = make_parts(&merge, shares, shares_count, owner, arg, err);
    if (status == ASSAY_OK)
        status = start_parts(&merge, err);
    if (status == ASSAY_OK)
        status = follow(&merge, err);
    if (status == ASSAY_OK)
        status = send_results(&merge, err);
    release(&merge);
    return status;
}
