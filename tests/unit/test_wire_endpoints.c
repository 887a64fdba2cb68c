/* Where a server may listen, and the loop. */
#include "tests/unit/test_wire_support.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/wire/timers.h"

static enum assay_status bind_to(struct wire *wire, const char *endpoint, struct assay_err *err)
{
    struct assay_server *server = NULL;
    enum assay_status status = assay_server_new(wire->loop, endpoint, &server, err);
    if (status == ASSAY_OK)
        fail_msg("%s was taken", endpoint);
    assert_null(server);
    return status;
}

static void an_ipc_path_in_use_is_refused_and_its_owner_keeps_it(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(bind_to(wire, wire->endpoint, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, "address in use"));
    assert_non_null(strstr(err.text, wire->endpoint));
    wire_assert_alive(wire);
}

static void a_socket_file_that_a_killed_server_left_is_taken_over(void **state)
{
    struct wire *wire = *state;
    wire_stop_server(wire);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", wire->endpoint + strlen("ipc://"));
    unlink(address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(access(address.sun_path, F_OK), 0);
    wire_start_server(wire);
    wire_assert_alive(wire);
}

static void a_path_that_is_no_socket_is_left_alone(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char path[128], endpoint[160];
    snprintf(path, sizeof path, "%s/file", wire->directory);
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    FILE *file = fopen(path, "w");
    fputs("precious", file);
    fclose(file);
    assert_int_equal(bind_to(wire, endpoint, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(access(path, F_OK), 0);
}

static void free_server(void *server)
{
    assay_server_free(server);
}

static void a_tcp_port_in_use_is_named(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_server *server = NULL;
    assert_int_equal(assay_server_new(wire->loop, "tcp://127.0.0.1:*", &server, &err), ASSAY_OK);
    const char *endpoint = assay_server_endpoint(server);
    assert_true(strncmp(endpoint, "tcp://127.0.0.1:", 16) == 0 && atoi(endpoint + 16) > 0);
    assert_int_equal(bind_to(wire, endpoint, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, endpoint));
    assay_loop_call(wire->loop, free_server, server);
}

static void calls_go_over_tcp(void **state)
{
    struct wire *wire = *state;
    wire_stop_server(wire);
    assay_client_free(wire->client);
    snprintf(wire->endpoint, sizeof wire->endpoint, "tcp://127.0.0.1:*");
    wire_start_server(wire);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_client_new(wire->loop, assay_server_endpoint(wire->server), &wire->client, &err), ASSAY_OK);
    wire_assert_alive(wire);
}

/* False: this machine has no IPv6. */
static bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static void calls_go_over_ipv6(void **state)
{
    struct wire *wire = *state;
    if (!has_ipv6())
        skip();
    wire_stop_server(wire);
    assay_client_free(assay_steal(&wire->client));
    snprintf(wire->endpoint, sizeof wire->endpoint, "tcp://[::1]:*");
    wire_start_server(wire);
    const char *bound = assay_server_endpoint(wire->server);
    assert_true(strncmp(bound, "tcp://[::1]:", 12) == 0 && atoi(bound + 12) > 0);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_client_new(wire->loop, bound, &wire->client, &err), ASSAY_OK);
    wire_assert_alive(wire);
    char taken[64];
    snprintf(taken, sizeof taken, "%s", bound);
    assert_int_equal(bind_to(wire, taken, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, taken));
}

static void addresses_beyond_the_loopback_need_keys(void **state)
{
    static const char *const endpoints[] = {"tcp://0.0.0.0:5555",
                                            "tcp://*:5555",
                                            "tcp://192.168.1.1:5555",
                                            "tcp://[::]:5555",
                                            "tcp://eth0:5555",
                                            "tcp://127.0.0.1.evil.org:5555",
                                            "tcp://1270.0.0.1:1",
                                            "tcp://127.0.0:1",
                                            "tcp://127.0.0.1:1;tcp://0.0.0.0:2",
                                            "tcp://[::2]:5555",
                                            "tcp://[2001:db8::1]:5555",
                                            "tcp://[::ffff:10.0.0.1]:5555",
                                            "tcp://[::127.0.0.1]:5555"};
    for (size_t i = 0; i < ASSAY_COUNT(endpoints); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(bind_to(*state, endpoints[i], &err), ASSAY_PERMISSION_DENIED);
        assert_non_null(strstr(err.text, "CURVE"));
    }
}

static void what_is_no_endpoint_is_refused(void **state)
{
    struct wire *wire = *state;
    static const char *const endpoints[] = {"",
                                            "ipc://",
                                            "ipc://@abstract",
                                            "ipc://*",
                                            "inproc://x",
                                            "pgm://127.0.0.1:1",
                                            "tcp://",
                                            "tcp://127.0.0.1",
                                            "tcp://127.0.0.1:",
                                            "tcp://127.0.0.1:65536",
                                            "tcp://::1:5555",
                                            "tcp://::",
                                            "tcp://[::1]",
                                            "tcp://[]:5555",
                                            "tcp://[:5555",
                                            "tcp://[::1:5555",
                                            "tcp://[::g]:5555",
                                            "tcp://[127.0.0.1]:5555",
                                            "tcp://[::1%lo]:5555",
                                            "tcp://[::1]:65536"};
    struct assay_err err = ASSAY_ERR_INIT;
    for (size_t i = 0; i < ASSAY_COUNT(endpoints); i++) {
        assert_int_equal(bind_to(wire, endpoints[i], &err), ASSAY_INVALID_ARGUMENT);
        struct assay_client *client = NULL;
        assert_int_equal(assay_client_new(wire->loop, endpoints[i], &client, &err), ASSAY_INVALID_ARGUMENT);
    }
    char endpoint[200] = "ipc://";
    memset(endpoint + 6, 'a', 108);
    assert_int_equal(bind_to(wire, endpoint, &err), ASSAY_INVALID_ARGUMENT);
}

static void a_directory_that_others_may_enter_is_refused(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char path[128], endpoint[192];
    snprintf(path, sizeof path, "%s/open", wire->directory);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", path);
    assert_int_equal(bind_to(wire, endpoint, &err), ASSAY_NOT_FOUND);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 0750), 0);
    assert_int_equal(bind_to(wire, endpoint, &err), ASSAY_PERMISSION_DENIED);
    assert_non_null(strstr(err.text, "mode 750"));
}

static int order[128], order_count;

static void note(void *arg)
{
    order[order_count++] = (int)(intptr_t)arg;
}

static void timers_run_in_order_and_never_early(void **state)
{
    (void)state;
    struct assay_timers timers = {0};
    order_count = 0;
    uint64_t ids[300];
    for (int i = 0; i < 300; i++) {
        int delay_ms = (i * 7919) % 300 + 1;
        ids[i] = assay_timers_add(&timers, 1000, delay_ms, 0, note, (void *)(intptr_t)delay_ms);
        assert_true(ids[i] != 0);
    }
    for (int i = 0; i < 300; i++)
        if ((i * 7919) % 300 + 1 > 60)
            assay_timers_cancel(&timers, ids[i]);
    assay_timers_run(&timers, 1010);
    assert_int_equal(order_count, 9); /* the one of 10 ms might be early by what the clock cuts off */
    assert_int_equal(assay_timers_wait_ms(&timers, 1010), 1);
    assay_timers_run(&timers, 2000);
    assert_int_equal(order_count, 60);
    for (int i = 0; i < 60; i++)
        assert_int_equal(order[i], i + 1);
    assert_int_equal(assay_timers_wait_ms(&timers, 2000), -1);
    uint64_t again = assay_timers_add(&timers, 2000, 1, 0, note, NULL);
    for (int i = 0; i < 300; i++)
        assay_timers_cancel(&timers, ids[i]); /* ids of slots that others use by now */
    assert_int_equal(assay_timers_wait_ms(&timers, 2000), 2);
    assay_timers_cancel(&timers, again);
    assert_int_equal(assay_timers_wait_ms(&timers, 2000), -1);
    assay_timers_release(&timers);
}

static void posts_run_in_order_on_the_loops_thread(void **state)
{
    struct wire *wire = *state;
    order_count = 0;
    for (int i = 0; i < 64; i++)
        assay_loop_post(wire->loop, note, (void *)(intptr_t)i);
    assay_loop_call(wire->loop, note, (void *)64);
    assert_int_equal(order_count, 65);
    for (int i = 0; i <= 64; i++)
        assert_int_equal(order[i], i);
}

/* ZeroMQ's threads are quiet too: a loop that nobody asks anything costs nothing. */
static void an_idle_loop_does_not_spin(void **state)
{
    wire_assert_alive(*state);
    int64_t before_ms = assay_cpu_ms();
    wire_sleep_ms(300);
    assert_true(assay_cpu_ms() - before_ms < 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(an_ipc_path_in_use_is_refused_and_its_owner_keeps_it),
        WIRE_TEST(a_socket_file_that_a_killed_server_left_is_taken_over),
        WIRE_TEST(a_path_that_is_no_socket_is_left_alone),
        WIRE_TEST(a_tcp_port_in_use_is_named),
        WIRE_TEST(calls_go_over_tcp),
        WIRE_TEST(calls_go_over_ipv6),
        WIRE_TEST(addresses_beyond_the_loopback_need_keys),
        WIRE_TEST(what_is_no_endpoint_is_refused),
        WIRE_TEST(a_directory_that_others_may_enter_is_refused),
        cmocka_unit_test(timers_run_in_order_and_never_early),
        WIRE_TEST(posts_run_in_order_on_the_loops_thread),
        WIRE_TEST(an_idle_loop_does_not_spin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
