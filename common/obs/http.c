#include "common/obs/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <sodium/utils.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/fs.h"

#define CONNECTION_BYTES ((size_t)16 * 1024)
#define BACKLOG 32

struct assay_http {
    struct MHD_Daemon *daemon;
    int fd;
    char url[256];
    char unix_path[sizeof((struct sockaddr_un *)NULL)->sun_path];
    char token[ASSAY_HTTP_TOKEN_BYTES_MAX + 1]; /* "": none */
    struct assay_http_page pages[ASSAY_HTTP_PAGES_MAX];
    size_t pages_count;
};

/* --- answers --- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned code, const char *content_type,
                              const char *body, size_t bytes)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(bytes, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (code == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned code, const char *text)
{
    return answer(connection, code, "text/plain; charset=utf-8", text, strlen(text));
}

/* Takes the same time whatever differs. */
static bool is_allowed(const struct assay_http *http, struct MHD_Connection *connection)
{
    static const char scheme[] = "Bearer ";
    const char *given = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (!http->token[0])
        return true;
    if (!given || strncmp(given, scheme, sizeof scheme - 1) != 0)
        return false;
    given += sizeof scheme - 1;
    size_t length = strlen(http->token);
    return strlen(given) == length && sodium_memcmp(given, http->token, length) == 0;
}

static enum MHD_Result answer_page(struct MHD_Connection *connection, const struct assay_http_page *page)
{
    assay_auto(assay_buf_release) struct assay_buf body = ASSAY_BUF_INIT;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = page->fill(page->arg, &body, &err);
    if (status == ASSAY_OK)
        status = assay_buf_check(&body, &err);
    if (status == ASSAY_OK)
        return answer(connection, MHD_HTTP_OK, page->content_type, assay_buf_cstr(&body), body.len);
    char text[sizeof err.text + 1];
    snprintf(text, sizeof text, "%s\n", err.text);
    return answer_text(connection, MHD_HTTP_SERVICE_UNAVAILABLE, text);
}

/* Probes of a supervisor carry no token, and learn nothing but yes or no. */
static bool is_probe(const char *path)
{
    return strcmp(path, "/healthz") == 0 || strcmp(path, "/readyz") == 0;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *upload, size_t *upload_bytes, void **state)
{
    static char seen;
    const struct assay_http *http = arg;
    (void)version, (void)upload;
    if (!*state) { /* headers only; what comes with them is read and dropped first */
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
    if (!is_probe(path) && !is_allowed(http, connection))
        return answer_text(connection, MHD_HTTP_UNAUTHORIZED, "a bearer token is wanted\n");
    for (size_t i = 0; i < http->pages_count; i++)
        if (strcmp(http->pages[i].path, path) == 0)
            return answer_page(connection, &http->pages[i]);
    return answer_text(connection, MHD_HTTP_NOT_FOUND, "there is no such page; /metrics, /healthz and /readyz are\n");
}

/* --- where it listens --- */

static enum assay_status parse_port(const char *text, const char *endpoint, uint16_t *ret, struct assay_err *err)
{
    char *end;
    unsigned long port = strcmp(text, "*") == 0 ? 0 : strtoul(text, &end, 10);
    bool digits = text[0] && strspn(text, "0123456789") == strlen(text) && strlen(text) <= 5;
    if (strcmp(text, "*") != 0 && (!digits || port == 0 || port > UINT16_MAX))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--http: port '%.20s' of '%.200s', wanted 1 to 65535 or *",
                             text, endpoint);
    *ret = htons((uint16_t)port);
    return ASSAY_OK;
}

/* "HOST:PORT" with a numeric host, or localhost. */
static enum assay_status parse_tcp(const char *endpoint, struct sockaddr_storage *ret, socklen_t *ret_len,
                                   bool *ret_loopback, struct assay_err *err)
{
    char host[64] = "";
    const char *colon = strrchr(endpoint, ':');
    bool brackets = endpoint[0] == '[' && colon && colon > endpoint + 2 && colon[-1] == ']';
    size_t length = colon ? (size_t)(colon - endpoint) - (brackets ? 2 : 0) : 0;
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    uint16_t port = 0;
    if (!colon || length >= sizeof host)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--http: found '%.200s', wanted ADDRESS:PORT, as 127.0.0.1:9464, or unix:PATH", endpoint);
    memcpy(host, endpoint + brackets, length);
    enum assay_status status = parse_port(colon + 1, endpoint, &port, err);
    if (status != ASSAY_OK)
        return status;
    v4.sin_port = v6.sin6_port = port;
    if (!brackets && inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &v4.sin_addr) == 1) {
        memcpy(ret, &v4, *ret_len = sizeof v4);
        *ret_loopback = ntohl(v4.sin_addr.s_addr) >> 24 == 127;
    } else if (brackets && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(ret, &v6, *ret_len = sizeof v6);
        *ret_loopback = IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
    } else {
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--http: host '%s' of '%.200s', wanted a numeric address or localhost", host, endpoint);
    }
    return ASSAY_OK;
}

static enum assay_status listen_at(struct assay_http *http, const char *endpoint, const struct sockaddr *address,
                                   socklen_t len, struct assay_err *err)
{
    int on = 1;
    http->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (http->fd < 0)
        return assay_err_errno(err, errno, "--http: cannot make a socket for %s", endpoint);
    if (address->sa_family != AF_UNIX)
        setsockopt(http->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa_family == AF_INET6)
        setsockopt(http->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(http->fd, address, len) != 0 || listen(http->fd, BACKLOG) != 0)
        return errno == EADDRINUSE
                   ? assay_err_set(err, ASSAY_UNAVAILABLE, "--http: address in use: something listens on %s", endpoint)
                   : assay_err_errno(err, errno, "--http: cannot listen on %s", endpoint);
    return ASSAY_OK;
}

static enum assay_status listen_tcp(struct assay_http *http, const struct assay_http_options *options,
                                    struct assay_err *err)
{
    struct sockaddr_storage address;
    socklen_t len = 0;
    bool loopback = false;
    enum assay_status status = parse_tcp(options->endpoint, &address, &len, &loopback, err);
    if (status != ASSAY_OK)
        return status;
    if (!loopback && !http->token[0] && !options->is_open)
        return assay_err_set(
            err, ASSAY_PERMISSION_DENIED,
            "--http: %s can be reached from other machines: give --http-token-file FILE, or --http-open "
            "when the network is to be trusted",
            options->endpoint);
    status = listen_at(http, options->endpoint, (const struct sockaddr *)&address, len, err);
    if (status != ASSAY_OK)
        return status;
    if (getsockname(http->fd, (struct sockaddr *)&address, &len) != 0)
        return assay_err_errno(err, errno, "--http: cannot tell the port of %s", options->endpoint);
    uint16_t port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                        : ((struct sockaddr_in *)&address)->sin_port);
    int host_len = (int)(strrchr(options->endpoint, ':') - options->endpoint);
    char where[sizeof http->url - sizeof "http://%s"];
    snprintf(where, sizeof where, "%.*s:%u", host_len, options->endpoint, port);
    snprintf(http->url, sizeof http->url, "http://%s", where);
    return ASSAY_OK;
}

/* A socket file that nobody listens on is what a killed process left behind. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat info;
    if (lstat(address->sun_path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool stale =
        fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return stale;
}

static enum assay_status listen_unix(struct assay_http *http, const char *path, struct assay_err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path[0] || strlen(path) >= sizeof address.sun_path)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--http: the path of a unix socket has 1 to %zu bytes, found %zu",
                             sizeof address.sun_path - 1, strlen(path));
    strcpy(address.sun_path, path);
    if (is_stale(&address))
        unlink(path);
    mode_t before = umask(0177);
    enum assay_status status = listen_at(http, path, (const struct sockaddr *)&address, sizeof address, err);
    umask(before);
    if (status != ASSAY_OK)
        return status;
    strcpy(http->unix_path, path);
    snprintf(http->url, sizeof http->url, "unix:%s", path);
    return ASSAY_OK;
}

static enum assay_status read_token(struct assay_http *http, const char *path, struct assay_err *err)
{
    struct stat info;
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t bytes = 0;
    if (stat(path, &info) != 0)
        return assay_err_errno(err, errno, "--http-token-file: cannot read %s", path);
    if (info.st_mode & (S_IRWXG | S_IRWXO))
        return assay_err_set(err, ASSAY_PERMISSION_DENIED,
                             "--http-token-file: %s can be read by others (mode %03o), wanted 600", path,
                             (unsigned)info.st_mode & 0777);
    enum assay_status status = assay_file_read(path, 4096, &text, &bytes, err);
    if (status != ASSAY_OK)
        return status;
    const char *begin = text + strspn(text, " \t\r\n");
    size_t length = strcspn(begin, " \t\r\n");
    if (length < ASSAY_HTTP_TOKEN_BYTES_MIN || length > ASSAY_HTTP_TOKEN_BYTES_MAX ||
        begin[length + strspn(begin + length, " \t\r\n")])
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--http-token-file: %s has not one word of %d to %d bytes",
                             path, ASSAY_HTTP_TOKEN_BYTES_MIN, ASSAY_HTTP_TOKEN_BYTES_MAX);
    memcpy(http->token, begin, length);
    sodium_memzero(text, bytes);
    return ASSAY_OK;
}

static enum assay_status start_daemon(struct assay_http *http, struct assay_err *err)
{
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET, http->fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)ASSAY_HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)ASSAY_HTTP_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, MHD_OPTION_END);
    if (!http->daemon)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "--http: cannot start the server of %s", http->url);
    http->fd = -1; /* the daemon's from here on */
    return ASSAY_OK;
}

enum assay_status assay_http_start(const struct assay_http_options *options, struct assay_http **ret,
                                   struct assay_err *err)
{
    static const char unix_scheme[] = "unix:";
    struct assay_http *http = calloc(1, sizeof *http);
    if (!http)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for an HTTP server");
    http->fd = -1;
    if (options->pages_count > ASSAY_HTTP_PAGES_MAX)
        ASSAY_BUG("too many pages on one HTTP server");
    if (options->pages_count)
        memcpy(http->pages, options->pages, options->pages_count * sizeof *options->pages);
    http->pages_count = options->pages_count;
    enum assay_status status = options->token_file ? read_token(http, options->token_file, err) : ASSAY_OK;
    if (status == ASSAY_OK)
        status = strncmp(options->endpoint, unix_scheme, sizeof unix_scheme - 1) == 0
                     ? listen_unix(http, options->endpoint + sizeof unix_scheme - 1, err)
                     : listen_tcp(http, options, err);
    if (status == ASSAY_OK)
        status = start_daemon(http, err);
    if (status != ASSAY_OK) {
        assay_http_stop(http);
        return status;
    }
    *ret = http;
    return ASSAY_OK;
}

const char *assay_http_url(const struct assay_http *http)
{
    return http->url;
}

void assay_http_stop(struct assay_http *http)
{
    if (!http)
        return;
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    if (http->fd >= 0)
        close(http->fd);
    if (http->unix_path[0])
        unlink(http->unix_path);
    sodium_memzero(http->token, sizeof http->token);
    free(http);
}
