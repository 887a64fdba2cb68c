#include "services/inference/metrics.h"

static const struct assay_metric_row rows[] = {
    {.name = "assay_worker_chunks_total",
     .help = "Chunks whose forward pass ran, whatever became of their records.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_worker_tokens_total", .help = "Tokens of these chunks.", .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_worker_records_sent_total",
     .help = "Records that the evaluator acknowledged.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_worker_compute_seconds_total",
     .help = "Wall time of forward passes; its rate is how busy the worker is.",
     .type = ASSAY_METRIC_COUNTER,
     .scale = 1e-6},
    {.name = "assay_worker_models_loaded_total",
     .help = "Artifacts loaded; one that is loaded again counts again.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_worker_models_unloaded_total",
     .help = "Of these, those that made room for others.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_worker_models_resident", .help = "Models in memory.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_worker_models_resident_bytes",
     .help = "Memory that they take, as packed.",
     .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_worker_models_budget_bytes", .help = "Memory that they may take.", .type = ASSAY_METRIC_GAUGE},
    {.name = "assay_worker_batches_waiting",
     .help = "Batches that were computed and are on their way to the evaluator; 2 holds the worker back.",
     .type = ASSAY_METRIC_GAUGE},
};
enum { CHUNKS, TOKENS, RECORDS, COMPUTE, LOADED, UNLOADED, RESIDENT, RESIDENT_BYTES, BUDGET_BYTES, BATCHES, ROWS };
_Static_assert(ROWS == ASSAY_COUNT(rows), "one row each");

static struct {
    struct assay_series *series[ROWS];
    void (*look)(void *arg, struct assay_worker_counts *ret);
    void *arg;
} worker;

static void collect(void *arg)
{
    struct assay_worker_counts counts;
    (void)arg;
    worker.look(worker.arg, &counts);
    assay_counter_set(worker.series[CHUNKS], counts.chunks_run);
    assay_counter_set(worker.series[TOKENS], counts.tokens_run);
    assay_counter_set(worker.series[RECORDS], counts.records_sent);
    assay_counter_set(worker.series[COMPUTE], counts.compute_us);
    assay_counter_set(worker.series[LOADED], counts.models.loads);
    assay_counter_set(worker.series[UNLOADED], counts.models.unloads);
    assay_gauge_set(worker.series[RESIDENT], (double)counts.models.resident);
    assay_gauge_set(worker.series[RESIDENT_BYTES], (double)counts.models.bytes);
    assay_gauge_set(worker.series[BUDGET_BYTES], (double)counts.models.bytes_max);
    assay_gauge_set(worker.series[BATCHES], (double)counts.batches_waiting);
}

void assay_worker_measure(struct assay_metrics *metrics, void (*look)(void *arg, struct assay_worker_counts *ret),
                          void *arg)
{
    worker.look = look;
    worker.arg = arg;
    for (size_t i = 0; i < ROWS; i++)
        worker.series[i] = assay_metric_only(assay_metrics_add(metrics, &rows[i]));
    assay_metrics_collect(metrics, collect, NULL);
}
