/* What counting and tracing cost, one operation at a time. Prints figures, asserts nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/obs/metrics.h"
#include "common/obs/spans.h"
#include "common/wire/observer.h"
#include "common/wire/rpc_metrics.h"

#define ROUNDS 1000000
#define PRINTS 200

static void report(const char *what, int64_t begin_us, size_t rounds)
{
    printf("%-46s %8.1f ns\n", what, (double)(assay_now_us() - begin_us) * 1e3 / (double)rounds);
}

static void bench_updates(struct assay_metrics *metrics)
{
    static const struct assay_metric_row counter = {
        .name = "bench_events_total", .help = "Events.", .type = ASSAY_METRIC_COUNTER, .labels = {"kind"}};
    struct assay_metric *family = assay_metrics_add(metrics, &counter);
    const char *const kinds[] = {"one", "two", "three", "four"};
    struct assay_series *series = assay_metric_series(family, kinds);
    int64_t begin_us = assay_now_us();
    for (int i = 0; i < ROUNDS; i++)
        assay_counter_add(series, 1);
    report("counter, series at hand", begin_us, ROUNDS);
    begin_us = assay_now_us();
    for (int i = 0; i < ROUNDS; i++)
        assay_counter_add(assay_metric_series(family, &kinds[i % 4]), 1);
    report("counter, series looked up", begin_us, ROUNDS);
}

static void bench_spans(void)
{
    struct assay_span span;
    int64_t begin_us = assay_now_us();
    for (int i = 0; i < ROUNDS; i++) {
        assay_span_begin(&span, "forward", "00112233445566778899aabbccddeeff");
        assay_span_text(&span, "precision", "int8");
        assay_span_number(&span, "chunks", i);
        assay_span_end(&span);
    }
    report("span with two attributes, measured", begin_us, ROUNDS);
}

static void bench_calls(const char *what, const char *trace_id)
{
    struct assay_wire_call call = {.method = "assay.v1.Records/Put", .trace_id = trace_id, .sent_bytes = 1000000};
    int64_t begin_us = assay_now_us();
    for (int i = 0; i < ROUNDS; i++) {
        assay_wire_began(false);
        call.begin_us = i;
        call.end_us = i + 1000;
        assay_wire_ended(&call);
    }
    report(what, begin_us, ROUNDS);
}

static void bench_print(struct assay_metrics *metrics)
{
    size_t bytes = 0;
    int64_t begin_us = assay_now_us();
    for (int i = 0; i < PRINTS; i++) {
        struct assay_buf text = ASSAY_BUF_INIT;
        assay_metrics_print(metrics, &text);
        bytes = text.len;
        assay_buf_release(&text);
    }
    report("a print of the registry", begin_us, PRINTS);
    printf("%-46s %8zu bytes\n", "its text", bytes);
}

int main(void)
{
    struct assay_metrics *metrics = assay_metrics_new();
    if (!metrics)
        return 5;
    bench_calls("call, nobody observes", "");
    assay_rpc_metrics_install(metrics);
    assay_spans_measure(metrics);
    bench_updates(metrics);
    bench_spans();
    bench_calls("call, counted", "");
    bench_calls("call, counted and traced", "00112233445566778899aabbccddeeff");
    bench_print(metrics);
    assay_rpc_metrics_install(NULL);
    assay_spans_measure(NULL);
    assay_metrics_free(metrics);
    return 0;
}
