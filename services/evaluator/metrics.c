#include "services/evaluator/cache.h"
#include "services/evaluator/serve_internal.h"

static const struct assay_metric_row rows[] = {
    {.name = "assay_scored_chunks_total",
     .help = "Chunks scored; a chunk of several variants counts once.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_scored_tokens_total", .help = "Positions scored.", .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_scoring_seconds_total",
     .help = "Wall time of scoring: heads and reductions.",
     .type = ASSAY_METRIC_COUNTER,
     .scale = 1e-6},
    {.name = "assay_sample_lookups_total",
     .help = "Chunks scored, by outcome: hit, their samples were in the store; miss, the heads were applied.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"outcome"}},
    {.name = "assay_store_entries", .help = "Records and samples in the store.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_store_entry_bytes",
     .help = "Bytes of records and samples, as the quota counts them.",
     .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_store_quota_bytes", .help = "The most they may be.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_store_used_bytes", .help = "Pages of the store in use.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_writer_waiting_bytes",
     .help = "Bytes of records that wait to be written; past 256 MiB a Put is refused.",
     .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_scores_running", .help = "Jobs that are being scored.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_heads_loaded", .help = "Heads in memory.", .type = ASSAY_METRIC_GAUGE},
};
enum { CHUNKS, TOKENS, SECONDS, SAMPLES, ENTRIES, ENTRY_BYTES, QUOTA, USED, WAITING, SCORES, HEADS, ROWS };
_Static_assert(ROWS == ASSAY_COUNT(rows), "one row each");

static struct assay_metric *families[ROWS]; /* a process has one evaluator */

static void count(int row, uint64_t value)
{
    assay_counter_set(assay_metric_only(families[row]), value);
}

static void gauge(int row, uint64_t value)
{
    assay_gauge_set(assay_metric_only(families[row]), (double)value);
}

static void collect(void *arg)
{
    static const char *const outcomes[] = {"hit", "miss"};
    struct assay_evaluator *evaluator = arg;
    uint64_t cached = atomic_load(&evaluator->chunks_cached), scored = atomic_load(&evaluator->chunks_scored);
    count(CHUNKS, scored);
    count(TOKENS, atomic_load(&evaluator->tokens_scored));
    count(SECONDS, atomic_load(&evaluator->compute_us));
    assay_counter_set(assay_metric_series(families[SAMPLES], &outcomes[0]), cached);
    assay_counter_set(assay_metric_series(families[SAMPLES], &outcomes[1]), scored - ASSAY_MIN(cached, scored));
    gauge(ENTRIES, assay_records_count(evaluator->records));
    gauge(ENTRY_BYTES, assay_records_bytes(evaluator->records));
    gauge(QUOTA, assay_cache_quota_bytes(evaluator->records));
    gauge(USED, assay_cache_store_bytes(evaluator->records));
    gauge(WAITING, assay_writer_waiting_bytes(evaluator->writer));
    gauge(HEADS, assay_heads_count(evaluator->heads));
    pthread_mutex_lock(&evaluator->lock);
    uint64_t running = serve_scores_running(evaluator);
    pthread_mutex_unlock(&evaluator->lock);
    gauge(SCORES, running);
}

void assay_evaluator_measure(struct assay_evaluator *evaluator, struct assay_metrics *metrics)
{
    for (size_t i = 0; i < ROWS; i++)
        families[i] = assay_metrics_add(metrics, &rows[i]);
    assay_metrics_collect(metrics, collect, evaluator);
}
