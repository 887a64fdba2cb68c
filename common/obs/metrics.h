/* Counters, gauges and histograms of a process, and their text for Prometheus.
 *
 * A family is a metric's name with its type and labels; a series is a family with values for the labels. Families and
 * series live as long as the registry. Updates are atomic operations without a lock; any thread may update, look up and
 * print at any time. Counters and histograms count whole numbers (microseconds, bytes); `scale` turns them into the
 * base unit when they are printed, so that no precision is lost over years. */
#pragma once

#include "common/base/buf.h"

enum assay_metric_type { ASSAY_METRIC_COUNTER, ASSAY_METRIC_GAUGE, ASSAY_METRIC_HISTOGRAM };

#define ASSAY_METRIC_LABELS_MAX 3
#define ASSAY_METRIC_BUCKETS_MAX 20
/* Bytes of a label's value; a longer one is cut. */
#define ASSAY_METRIC_VALUE_BYTES_MAX 95
/* Series of a family that does not say otherwise. Past its most, a family counts what is new under the value "other"
 * for every label: what a peer sends must not grow the registry without bound. */
#define ASSAY_METRIC_SERIES_DEFAULT 128
#define ASSAY_METRICS_FAMILIES_MAX 128

/* What a family is; the strings and buckets outlive the registry. */
struct assay_metric_row {
    const char *name; /* base unit last: _seconds, _bytes; counters end with _total */
    const char *help;
    enum assay_metric_type type;
    double scale;                                    /* printed = counted x scale; 0 means 1. Not for gauges */
    const char *labels[ASSAY_METRIC_LABELS_MAX + 1]; /* NULL behind the last */
    const uint64_t *buckets;                         /* HISTOGRAM: upper bounds as counted, ascending */
    size_t buckets_count;
    size_t series_max; /* 0: ASSAY_METRIC_SERIES_DEFAULT */
};

/* 100 us to 100 s, for a row with scale 1e-6. */
extern const uint64_t assay_metric_latency_us[];
#define ASSAY_METRIC_LATENCY_COUNT 13

struct assay_metrics;
struct assay_metric;
struct assay_series;

struct assay_metrics *assay_metrics_new(void);          /* NULL when out of memory */
void assay_metrics_free(struct assay_metrics *metrics); /* nobody updates any more; NULL is fine */

/* The family of a row. A row that breaks the format's rules, or a name that is taken, is a bug. NULL when out of
 * memory; families and series that are NULL take updates and print nothing. */
struct assay_metric *assay_metrics_add(struct assay_metrics *metrics, const struct assay_metric_row *row);

/* The series with these values, one for each label in the row's order; NULL stands for "". The pointer may be kept. */
struct assay_series *assay_metric_series(struct assay_metric *metric, const char *const *values);
/* The series of a family without labels. */
struct assay_series *assay_metric_only(struct assay_metric *metric);

void assay_counter_add(struct assay_series *series, uint64_t count);
/* For what is counted elsewhere and never goes down. */
void assay_counter_set(struct assay_series *series, uint64_t count);
/* Gauges are printed once they have been set. */
void assay_gauge_set(struct assay_series *series, double value);
void assay_gauge_add(struct assay_series *series, double value);
void assay_gauge_clear(struct assay_series *series); /* missing until it is set again */
/* All gauges of a family that were set become 0: what is counted anew before each print begins with this. */
void assay_gauge_zero_all(struct assay_metric *metric);
void assay_histogram_observe(struct assay_series *series, uint64_t count);

/* fn(arg) runs before each print, on the thread that prints, one print at a time: it sets what is not counted as it
 * happens. Before the first print. At most ASSAY_METRICS_COLLECTORS_MAX. */
#define ASSAY_METRICS_COLLECTORS_MAX 16
void assay_metrics_collect(struct assay_metrics *metrics, void (*fn)(void *arg), void *arg);

/* Appends everything in the text exposition format 0.0.4. buf->failed says whether memory sufficed. */
void assay_metrics_print(struct assay_metrics *metrics, struct assay_buf *buf);
