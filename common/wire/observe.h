/* How a service shows itself: metrics and health over HTTP, spans over RPC. One a process. */
#pragma once

#include "common/base/settings.h"
#include "common/obs/metrics.h"
#include "common/wire/member.h"
#include "common/wire/server.h"

struct assay_observe_options {
    const char *http, *http_token_file; /* NULL: not given */
    bool http_open;
    bool probe;                 /* --health: ask and end */
    const char *probe_endpoint; /* --endpoint */
};

/* Rows of every service's table of settings; `options` is a struct assay_observe_options. */
#define ASSAY_OBSERVE_SETTINGS(options)                                                                                \
    {.name = "http",                                                                                                   \
     .type = ASSAY_SETTING_STRING,                                                                                     \
     .target = &(options).http,                                                                                        \
     .argument = "ENDPOINT",                                                                                           \
     .help = "serve /metrics, /healthz, /readyz at 127.0.0.1:PORT or unix:PATH (off unless given)"},                   \
        {.name = "http-token-file",                                                                                    \
         .type = ASSAY_SETTING_STRING,                                                                                 \
         .target = &(options).http_token_file,                                                                         \
         .argument = "FILE",                                                                                           \
         .help = "bearer token that --http wants; needed beyond the loopback"},                                        \
        {.name = "http-open",                                                                                          \
         .type = ASSAY_SETTING_FLAG,                                                                                   \
         .target = &(options).http_open,                                                                               \
         .help = "let --http serve beyond the loopback without a token"},                                              \
        {.name = "health",                                                                                             \
         .type = ASSAY_SETTING_FLAG,                                                                                   \
         .target = &(options).probe,                                                                                   \
         .help = "ask whether the service at --endpoint (else --public, --listen) serves; exit 0 or 1"},               \
    {                                                                                                                  \
        .name = "endpoint", .type = ASSAY_SETTING_STRING, .target = &(options).probe_endpoint, .argument = "ENDPOINT", \
        .help = "whom --health asks"                                                                                   \
    }

struct assay_observe;

/* Metrics of the process, of calls and of stages. Before the first loop starts. `precision` may be "". */
enum assay_status assay_observe_start(const struct assay_observe_options *options, const char *service,
                                      const char *precision, struct assay_observe **ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* For the service's own families. */
struct assay_metrics *assay_observe_metrics(struct assay_observe *observe);
/* Opens the pages when --http was given: /metrics; /healthz, which fails when the server's loop stands still; /readyz,
 * which fails while the server does not serve. The server outlives assay_observe_close. Errors as assay_http_start. */
enum assay_status assay_observe_serve(struct assay_observe *observe, const struct assay_server *server,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* From now on /readyz also fails while the member is not registered. The member outlives assay_observe_close. */
void assay_observe_member(struct assay_observe *observe, struct assay_member *member);
/* Where the pages are, "" when nowhere. */
const char *assay_observe_url(const struct assay_observe *observe);
/* Closes the pages, before what the collectors look at goes. NULL is fine. */
void assay_observe_close(struct assay_observe *observe);
/* After all loops. NULL is fine. */
void assay_observe_free(struct assay_observe *observe);
