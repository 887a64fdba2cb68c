/* The registry and the text that Prometheus reads. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/obs/metrics.h"
#include "common/obs/process.h"
#include "tests/cmocka_all.h"

static const uint64_t bounds[] = {1000, 2000, 4000};

static const struct assay_metric_row counter_row = {
    .name = "test_events_total", .help = "Events.", .type = ASSAY_METRIC_COUNTER, .labels = {"kind"}, .series_max = 3};
static const struct assay_metric_row seconds_row = {
    .name = "test_work_seconds_total", .help = "Work.", .type = ASSAY_METRIC_COUNTER, .scale = 1e-6};
static const struct assay_metric_row gauge_row = {
    .name = "test_level", .help = "A \\ level\nof two lines.", .type = ASSAY_METRIC_GAUGE, .labels = {"a", "b"}};
static const struct assay_metric_row histogram_row = {.name = "test_duration_seconds",
                                                      .help = "Durations.",
                                                      .type = ASSAY_METRIC_HISTOGRAM,
                                                      .scale = 1e-3,
                                                      .labels = {"stage"},
                                                      .buckets = bounds,
                                                      .buckets_count = 3};

static char *text_of(struct assay_metrics *metrics)
{
    struct assay_buf buf = ASSAY_BUF_INIT;
    assay_metrics_print(metrics, &buf);
    assert_false(buf.failed);
    return buf.data;
}

static void assert_has(const char *text, const char *wanted)
{
    if (!strstr(text, wanted))
        fail_msg("not printed: %s\nfound:\n%s", wanted, text);
}

static void counters_are_printed_with_escaped_labels_in_base_units(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    struct assay_metric *events = assay_metrics_add(metrics, &counter_row);
    struct assay_metric *seconds = assay_metrics_add(metrics, &seconds_row);
    const char *const value[] = {"a\"b\\c\nd"};
    assay_counter_add(assay_metric_series(events, value), 2);
    assay_counter_add(assay_metric_series(events, value), 3);
    assay_counter_add(assay_metric_only(seconds), 1500000);
    char *text = text_of(metrics);
    assert_has(text, "# HELP test_events_total Events.\n# TYPE test_events_total counter\n"
                     "test_events_total{kind=\"a\\\"b\\\\c\\nd\"} 5\n");
    assert_has(text, "# TYPE test_work_seconds_total counter\ntest_work_seconds_total 1.5\n");
    free(text);
    assay_metrics_free(metrics);
}

static void gauges_are_missing_until_they_are_set(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    const char *const one[] = {"x", NULL};
    struct assay_series *first = assay_metric_series(assay_metrics_add(metrics, &gauge_row), one);
    char *text = text_of(metrics);
    assert_has(text, "# HELP test_level A \\\\ level\\nof two lines.\n# TYPE test_level gauge\n");
    assert_null(strstr(text, "test_level{"));
    free(text);
    assay_gauge_set(first, NAN);
    text = text_of(metrics);
    assert_has(text, "test_level{a=\"x\",b=\"\"} NaN\n");
    free(text);
    assay_gauge_set(first, -INFINITY);
    text = text_of(metrics);
    assert_has(text, "test_level{a=\"x\",b=\"\"} -Inf\n");
    free(text);
    assay_gauge_set(first, 0.25);
    assay_gauge_add(first, -1);
    text = text_of(metrics);
    assert_has(text, "test_level{a=\"x\",b=\"\"} -0.75\n");
    free(text);
    assay_gauge_clear(first);
    text = text_of(metrics);
    assert_null(strstr(text, "test_level{"));
    free(text);
    assay_metrics_free(metrics);
}

/* A bound belongs to its own bucket; buckets are cumulative; sum and bounds are in the base unit. */
static void histograms_count_as_prometheus_does(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    const char *const stage[] = {"s"};
    struct assay_series *series = assay_metric_series(assay_metrics_add(metrics, &histogram_row), stage);
    const uint64_t values[] = {0, 1000, 1001, 2000, 4000, 4001, 9000};
    for (size_t i = 0; i < ASSAY_COUNT(values); i++)
        assay_histogram_observe(series, values[i]);
    char *text = text_of(metrics);
    assert_has(text, "test_duration_seconds_bucket{stage=\"s\",le=\"1\"} 2\n"
                     "test_duration_seconds_bucket{stage=\"s\",le=\"2\"} 4\n"
                     "test_duration_seconds_bucket{stage=\"s\",le=\"4\"} 5\n"
                     "test_duration_seconds_bucket{stage=\"s\",le=\"+Inf\"} 7\n"
                     "test_duration_seconds_sum{stage=\"s\"} 21.002\n"
                     "test_duration_seconds_count{stage=\"s\"} 7\n");
    free(text);
    assay_metrics_free(metrics);
}

static void what_exceeds_a_familys_ceiling_counts_as_other(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    struct assay_metric *events = assay_metrics_add(metrics, &counter_row);
    for (int i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "kind%d", i);
        const char *const value[] = {name};
        assay_counter_add(assay_metric_series(events, value), 1);
    }
    char *text = text_of(metrics);
    assert_has(text, "{kind=\"kind0\"} 1\n");
    assert_has(text, "{kind=\"kind2\"} 1\n");
    assert_null(strstr(text, "kind3"));
    assert_has(text, "{kind=\"other\"} 997\n");
    free(text);
    assay_metrics_free(metrics);
}

static void long_values_are_cut_between_characters(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    struct assay_metric *events = assay_metrics_add(metrics, &counter_row);
    char value[2 * ASSAY_METRIC_VALUE_BYTES_MAX] = "";
    memset(value, 'x', ASSAY_METRIC_VALUE_BYTES_MAX - 1);
    strcat(value, "\xc3\xa9tail"); /* its first byte would still fit */
    const char *const values[] = {value};
    assay_counter_add(assay_metric_series(events, values), 1);
    assay_counter_add(assay_metric_series(events, values), 1);
    char *text = text_of(metrics);
    assert_has(text, "xxx\"} 2\n");
    assert_null(strstr(text, "\xc3"));
    free(text);
    assay_metrics_free(metrics);
}

#define THREADS 4
#define ROUNDS 20000

static void *count_much(void *arg)
{
    struct assay_metric *const *families = arg;
    for (int i = 0; i < ROUNDS; i++) {
        const char *const kind[] = {i % 2 ? "odd" : "even"};
        assay_counter_add(assay_metric_series(families[0], kind), 1);
        assay_histogram_observe(assay_metric_series(families[1], kind), (uint64_t)i % 5000);
        assay_gauge_add(assay_metric_only(families[2]), 1);
    }
    return NULL;
}

static void updates_of_many_threads_are_all_there(void **state)
{
    (void)state;
    static const struct assay_metric_row plain = {.name = "test_sum", .help = "Sum.", .type = ASSAY_METRIC_GAUGE};
    struct assay_metrics *metrics = assay_metrics_new();
    struct assay_metric *families[] = {assay_metrics_add(metrics, &counter_row),
                                       assay_metrics_add(metrics, &histogram_row), assay_metrics_add(metrics, &plain)};
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, families), 0);
    for (int i = 0; i < 20; i++)
        free(text_of(metrics));
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    char *text = text_of(metrics);
    assert_has(text, "test_events_total{kind=\"odd\"} 40000\n");
    assert_has(text, "test_events_total{kind=\"even\"} 40000\n");
    assert_has(text, "test_duration_seconds_count{stage=\"odd\"} 40000\n");
    assert_has(text, "test_sum 80000\n");
    free(text);
    assay_metrics_free(metrics);
}

static void collect_level(void *arg)
{
    assay_gauge_add(arg, 1);
}

static void collectors_run_before_each_print(void **state)
{
    (void)state;
    static const struct assay_metric_row plain = {.name = "test_prints", .help = "Prints.", .type = ASSAY_METRIC_GAUGE};
    struct assay_metrics *metrics = assay_metrics_new();
    assay_metrics_collect(metrics, collect_level, assay_metric_only(assay_metrics_add(metrics, &plain)));
    free(text_of(metrics));
    char *text = text_of(metrics);
    assert_has(text, "test_prints 2\n");
    free(text);
    assay_metrics_free(metrics);
}

static double value_of(const char *text, const char *name)
{
    char wanted[128];
    snprintf(wanted, sizeof wanted, "\n%s ", name);
    const char *at = strstr(text, wanted);
    if (!at)
        fail_msg("not printed: %s", name);
    return strtod(at + strlen(wanted), NULL);
}

static void a_process_tells_its_memory_files_and_threads(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    assay_process_metrics_add(metrics, "test", "int8");
    char *text = text_of(metrics);
    assert_has(text, "assay_build_info{service=\"test\",version=\"");
    assert_true(value_of(text, "process_resident_memory_bytes") > 1e5);
    assert_true(value_of(text, "process_resident_memory_bytes") <= value_of(text, "process_virtual_memory_bytes"));
    assert_true(value_of(text, "process_open_fds") >= 3);
    assert_true(value_of(text, "process_open_fds") <= value_of(text, "process_max_fds"));
    assert_true(value_of(text, "process_threads") >= 1);
    assert_true(value_of(text, "process_cpu_seconds_total") >= 0);
    double started = value_of(text, "process_start_time_seconds"), now = (double)time(NULL);
    assert_true(started > now - 600 && started < now + 5);
    assert_true(assay_process_rss_bytes() > 100000);
    free(text);
    assay_metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_are_printed_with_escaped_labels_in_base_units),
        cmocka_unit_test(gauges_are_missing_until_they_are_set),
        cmocka_unit_test(histograms_count_as_prometheus_does),
        cmocka_unit_test(what_exceeds_a_familys_ceiling_counts_as_other),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(updates_of_many_threads_are_all_there),
        cmocka_unit_test(collectors_run_before_each_print),
        cmocka_unit_test(a_process_tells_its_memory_files_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
