/* One Score call: waits for records, scores what is complete, keeps samples, ends with the figures. */
#pragma once

#include "common/nn/scoring.h"
#include "common/stats/stats.h"
#include "services/evaluator/heads.h"
#include "services/evaluator/join.h"
#include "services/evaluator/records.h"
#include "services/evaluator/score_plan.h"

/* Between two messages of progress. */
#define ASSAY_SCORE_PROGRESS_MS 200
/* Chunks scored by one call at most, and how long one such call should take: cancellation is looked at in between. */
#define ASSAY_SCORE_BATCH_MAX 4
#define ASSAY_SCORE_BATCH_MS 500
/* How often one record may turn out to be wrong before the job fails. */
#define ASSAY_SCORE_WRONG_RECORDS_MAX 3
/* Records that have not come for so long are named as lost. Somebody may think that they are here (they were evicted
 * before the call, say) and wait with us for ever; who knows better loses nothing by looking again. */
#define ASSAY_SCORE_SILENCE_MS 30000
/* Lost records named in one message. */
#define ASSAY_SCORE_LOST_MAX 1024

struct assay_score_lost {
    struct assay_variant_id variant;
    struct assay_chunk_key chunk;
};

/* |KL from records of f16 - KL from records of f32|, by position. */
struct assay_dtype_error {
    double mean_nats, max_nats;
    double relative; /* mean over the mean KL from f32; NAN when that is 0 */
    uint64_t n;      /* positions; 0: not measured, the others mean nothing */
};

/* The figures of one variant, or of the reference, which has perplexity and mean_nll only. */
struct assay_score_result {
    struct assay_variant_id variant;
    const char *numerics;
    bool is_reference;
    bool is_share; /* nothing but variant, numerics and dtype is set */
    struct assay_pair_summary pair;
    const double *chunk_kl; /* by chunk, in order; NULL for the reference */
    size_t chunks_count;
    enum assay_record_dtype dtype;      /* of the records that were scored */
    struct assay_dtype_error f16_error; /* when dtype is F16; not for the reference */
};

struct assay_score_progress {
    uint64_t chunks_done, chunks_total, chunks_cached;
    uint64_t tokens_scored;
    uint64_t compute_us;
    const struct assay_score_lost *lost;
    size_t lost_count;
    const struct assay_score_result *results; /* at the end: the reference, then the variants in order */
    size_t results_count;
};

/* The figures by position of one chunk, pair by pair. */
struct assay_score_samples {
    struct assay_chunk_key chunk;
    size_t rows, first_pair, pairs;
    const struct assay_position *positions; /* [pairs][rows] */
    bool cached;                            /* all were in the store */
    bool from_f32;                          /* of records of f32, to measure what f16 costs; one pair */
};

struct assay_score_sink {
    void *arg;
    bool (*cancelled)(void *arg);
    /* May wait. CANCELLED: nobody wants more. */
    enum assay_status (*send)(void *arg, const struct assay_score_progress *progress, struct assay_err *err);
    /* NULL: the figures are wanted. Else the job is a share of a larger one: it tells the figures by position of each
     * chunk as they are found, again when a chunk is scored again, and its results at the end name variants and
     * numerics only. May wait, as send. */
    enum assay_status (*samples)(void *arg, const struct assay_score_samples *samples, struct assay_err *err);
};

struct assay_score_deps {
    struct assay_records *records;
    struct assay_heads *heads;
    struct assay_pool *pool;
    int64_t silence_ms; /* 0: ASSAY_SCORE_SILENCE_MS */
};

/* Runs on the calling thread until it is done. CANCELLED when the sink says so; INVALID_ARGUMENT, NOT_FOUND and so on
 * as heads and assay_score have them; DATA_LOSS: a worker's records of one chunk were wrong again and again;
 * FAILED_PRECONDITION: workers of several numerics ids took turns. */
enum assay_status assay_score_run(const struct assay_score_deps *deps, const struct assay_score_spec *spec,
                                  const struct assay_score_sink *sink, struct assay_err *err) ASSAY_MUST_USE;
