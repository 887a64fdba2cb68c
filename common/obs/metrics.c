#include "common/obs/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 64

const uint64_t assay_metric_latency_us[ASSAY_METRIC_LATENCY_COUNT] = {
    100, 300, 1000, 3000, 10000, 30000, 100000, 300000, 1000000, 3000000, 10000000, 30000000, 100000000};

struct assay_series {
    struct assay_series *_Atomic next_in_slot;
    struct assay_series *_Atomic next; /* in order of appearance */
    const struct assay_metric_row *row;
    char values[ASSAY_METRIC_LABELS_MAX][ASSAY_METRIC_VALUE_BYTES_MAX + 1];
    atomic_bool is_set;             /* gauges */
    atomic_uint_fast64_t count;     /* counters; the bits of a gauge's double; the sum of a histogram */
    atomic_uint_fast64_t buckets[]; /* histograms: one more than the row has, each by itself */
};

struct assay_metric {
    const struct assay_metric_row *row;
    size_t labels_count;
    pthread_mutex_t lock; /* guards additions */
    size_t series_count;
    struct assay_series *_Atomic first;
    struct assay_series *last;
    struct assay_series *_Atomic slots[SLOTS];
    struct assay_series *other; /* there from the start, so that no memory is needed when it is wanted */
    bool other_is_listed;
};

struct collector {
    void (*fn)(void *arg);
    void *arg;
};

struct assay_metrics {
    pthread_mutex_t lock; /* guards additions and serializes prints */
    struct assay_metric *families[ASSAY_METRICS_FAMILIES_MAX];
    size_t families_count;
    struct collector collectors[ASSAY_METRICS_COLLECTORS_MAX];
    size_t collectors_count;
};

/* --- making --- */

struct assay_metrics *assay_metrics_new(void)
{
    struct assay_metrics *metrics = calloc(1, sizeof *metrics);
    if (metrics)
        pthread_mutex_init(&metrics->lock, NULL);
    return metrics;
}

static void family_free(struct assay_metric *family)
{
    struct assay_series *series = atomic_load(&family->first);
    while (series) {
        struct assay_series *next = atomic_load(&series->next);
        if (series != family->other)
            free(series);
        series = next;
    }
    free(family->other);
    pthread_mutex_destroy(&family->lock);
    free(family);
}

void assay_metrics_free(struct assay_metrics *metrics)
{
    if (!metrics)
        return;
    for (size_t i = 0; i < metrics->families_count; i++)
        family_free(metrics->families[i]);
    pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

static bool is_name(const char *text, bool colon)
{
    if (!text || !text[0] || strchr("0123456789", text[0]))
        return false;
    return strspn(text, colon ? "abcdefghijklmnopqrstuvwxyz_0123456789:" : "abcdefghijklmnopqrstuvwxyz_0123456789") ==
           strlen(text);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

/* The rules of the format, and those of ours that `promtool check metrics` shares. */
static void check_row(const struct assay_metrics *metrics, const struct assay_metric_row *row)
{
    bool lawful = is_name(row->name, true) && row->help && row->help[0];
    lawful = lawful && (row->type == ASSAY_METRIC_COUNTER) == ends_with(row->name, "_total");
    lawful = lawful && row->scale >= 0 && !(row->scale != 0 && row->type == ASSAY_METRIC_GAUGE);
    for (size_t i = 0; lawful && i < ASSAY_METRIC_LABELS_MAX && row->labels[i]; i++)
        lawful = is_name(row->labels[i], false) && strcmp(row->labels[i], "le") != 0;
    lawful = lawful && row->labels[ASSAY_METRIC_LABELS_MAX] == NULL;
    lawful = lawful && (row->type == ASSAY_METRIC_HISTOGRAM) == (row->buckets_count > 0);
    lawful = lawful && row->buckets_count <= ASSAY_METRIC_BUCKETS_MAX;
    for (size_t i = 1; lawful && i < row->buckets_count; i++)
        lawful = row->buckets[i - 1] < row->buckets[i];
    if (!lawful)
        ASSAY_BUG("a metric's row breaks the rules of the text format");
    for (size_t i = 0; i < metrics->families_count; i++)
        if (strcmp(metrics->families[i]->row->name, row->name) == 0)
            ASSAY_BUG("two metrics have one name");
}

static struct assay_series *series_new(const struct assay_metric_row *row)
{
    size_t buckets = row->type == ASSAY_METRIC_HISTOGRAM ? row->buckets_count + 1 : 0;
    struct assay_series *series = calloc(1, sizeof *series + buckets * sizeof series->buckets[0]);
    if (series)
        series->row = row;
    return series;
}

struct assay_metric *assay_metrics_add(struct assay_metrics *metrics, const struct assay_metric_row *row)
{
    pthread_mutex_lock(&metrics->lock);
    check_row(metrics, row);
    if (metrics->families_count == ASSAY_METRICS_FAMILIES_MAX)
        ASSAY_BUG("too many metrics");
    struct assay_metric *family = calloc(1, sizeof *family);
    struct assay_series *other = family ? series_new(row) : NULL;
    if (other) {
        family->row = row;
        family->other = other;
        while (row->labels[family->labels_count])
            strcpy(other->values[family->labels_count++], "other");
        pthread_mutex_init(&family->lock, NULL);
        metrics->families[metrics->families_count++] = family;
    } else {
        free(family);
        family = NULL;
    }
    pthread_mutex_unlock(&metrics->lock);
    return family;
}

/* --- series --- */

/* Bytes of a value that are kept: a cut leaves no half of a character. */
static size_t kept_bytes(const char *value)
{
    size_t length = value ? strnlen(value, ASSAY_METRIC_VALUE_BYTES_MAX + 1) : 0;
    if (length <= ASSAY_METRIC_VALUE_BYTES_MAX)
        return length;
    length = ASSAY_METRIC_VALUE_BYTES_MAX;
    while (length > 0 && ((unsigned char)value[length] & 0xc0) == 0x80)
        length--;
    return length;
}

static size_t slot_of(const struct assay_metric *family, const char *const *values)
{
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < family->labels_count; i++)
        for (size_t at = 0, length = kept_bytes(values[i]); at < length; at++)
            hash = (hash ^ (unsigned char)values[i][at]) * 1099511628211u;
    return (hash >> 32) % SLOTS;
}

static bool is_value(const char *kept, const char *value)
{
    size_t length = kept_bytes(value);
    return strlen(kept) == length && (length == 0 || memcmp(kept, value, length) == 0);
}

static struct assay_series *find(const struct assay_metric *family, size_t slot, const char *const *values)
{
    struct assay_series *series = atomic_load_explicit(&family->slots[slot], memory_order_acquire);
    for (; series; series = atomic_load_explicit(&series->next_in_slot, memory_order_acquire)) {
        bool same = true;
        for (size_t i = 0; same && i < family->labels_count; i++)
            same = is_value(series->values[i], values[i]);
        if (same)
            return series;
    }
    return NULL;
}

/* Locked: at the end of the list that is printed. */
static void list(struct assay_metric *family, struct assay_series *series)
{
    if (family->last)
        atomic_store_explicit(&family->last->next, series, memory_order_release);
    else
        atomic_store_explicit(&family->first, series, memory_order_release);
    family->last = series;
}

static struct assay_series *add(struct assay_metric *family, size_t slot, const char *const *values)
{
    size_t most = family->row->series_max ? family->row->series_max : ASSAY_METRIC_SERIES_DEFAULT;
    struct assay_series *series = family->series_count < most ? series_new(family->row) : NULL;
    if (!series) {
        if (!family->other_is_listed)
            list(family, family->other);
        family->other_is_listed = true;
        return family->other;
    }
    for (size_t i = 0; i < family->labels_count; i++)
        if (values[i])
            memcpy(series->values[i], values[i], kept_bytes(values[i]));
    family->series_count++;
    atomic_store(&series->next_in_slot, atomic_load(&family->slots[slot]));
    atomic_store_explicit(&family->slots[slot], series, memory_order_release);
    list(family, series);
    return series;
}

struct assay_series *assay_metric_series(struct assay_metric *metric, const char *const *values)
{
    if (!metric)
        return NULL;
    size_t slot = slot_of(metric, values);
    struct assay_series *series = find(metric, slot, values);
    if (series)
        return series;
    pthread_mutex_lock(&metric->lock);
    series = find(metric, slot, values);
    if (!series)
        series = add(metric, slot, values);
    pthread_mutex_unlock(&metric->lock);
    return series;
}

struct assay_series *assay_metric_only(struct assay_metric *metric)
{
    return assay_metric_series(metric, NULL);
}

/* --- updates --- */

void assay_counter_add(struct assay_series *series, uint64_t count)
{
    if (series)
        atomic_fetch_add_explicit(&series->count, count, memory_order_relaxed);
}

void assay_counter_set(struct assay_series *series, uint64_t count)
{
    if (series)
        atomic_store_explicit(&series->count, count, memory_order_relaxed);
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void assay_gauge_set(struct assay_series *series, double value)
{
    if (!series)
        return;
    atomic_store_explicit(&series->count, bits_of(value), memory_order_relaxed);
    atomic_store_explicit(&series->is_set, true, memory_order_release);
}

void assay_gauge_add(struct assay_series *series, double value)
{
    if (!series)
        return;
    uint_fast64_t was = atomic_load_explicit(&series->count, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&series->count, &was, bits_of(double_of(was) + value),
                                                  memory_order_relaxed, memory_order_relaxed))
        continue;
    atomic_store_explicit(&series->is_set, true, memory_order_release);
}

void assay_gauge_clear(struct assay_series *series)
{
    if (series)
        atomic_store_explicit(&series->is_set, false, memory_order_release);
}

void assay_gauge_zero_all(struct assay_metric *metric)
{
    struct assay_series *series = metric ? atomic_load_explicit(&metric->first, memory_order_acquire) : NULL;
    for (; series; series = atomic_load_explicit(&series->next, memory_order_acquire))
        atomic_store_explicit(&series->count, bits_of(0), memory_order_relaxed);
}

void assay_histogram_observe(struct assay_series *series, uint64_t count)
{
    size_t bucket = 0;
    if (!series)
        return;
    while (bucket < series->row->buckets_count && count > series->row->buckets[bucket])
        bucket++;
    atomic_fetch_add_explicit(&series->buckets[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&series->count, count, memory_order_relaxed);
}

/* --- text --- */

void assay_metrics_collect(struct assay_metrics *metrics, void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&metrics->lock);
    if (metrics->collectors_count == ASSAY_METRICS_COLLECTORS_MAX)
        ASSAY_BUG("too many collectors of metrics");
    metrics->collectors[metrics->collectors_count++] = (struct collector){fn, arg};
    pthread_mutex_unlock(&metrics->lock);
}

static void print_escaped(struct assay_buf *buf, const char *text, bool quotes)
{
    for (const char *at = text; *at; at++) {
        if (*at == '\\')
            assay_buf_str(buf, "\\\\");
        else if (*at == '\n')
            assay_buf_str(buf, "\\n");
        else if (*at == '"' && quotes)
            assay_buf_str(buf, "\\\"");
        else
            assay_buf_append(buf, at, 1);
    }
}

/* NAME[SUFFIX]{LABELS[,le="LE"]} and a space. */
static void print_name(struct assay_buf *buf, const struct assay_series *series, const char *suffix, const char *le)
{
    const char *separator = "{";
    assay_buf_printf(buf, "%s%s", series->row->name, suffix);
    for (size_t i = 0; i < ASSAY_METRIC_LABELS_MAX && series->row->labels[i]; i++) {
        assay_buf_printf(buf, "%s%s=\"", separator, series->row->labels[i]);
        print_escaped(buf, series->values[i], true);
        assay_buf_str(buf, "\"");
        separator = ",";
    }
    if (le)
        assay_buf_printf(buf, "%sle=\"%s\"", separator, le);
    assay_buf_str(buf, le || separator[0] == ',' ? "} " : " ");
}

static void print_double(struct assay_buf *buf, double value)
{
    if (isnan(value))
        assay_buf_str(buf, "NaN\n");
    else if (isinf(value))
        assay_buf_str(buf, value > 0 ? "+Inf\n" : "-Inf\n");
    else
        assay_buf_printf(buf, "%.15g\n", value);
}

static void print_counted(struct assay_buf *buf, const struct assay_metric_row *row, uint64_t count)
{
    if (row->scale == 0 || row->scale == 1)
        assay_buf_printf(buf, "%llu\n", (unsigned long long)count);
    else
        print_double(buf, (double)count * row->scale);
}

/* The count is the sum of the buckets that were read, so that both agree while others observe. */
static void print_histogram(struct assay_buf *buf, const struct assay_series *series)
{
    const struct assay_metric_row *row = series->row;
    uint64_t total = 0, sum = atomic_load_explicit(&series->count, memory_order_relaxed);
    double scale = row->scale == 0 ? 1 : row->scale;
    for (size_t i = 0; i <= row->buckets_count; i++) {
        char le[32] = "+Inf";
        total += atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
        if (i < row->buckets_count)
            snprintf(le, sizeof le, "%.10g", (double)row->buckets[i] * scale);
        print_name(buf, series, "_bucket", le);
        assay_buf_printf(buf, "%llu\n", (unsigned long long)total);
    }
    print_name(buf, series, "_sum", NULL);
    print_counted(buf, row, sum);
    print_name(buf, series, "_count", NULL);
    assay_buf_printf(buf, "%llu\n", (unsigned long long)total);
}

static void print_series(struct assay_buf *buf, const struct assay_series *series)
{
    switch (series->row->type) {
    case ASSAY_METRIC_COUNTER:
        print_name(buf, series, "", NULL);
        print_counted(buf, series->row, atomic_load_explicit(&series->count, memory_order_relaxed));
        break;
    case ASSAY_METRIC_GAUGE:
        if (!atomic_load_explicit(&series->is_set, memory_order_acquire))
            break;
        print_name(buf, series, "", NULL);
        print_double(buf, double_of(atomic_load_explicit(&series->count, memory_order_relaxed)));
        break;
    case ASSAY_METRIC_HISTOGRAM:
        print_histogram(buf, series);
        break;
    }
}

void assay_metrics_print(struct assay_metrics *metrics, struct assay_buf *buf)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    pthread_mutex_lock(&metrics->lock);
    for (size_t i = 0; i < metrics->collectors_count; i++)
        metrics->collectors[i].fn(metrics->collectors[i].arg);
    for (size_t i = 0; i < metrics->families_count; i++) {
        const struct assay_metric *family = metrics->families[i];
        assay_buf_printf(buf, "# HELP %s ", family->row->name);
        print_escaped(buf, family->row->help, false);
        assay_buf_printf(buf, "\n# TYPE %s %s\n", family->row->name, types[family->row->type]);
        struct assay_series *series = atomic_load_explicit(&family->first, memory_order_acquire);
        for (; series; series = atomic_load_explicit(&series->next, memory_order_acquire))
            print_series(buf, series);
    }
    pthread_mutex_unlock(&metrics->lock);
}
