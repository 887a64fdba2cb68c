#include "common/wire/rpc_metrics.h"

#include <string.h>

#include "common/obs/spans.h"
#include "common/wire/observer.h"

#define LATENCY .scale = 1e-6, .buckets = assay_metric_latency_us, .buckets_count = ASSAY_METRIC_LATENCY_COUNT

static const struct assay_metric_row rows[] = {
    {.name = "assay_rpc_server_calls_total",
     .help = "Calls that this process answered, by method and status code.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"method", "code"},
     .series_max = 512},
    {.name = "assay_rpc_client_calls_total",
     .help = "Calls that this process made, by method and status code.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"method", "code"},
     .series_max = 512},
    {.name = "assay_rpc_server_duration_seconds",
     .help = "From a call's arrival to its last word; a Lease waits for work, a stream for its end.",
     .type = ASSAY_METRIC_HISTOGRAM,
     .labels = {"method"},
     LATENCY},
    {.name = "assay_rpc_client_duration_seconds",
     .help = "From the begin of a call to its answer, waiting for the peer included.",
     .type = ASSAY_METRIC_HISTOGRAM,
     .labels = {"method"},
     LATENCY},
    {.name = "assay_rpc_sent_bytes_total",
     .help = "Bytes of payloads and attachments sent, by side and method.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"side", "method"}},
    {.name = "assay_rpc_received_bytes_total",
     .help = "Bytes of payloads and attachments received, by side and method.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"side", "method"}},
    {.name = "assay_rpc_calls_in_flight",
     .help = "Calls that have begun and not ended, by side.",
     .type = ASSAY_METRIC_GAUGE,
     .labels = {"side"}},
};
enum { SERVER_CALLS, CLIENT_CALLS, SERVER_DURATION, CLIENT_DURATION, SENT, RECEIVED, IN_FLIGHT, ROWS };
_Static_assert(ROWS == ASSAY_COUNT(rows), "one row each");

static struct rpc_metrics {
    struct assay_metric *families[ROWS];
    struct assay_series *in_flight[2]; /* client, server */
} installed;

static const char *const sides[] = {"client", "server"};

/* "assay.v1.Records/Put" -> "Records/Put": the package is the same everywhere. */
static const char *short_name(const char *method)
{
    const char *slash = strchr(method, '/');
    const char *at = slash ? slash : method;
    while (slash && at > method && at[-1] != '.')
        at--;
    return at;
}

static void began(void *arg, bool is_server)
{
    struct rpc_metrics *metrics = arg;
    assay_gauge_add(metrics->in_flight[is_server], 1);
}

static void keep_span(const struct assay_wire_call *call, const char *method)
{
    struct assay_span span;
    assay_span_begin(&span, call->is_server ? "rpc.server" : "rpc.client", call->trace_id);
    span.begin_us = call->begin_us;
    span.end_us = call->end_us;
    span.overlaps = call->is_server;
    assay_span_text(&span, "method", method);
    assay_span_text(&span, "code", assay_status_name(call->status));
    assay_span_number(&span, "sent_bytes", (int64_t)call->sent_bytes);
    assay_span_number(&span, "received_bytes", (int64_t)call->received_bytes);
    assay_span_keep(&span);
}

static void ended(void *arg, const struct assay_wire_call *call)
{
    struct rpc_metrics *metrics = arg;
    const char *method = short_name(call->method);
    const char *const outcome[] = {method, assay_status_name(call->status)};
    const char *const side[] = {sides[call->is_server], method};
    struct assay_metric **families = metrics->families;
    assay_gauge_add(metrics->in_flight[call->is_server], -1);
    assay_counter_add(assay_metric_series(families[call->is_server ? SERVER_CALLS : CLIENT_CALLS], outcome), 1);
    assay_histogram_observe(assay_metric_series(families[call->is_server ? SERVER_DURATION : CLIENT_DURATION], &method),
                            (uint64_t)ASSAY_MAX(call->end_us - call->begin_us, 0));
    assay_counter_add(assay_metric_series(families[SENT], side), call->sent_bytes);
    assay_counter_add(assay_metric_series(families[RECEIVED], side), call->received_bytes);
    if (call->trace_id[0])
        keep_span(call, method);
}

void assay_rpc_metrics_install(struct assay_metrics *metrics)
{
    static const struct assay_wire_observer observer = {began, ended, &installed};
    if (!metrics) {
        assay_wire_observe(NULL);
        return;
    }
    for (size_t i = 0; i < ROWS; i++)
        installed.families[i] = assay_metrics_add(metrics, &rows[i]);
    for (size_t i = 0; i < ASSAY_COUNT(sides); i++) {
        installed.in_flight[i] = assay_metric_series(installed.families[IN_FLIGHT], &sides[i]);
        assay_gauge_set(installed.in_flight[i], 0);
    }
    assay_wire_observe(&observer);
}
