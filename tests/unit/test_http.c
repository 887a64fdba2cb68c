/* The HTTP server, from a plain socket. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/obs/http.h"
#include "tests/cmocka_all.h"

#define TOKEN "0123456789abcdefghij"

static enum assay_status fill(void *arg, struct assay_buf *body, struct assay_err *err)
{
    const char *text = arg;
    if (!text)
        return assay_err_set(err, ASSAY_UNAVAILABLE, "not now");
    assay_buf_str(body, text);
    return ASSAY_OK;
}

static char yes[] = "up 1\n";
static const struct assay_http_page pages[] = {{"/metrics", "text/plain; version=0.0.4", fill, yes},
                                               {"/healthz", "text/plain", fill, yes},
                                               {"/readyz", "text/plain", fill, NULL}};

static enum assay_status start(const char *endpoint, const char *token_file, bool is_open, struct assay_http **ret,
                               struct assay_err *err)
{
    const struct assay_http_options options = {
        .endpoint = endpoint, .token_file = token_file, .is_open = is_open, .pages = pages, .pages_count = 3};
    return assay_http_start(&options, ret, err);
}

static int connect_to(const char *url)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_unix = strncmp(url, "unix:", 5) == 0;
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (is_unix)
        strcpy(local.sun_path, url + 5);
    v4.sin_port = is_unix ? 0 : htons((uint16_t)atoi(strrchr(url, ':') + 1));
    int failed =
        is_unix ? connect(fd, (struct sockaddr *)&local, sizeof local) : connect(fd, (struct sockaddr *)&v4, sizeof v4);
    if (failed)
        fail_msg("cannot connect to %s: %s", url, strerror(errno));
    return fd;
}

/* The whole answer to a request; its status code. */
static int ask(const char *url, const char *request, char *answer, size_t bytes)
{
    int fd = connect_to(url);
    size_t used = 0;
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    for (ssize_t got; used < bytes - 1 && (got = read(fd, answer + used, bytes - 1 - used)) > 0;)
        used += (size_t)got;
    answer[used] = '\0';
    close(fd);
    int code = 0;
    if (sscanf(answer, "HTTP/1.1 %d", &code) != 1)
        fail_msg("no HTTP answer to %s: %s", request, answer);
    return code;
}

static int get(const char *url, const char *path, const char *more, char *answer, size_t bytes)
{
    char request[1024];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", path, more);
    return ask(url, request, answer, bytes);
}

static void pages_are_served_on_a_free_port_of_the_loopback(void **state)
{
    (void)state;
    struct assay_http *http = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    char answer[4096];
    if (start("127.0.0.1:*", NULL, false, &http, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const char *url = assay_http_url(http);
    assert_int_equal(get(url, "/metrics", "", answer, sizeof answer), 200);
    assert_non_null(strstr(answer, "Content-Type: text/plain; version=0.0.4\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\nup 1\n"));
    assert_int_equal(get(url, "/readyz", "", answer, sizeof answer), 503);
    assert_non_null(strstr(answer, "not now\n"));
    assert_int_equal(get(url, "/", "", answer, sizeof answer), 404);
    assert_int_equal(ask(url, "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
                         answer, sizeof answer),
                     405);
    assert_int_equal(ask(url, "HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", answer, sizeof answer),
                     200);
    assert_null(strstr(answer, "up 1"));
    int nonsense = connect_to(url);
    assert_int_equal(write(nonsense, "nonsense\r\n\r\n", 12), 12);
    close(nonsense);
    assert_int_equal(get(url, "/healthz", "", answer, sizeof answer), 200);
    struct assay_http *second = NULL;
    assert_int_equal(start(url + strlen("http://"), NULL, false, &second, &err), ASSAY_UNAVAILABLE);
    assay_http_stop(http);
}

static void a_unix_socket_is_the_owners_alone_and_takes_a_dead_ones_place(void **state)
{
    (void)state;
    struct assay_http *http = NULL, *second = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct stat info;
    char directory[] = "/tmp/assay-http-XXXXXX", endpoint[128], answer[4096];
    assert_non_null(mkdtemp(directory));
    snprintf(endpoint, sizeof endpoint, "unix:%s/http.sock", directory);
    /* What a killed process leaves: a file that nobody listens on. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, endpoint + 5);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&address, sizeof address), 0);
    close(dead);
    if (start(endpoint, NULL, false, &http, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(stat(address.sun_path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(get(assay_http_url(http), "/healthz", "", answer, sizeof answer), 200);
    assert_int_equal(start(endpoint, NULL, false, &second, &err), ASSAY_UNAVAILABLE);
    assay_http_stop(http);
    assert_int_not_equal(stat(address.sun_path, &info), 0);
    rmdir(directory);
}

static void beyond_the_loopback_a_token_or_a_word_is_wanted(void **state)
{
    (void)state;
    struct assay_http *http = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    char path[] = "/tmp/assay-token-XXXXXX", answer[4096];
    int fd = mkstemp(path);
    assert_int_equal(write(fd, TOKEN "\n", strlen(TOKEN) + 1), strlen(TOKEN) + 1);
    close(fd);
    assert_int_equal(start("0.0.0.0:*", NULL, false, &http, &err), ASSAY_PERMISSION_DENIED);
    assert_non_null(strstr(err.text, "--http-token-file"));
    chmod(path, 0644);
    assert_int_equal(start("0.0.0.0:*", path, false, &http, &err), ASSAY_PERMISSION_DENIED);
    chmod(path, 0600);
    if (start("0.0.0.0:*", path, false, &http, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const char *url = assay_http_url(http);
    assert_int_equal(get(url, "/metrics", "", answer, sizeof answer), 401);
    assert_int_equal(get(url, "/nothing", "", answer, sizeof answer), 401);
    assert_int_equal(get(url, "/metrics", "Authorization: Bearer 0123456789abcdefghiX\r\n", answer, sizeof answer),
                     401);
    assert_int_equal(get(url, "/metrics", "Authorization: Bearer 0123456789abcdefghijk\r\n", answer, sizeof answer),
                     401);
    assert_int_equal(get(url, "/metrics", "Authorization: Basic " TOKEN "\r\n", answer, sizeof answer), 401);
    assert_int_equal(get(url, "/metrics", "Authorization: Bearer " TOKEN "\r\n", answer, sizeof answer), 200);
    assert_int_equal(get(url, "/healthz", "", answer, sizeof answer), 200);
    assay_http_stop(http);
    if (start("0.0.0.0:*", NULL, true, &http, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(get(assay_http_url(http), "/metrics", "", answer, sizeof answer), 200);
    assay_http_stop(http);
    assert_int_equal(truncate(path, 8), 0);
    assert_int_equal(start("127.0.0.1:*", path, false, &http, &err), ASSAY_INVALID_ARGUMENT);
    unlink(path);
    assert_int_equal(start("127.0.0.1:*", path, false, &http, &err), ASSAY_NOT_FOUND);
}

static void what_is_no_endpoint_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "9464",
                                        "127.0.0.1",
                                        "127.0.0.1:",
                                        "127.0.0.1:0",
                                        "127.0.0.1:65536",
                                        ":80",
                                        "127.0.0.1:8o",
                                        "example.com:80",
                                        "[::1:80",
                                        "[]:80",
                                        "::1:80",
                                        "unix:",
                                        "127.0.0.1:-1",
                                        "127.0.0.1: 80",
                                        "127.0.0.1:99999999999999999999"};
    for (size_t i = 0; i < ASSAY_COUNT(wrong); i++) {
        struct assay_http *http = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        if (start(wrong[i], NULL, false, &http, &err) != ASSAY_INVALID_ARGUMENT)
            fail_msg("'%s' is taken for an endpoint, or refused otherwise: %s", wrong[i], err.text);
        assert_non_null(strstr(err.text, "--http"));
    }
}

static void *hammer(void *arg)
{
    char answer[4096];
    for (int i = 0; i < 20; i++)
        assert_int_equal(get(arg, "/metrics", "", answer, sizeof answer), 200);
    return NULL;
}

static void many_clients_are_answered_while_some_say_nothing(void **state)
{
    (void)state;
    struct assay_http *http = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    int silent[8];
    pthread_t threads[4];
    if (start("127.0.0.1:*", NULL, false, &http, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    void *url = (void *)(uintptr_t)assay_http_url(http);
    for (size_t i = 0; i < ASSAY_COUNT(silent); i++) {
        silent[i] = connect_to(url);
        assert_int_equal(write(silent[i], "GET /met", 8), 8);
    }
    for (size_t i = 0; i < ASSAY_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, url), 0);
    for (size_t i = 0; i < ASSAY_COUNT(threads); i++)
        pthread_join(threads[i], NULL);
    assay_http_stop(http);
    for (size_t i = 0; i < ASSAY_COUNT(silent); i++)
        close(silent[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_served_on_a_free_port_of_the_loopback),
        cmocka_unit_test(a_unix_socket_is_the_owners_alone_and_takes_a_dead_ones_place),
        cmocka_unit_test(beyond_the_loopback_a_token_or_a_word_is_wanted),
        cmocka_unit_test(what_is_no_endpoint_is_refused_with_a_sentence),
        cmocka_unit_test(many_clients_are_answered_while_some_say_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
