#include "common/wire/observe.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/obs/http.h"
#include "common/obs/process.h"
#include "common/obs/spans.h"
#include "common/wire/rpc_metrics.h"
#include "common/wire/trace_service.h"

/* The server's loop looks at its peers every second. */
#define STUCK_MS 10000

static const struct assay_metric_row rows[] = {
    {.name = "assay_rpc_refused_total",
     .help = "Messages and connections that the server did not take, by reason.",
     .type = ASSAY_METRIC_COUNTER,
     .labels = {"reason"}},
    {.name = "assay_rpc_peers_cut_total",
     .help = "Peers cut off because they sent what nobody understands.",
     .type = ASSAY_METRIC_COUNTER},
    {.name = "assay_rpc_connections", .help = "Connections to the server.", .type = ASSAY_METRIC_GAUGE},
};
enum { REFUSED, CUT, CONNECTIONS, ROWS };

struct assay_observe {
    struct assay_observe_options options;
    struct assay_metrics *metrics;
    struct assay_http *http;
    const struct assay_server *server;
    struct assay_member *_Atomic member;
    struct assay_metric *families[ROWS];
};

static void collect(void *arg)
{
    struct assay_observe *observe = arg;
    struct assay_server_counts counts;
    assay_server_counts(observe->server, &counts);
    for (int i = 0; i < ASSAY_REFUSALS; i++) {
        const char *reason = assay_refusal_name((enum assay_refusal)i);
        assay_counter_set(assay_metric_series(observe->families[REFUSED], &reason), counts.refused[i]);
    }
    assay_counter_set(assay_metric_only(observe->families[CUT]), counts.cut);
    assay_gauge_set(assay_metric_only(observe->families[CONNECTIONS]), (double)counts.connections);
}

/* --- pages --- */

static enum assay_status fill_metrics(void *arg, struct assay_buf *body, struct assay_err *err)
{
    struct assay_observe *observe = arg;
    (void)err;
    assay_metrics_print(observe->metrics, body);
    return ASSAY_OK;
}

static enum assay_status fill_health(void *arg, struct assay_buf *body, struct assay_err *err)
{
    const struct assay_observe *observe = arg;
    int64_t still_ms = assay_now_ms() - assay_server_ticked_ms(observe->server);
    if (still_ms > STUCK_MS)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the loop has stood still for %lld ms", (long long)still_ms);
    assay_buf_str(body, "ok\n");
    return ASSAY_OK;
}

static enum assay_status fill_ready(void *arg, struct assay_buf *body, struct assay_err *err)
{
    struct assay_observe *observe = arg;
    struct assay_member *member = atomic_load(&observe->member);
    if (!assay_server_is_serving(observe->server))
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the service takes no calls: it starts or ends");
    if (member && assay_member_id(member, 0) == 0)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "the service is not registered with the coordinator");
    return fill_health(arg, body, err);
}

/* --- the service's side --- */

enum assay_status assay_observe_start(const struct assay_observe_options *options, const char *service,
                                      const char *precision, struct assay_observe **ret, struct assay_err *err)
{
    char process[64];
    struct assay_observe *observe = calloc(1, sizeof *observe);
    struct assay_metrics *metrics = observe ? assay_metrics_new() : NULL;
    if (!metrics) {
        free(observe);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the metrics of the service");
    }
    observe->options = *options;
    observe->metrics = metrics;
    snprintf(process, sizeof process, "%s%s%s", service, precision[0] ? " " : "", precision);
    assay_trace_identify(process);
    assay_process_metrics_add(metrics, service, precision);
    assay_rpc_metrics_install(metrics);
    assay_spans_measure(metrics);
    *ret = observe;
    return ASSAY_OK;
}

struct assay_metrics *assay_observe_metrics(struct assay_observe *observe)
{
    return observe->metrics;
}

enum assay_status assay_observe_serve(struct assay_observe *observe, const struct assay_server *server,
                                      struct assay_err *err)
{
    const struct assay_http_page pages[] = {
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8", fill_metrics, observe},
        {"/healthz", "text/plain; charset=utf-8", fill_health, observe},
        {"/readyz", "text/plain; charset=utf-8", fill_ready, observe},
    };
    const struct assay_http_options options = {.endpoint = observe->options.http,
                                               .token_file = observe->options.http_token_file,
                                               .is_open = observe->options.http_open,
                                               .pages = pages,
                                               .pages_count = ASSAY_COUNT(pages)};
    observe->server = server;
    for (size_t i = 0; i < ROWS; i++)
        observe->families[i] = assay_metrics_add(observe->metrics, &rows[i]);
    assay_metrics_collect(observe->metrics, collect, observe);
    return options.endpoint && options.endpoint[0] ? assay_http_start(&options, &observe->http, err) : ASSAY_OK;
}

void assay_observe_member(struct assay_observe *observe, struct assay_member *member)
{
    atomic_store(&observe->member, member);
}

const char *assay_observe_url(const struct assay_observe *observe)
{
    return observe->http ? assay_http_url(observe->http) : "";
}

void assay_observe_close(struct assay_observe *observe)
{
    if (!observe)
        return;
    assay_http_stop(assay_steal(&observe->http));
}

void assay_observe_free(struct assay_observe *observe)
{
    if (!observe)
        return;
    assay_observe_close(observe);
    assay_spans_measure(NULL);
    assay_rpc_metrics_install(NULL);
    assay_metrics_free(observe->metrics);
    free(observe);
}
