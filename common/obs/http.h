/* A small HTTP server with a thread of its own: /metrics, /healthz, /readyz, and pages that a service adds. It answers
 * GET and HEAD and changes nothing.
 *
 * Endpoints: "127.0.0.1:9464", "[::1]:9464", "localhost:9464" (port * = a free one) or "unix:PATH" (mode 0600).
 * Anything but a loopback address or a unix socket needs a token or is_open: with a token every page but /healthz and
 * /readyz wants "Authorization: Bearer TOKEN". */
#pragma once

#include "common/obs/metrics.h"

struct assay_http;

struct assay_http_page {
    const char *path; /* "/metrics" */
    const char *content_type;
    /* Fills the body; its status becomes 200, or 503 with the sentence. On the server's thread. */
    enum assay_status (*fill)(void *arg, struct assay_buf *body, struct assay_err *err);
    void *arg;
};

#define ASSAY_HTTP_PAGES_MAX 16
/* Connections at once, and how long one may be idle. */
#define ASSAY_HTTP_CONNECTIONS_MAX 32
#define ASSAY_HTTP_IDLE_S 15
/* Of a token, without the blanks around it. */
#define ASSAY_HTTP_TOKEN_BYTES_MIN 16
#define ASSAY_HTTP_TOKEN_BYTES_MAX 512

struct assay_http_options {
    const char *endpoint;
    const char *token_file; /* NULL: no token. Read once; its mode must keep group and others from reading */
    bool is_open;           /* serve beyond the loopback without a token */
    const struct assay_http_page *pages; /* copied; strings and args outlive the server */
    size_t pages_count;
};

/* Errors: INVALID_ARGUMENT (not an endpoint; a token that is too short), PERMISSION_DENIED (neither loopback nor token
 * nor is_open; a token that others can read), UNAVAILABLE (address in use), NOT_FOUND (the token file). */
enum assay_status assay_http_start(const struct assay_http_options *options, struct assay_http **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
/* With the real port: "http://127.0.0.1:9464" or "unix:PATH". */
const char *assay_http_url(const struct assay_http *http);
void assay_http_stop(struct assay_http *http); /* joins; removes a unix socket; NULL is fine */
