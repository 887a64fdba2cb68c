#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "services/evaluator/score_internal.h"

static_assert(ASSAY_JOB_VARIANTS_MAX <= 64, "pairs are bits of a mask");

/* A chunk on its way through a batch. */
struct work {
    uint32_t unique;
    size_t rows;
    uint64_t missing;                 /* pairs without a sample, by bit */
    bool lost;                        /* a record is not there after all */
    bool ready;                       /* all positions are filled */
    struct assay_position *positions; /* [pair][row] */
    float **hidden;                   /* by source; NULL where no pair needs it */
};

static enum assay_status no_memory(struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for scoring a chunk");
}

static void release_work(const struct score_job *job, struct work *work)
{
    for (size_t s = 0; work->hidden && s < job->plan.sources_count; s++)
        free(work->hidden[s]);
    free(work->hidden);
    free(work->positions);
}

static enum assay_status init_work(const struct score_job *job, uint32_t unique, struct work *work,
                                   struct assay_err *err)
{
    work->unique = unique;
    work->rows = job->plan.unique_rows[unique];
    work->positions = calloc(job->plan.pairs_count * work->rows, sizeof *work->positions);
    work->hidden = calloc(job->plan.sources_count, sizeof *work->hidden);
    return work->positions && work->hidden ? ASSAY_OK : no_memory(err);
}

/* --- samples --- */

static struct assay_record_key sample_key(const struct score_job *job, uint32_t unique, size_t pair)
{
    uint32_t source = job->plan.pair_sources[pair];
    struct assay_records *records = job->deps->records;
    return assay_sample_key_of(
        score_record_key(job, unique, 0), assay_records_numerics(records, assay_join_numerics(job->join, 0)),
        score_record_key(job, unique, source), assay_records_numerics(records, assay_join_numerics(job->join, source)));
}

/* A sample that is absent or broken is computed; only a store that does not answer is an error. */
static enum assay_status find_samples(const struct score_job *job, struct work *work, struct assay_err *err)
{
    for (size_t pair = 0; pair < job->plan.pairs_count; pair++) {
        struct assay_record_key key = sample_key(job, work->unique, pair);
        assay_auto(assay_free_ptr) void *bytes = NULL;
        size_t len;
        enum assay_status status = assay_blob_get(job->deps->records, &key, &bytes, &len, err);
        if (status != ASSAY_OK && status != ASSAY_NOT_FOUND && status != ASSAY_DATA_LOSS)
            return status;
        if (status != ASSAY_OK || !assay_sample_decode(bytes, len, work->positions + pair * work->rows, work->rows))
            work->missing |= (uint64_t)1 << pair;
    }
    work->ready = work->missing == 0;
    return ASSAY_OK;
}

/* Samples save work later; a full disk must not stop the work at hand. */
static enum assay_status keep_samples(struct score_job *job, const struct work *works, size_t count,
                                      struct assay_err *err)
{
    size_t blobs_count = 0, capacity = count * job->plan.pairs_count;
    struct assay_blob *blobs = calloc(capacity, sizeof *blobs);
    enum assay_status status = blobs ? ASSAY_OK : no_memory(err);
    for (size_t i = 0; i < capacity && status == ASSAY_OK; i++) {
        const struct work *work = &works[i / job->plan.pairs_count];
        size_t pair = i % job->plan.pairs_count;
        if (!work->ready || !(work->missing >> pair & 1))
            continue;
        void *bytes;
        status =
            assay_sample_encode(work->positions + pair * work->rows, work->rows, &bytes, &blobs[blobs_count].len, err);
        if (status != ASSAY_OK)
            break;
        blobs[blobs_count].key = sample_key(job, work->unique, pair);
        blobs[blobs_count].chunk = job->plan.unique_keys[work->unique];
        blobs[blobs_count++].bytes = bytes;
    }
    struct assay_err why = ASSAY_ERR_INIT;
    if (status == ASSAY_OK && blobs_count > 0 &&
        assay_blobs_put(job->deps->records, blobs, blobs_count, &why) != ASSAY_OK && !job->warned) {
        job->warned = true;
        assay_log(ASSAY_LOG_WARN, "samples are not kept reason=\"%s\"", why.text);
    }
    for (size_t i = 0; i < blobs_count; i++)
        free((void *)blobs[i].bytes);
    free(blobs);
    return status;
}

/* --- records --- */

enum assay_status score_need_head(struct score_job *job, uint32_t source, struct assay_err *err)
{
    const struct assay_score_side *side = &job->plan.sources[source];
    if (job->heads[source])
        return ASSAY_OK;
    enum assay_status status = assay_heads_get(job->deps->heads, side->artifact_dir, &job->heads[source], err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "the head of %.80s", side->label);
    return status;
}

/* A record of the wrong shape was made by a worker that is wrong; another one may do better. */
static enum assay_status reject(struct score_job *job, struct work *work, uint32_t source,
                                const struct assay_record_data *data, struct assay_err *err)
{
    char hex[ASSAY_DIGEST_HEX];
    size_t number = work->unique * job->plan.sources_count + source;
    assay_err_set(err, ASSAY_DATA_LOSS,
                  "the record of chunk %s for %.80s has the shape [%llu, %llu], wanted [%zu, %zu]",
                  assay_digest_hex(&job->plan.unique_keys[work->unique].digest, hex), job->plan.sources[source].label,
                  (unsigned long long)data->rows, (unsigned long long)data->cols, work->rows,
                  assay_head_hidden(job->heads[source]));
    if (++job->wrong[number] > ASSAY_SCORE_WRONG_RECORDS_MAX)
        return ASSAY_DATA_LOSS;
    assay_log(ASSAY_LOG_WARN, "record dropped reason=\"%s\"", err ? err->text : "");
    return assay_records_drop(job->deps->records, score_record_key(job, work->unique, source),
                              assay_join_numerics(job->join, source), err);
}

static enum assay_status read_record(struct score_job *job, struct work *work, uint32_t source, struct assay_err *err)
{
    struct assay_record_data data;
    if (work->hidden[source] || work->lost)
        return ASSAY_OK;
    enum assay_status status = score_need_head(job, source, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_records_get(job->deps->records, score_record_key(job, work->unique, source),
                               assay_join_numerics(job->join, source), &data, err);
    if (status == ASSAY_OK) {
        if (data.rows == work->rows && data.cols == assay_head_hidden(job->heads[source])) {
            work->hidden[source] = data.hidden;
            return ASSAY_OK;
        }
        status = reject(job, work, source, &data, err);
        free(data.hidden);
        if (status != ASSAY_OK)
            return status;
    } else if (status != ASSAY_DATA_LOSS && status != ASSAY_NOT_FOUND) {
        return status;
    }
    if (status == ASSAY_DATA_LOSS && err)
        assay_log(ASSAY_LOG_WARN, "record lost reason=\"%s\"", err->text);
    work->lost = true;
    assay_join_lost(job->join, work->unique, source);
    return ASSAY_OK;
}

static enum assay_status read_records(struct score_job *job, struct work *work, struct assay_err *err)
{
    enum assay_status status = work->ready ? ASSAY_OK : read_record(job, work, 0, err);
    for (size_t pair = 0; pair < job->plan.pairs_count && status == ASSAY_OK; pair++)
        if (work->missing >> pair & 1)
            status = read_record(job, work, job->plan.pair_sources[pair], err);
    return status;
}

/* --- scoring --- */

/* Chunks whose pairs are missing alike, as one matrix for each source. */
struct group {
    struct work *works[ASSAY_SCORE_BATCH_MAX];
    size_t count, rows;
    struct assay_scoring_side *sides; /* the reference, then the pairs that are missing */
    size_t sides_count;
    float **joined; /* by source; NULL when one chunk's own will do */
    int32_t *labels;
    struct assay_position *positions;
};

static void release_group(const struct score_job *job, struct group *group)
{
    for (size_t s = 0; group->joined && s < job->plan.sources_count; s++)
        free(group->joined[s]);
    free(group->joined);
    free(group->sides);
    free(group->labels);
    free(group->positions);
}

static enum assay_status add_side(const struct score_job *job, struct group *group, uint32_t source,
                                  struct assay_err *err)
{
    size_t cols = assay_head_hidden(job->heads[source]), done = 0;
    if (group->count > 1 && !group->joined[source]) {
        group->joined[source] = malloc(group->rows * cols * sizeof(float));
        if (!group->joined[source])
            return no_memory(err);
        for (size_t i = 0; i < group->count; i++) {
            size_t floats = group->works[i]->rows * cols;
            memcpy(group->joined[source] + done, group->works[i]->hidden[source], floats * sizeof(float));
            done += floats;
        }
    }
    const float *hidden = group->count > 1 ? group->joined[source] : group->works[0]->hidden[source];
    group->sides[group->sides_count++] = (struct assay_scoring_side){job->heads[source], hidden};
    return ASSAY_OK;
}

static enum assay_status fill_group(const struct score_job *job, struct group *group, struct assay_err *err)
{
    uint64_t missing = group->works[0]->missing;
    size_t pairs = (size_t)__builtin_popcountll(missing), done = 0;
    group->sides = calloc(pairs + 1, sizeof *group->sides);
    group->joined = calloc(job->plan.sources_count, sizeof *group->joined);
    group->labels = malloc(group->rows * sizeof *group->labels);
    group->positions = calloc(group->rows * pairs, sizeof *group->positions);
    if (!group->sides || !group->joined || !group->labels || !group->positions)
        return no_memory(err);
    for (size_t i = 0; i < group->count; i++) {
        const struct work *work = group->works[i];
        memcpy(group->labels + done, job->plan.labels + job->plan.unique_labels[work->unique],
               work->rows * sizeof *group->labels);
        done += work->rows;
    }
    enum assay_status status = add_side(job, group, 0, err);
    for (size_t pair = 0; pair < job->plan.pairs_count && status == ASSAY_OK; pair++)
        if (missing >> pair & 1)
            status = add_side(job, group, job->plan.pair_sources[pair], err);
    return status;
}

/* From [missing pair][row of the group] to [pair][row] of each chunk. */
static void spread(const struct score_job *job, struct group *group)
{
    const struct assay_position *from = group->positions;
    for (size_t pair = 0; pair < job->plan.pairs_count; pair++) {
        if (!(group->works[0]->missing >> pair & 1))
            continue;
        for (size_t i = 0; i < group->count; i++) {
            struct work *work = group->works[i];
            memcpy(work->positions + pair * work->rows, from, work->rows * sizeof *from);
            from += work->rows;
        }
    }
    for (size_t i = 0; i < group->count; i++)
        group->works[i]->ready = true;
}

static enum assay_status score_group(struct score_job *job, struct group *group, struct assay_err *err)
{
    enum assay_status status = fill_group(job, group, err);
    if (status != ASSAY_OK)
        return status;
    int64_t begin_us = assay_now_us();
    status = assay_score(job->deps->pool, &group->sides[0], group->sides + 1, group->sides_count - 1, group->labels,
                         group->rows, group->positions, err);
    job->compute_us += (uint64_t)(assay_now_us() - begin_us);
    if (status == ASSAY_OK)
        spread(job, group);
    return status;
}

static enum assay_status score_works(struct score_job *job, struct work *works, size_t count, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        if (works[i].ready || works[i].lost)
            continue;
        struct group group = {0};
        for (size_t j = i; j < count; j++) {
            if (works[j].ready || works[j].lost || works[j].missing != works[i].missing)
                continue;
            group.works[group.count++] = &works[j];
            group.rows += works[j].rows;
        }
        status = score_group(job, &group, err);
        release_group(job, &group);
    }
    return status;
}

/* --- the figures of a chunk --- */

static enum assay_status tell_figures(struct score_job *job, const struct work *work, struct assay_err *err)
{
    const struct assay_score_samples samples = {job->plan.unique_keys[work->unique],
                                                work->rows,
                                                0,
                                                job->plan.pairs_count,
                                                work->positions,
                                                work->missing == 0,
                                                false};
    if (job->sink->samples)
        return job->sink->samples(job->sink->arg, &samples, err);
    score_figures_fill(&job->figures, &job->plan, work->unique, 0, job->plan.pairs_count, work->positions);
    return ASSAY_OK;
}

static enum assay_status finish(struct score_job *job, const struct work *work, struct assay_err *err)
{
    if (!work->ready) {
        assay_join_returned(job->join, work->unique);
        return ASSAY_OK;
    }
    uint32_t occurrences = job->plan.unique_occurrences[work->unique];
    enum assay_status status = tell_figures(job, work, err);
    if (status != ASSAY_OK)
        return status;
    assay_join_scored(job->join, work->unique);
    job->chunks_done += occurrences;
    job->chunks_cached += work->missing == 0 ? occurrences : 0;
    job->tokens_scored += (uint64_t)occurrences * work->rows;
    for (size_t source = 0; source < job->plan.sources_count; source++) {
        size_t number = work->unique * job->plan.sources_count + source;
        if (job->pinned[number])
            assay_records_unpin(job->deps->records, &job->plan.record_keys[number]);
        job->pinned[number] = 0;
    }
    return ASSAY_OK;
}

enum assay_status score_batch(struct score_job *job, const uint32_t *uniques, size_t count, struct assay_err *err)
{
    struct work works[ASSAY_SCORE_BATCH_MAX] = {0};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++) {
        status = init_work(job, uniques[i], &works[i], err);
        if (status == ASSAY_OK)
            status = find_samples(job, &works[i], err);
        if (status == ASSAY_OK)
            status = read_records(job, &works[i], err);
    }
    if (status == ASSAY_OK)
        status = score_works(job, works, count, err);
    if (status == ASSAY_OK)
        status = keep_samples(job, works, count, err);
    for (size_t i = 0; i < count; i++) {
        if (status == ASSAY_OK)
            status = finish(job, &works[i], err);
        release_work(job, &works[i]);
    }
    return status;
}
