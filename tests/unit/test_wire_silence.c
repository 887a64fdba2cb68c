/* Peers that vanish or fall silent, in processes of their own. Seconds long: silence takes its time. */
#include "tests/unit/test_wire_support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/wire/limits.h"

/* ThreadSanitizer by default ends a child that starts threads when its parent had some. The children here do, and share
 * none. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* A process that calls LEASE_HOLD without a deadline, and never ends by itself. */
static pid_t start_caller(const char *endpoint)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct wire wire = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    if (assay_loop_new(&wire.loop, &err) == ASSAY_OK && assay_loop_start(wire.loop, &err) == ASSAY_OK &&
        assay_client_new(wire.loop, endpoint, &wire.client, &err) == ASSAY_OK &&
        wire_lease(&wire, LEASE_HOLD, 1, NULL, &reply, &err) == ASSAY_OK)
        _exit(0);
    _exit(err.status == ASSAY_UNAVAILABLE ? 14 : 1);
}

/* A process that serves, until it is killed. */
static pid_t start_service(struct wire *wire)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_loop_new(&wire->loop, &err) != ASSAY_OK)
        _exit(1);
    wire_start_server(wire);
    assay_loop_run(wire->loop);
    _exit(0);
}

static void make_directory(struct wire *wire)
{
    snprintf(wire->directory, sizeof wire->directory, "/tmp/assay-wire-XXXXXX");
    assert_non_null(mkdtemp(wire->directory));
    snprintf(wire->endpoint, sizeof wire->endpoint, "ipc://%s/socket", wire->directory);
    wire->stream_result = -1;
}

static void remove_directory(struct wire *wire)
{
    char path[128];
    snprintf(path, sizeof path, "%s/socket", wire->directory);
    unlink(path);
    rmdir(wire->directory);
}

static void start_here(struct wire *wire, bool server)
{
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_loop_new(&wire->loop, &err), ASSAY_OK);
    if (server)
        wire_start_server(wire);
    assert_int_equal(assay_loop_start(wire->loop, &err), ASSAY_OK);
    if (!server)
        assert_int_equal(assay_client_new(wire->loop, wire->endpoint, &wire->client, &err), ASSAY_OK);
}

static void stop_here(struct wire *wire)
{
    assay_client_free(wire->client);
    if (wire->server)
        wire_stop_server(wire);
    assay_loop_stop_join(wire->loop);
    assay_loop_free(wire->loop);
    remove_directory(wire);
}

static int await_cancel(struct wire *wire, int64_t limit_ms)
{
    int64_t before_ms = assay_now_ms();
    while (wire->cancels == 0 && assay_now_ms() - before_ms < limit_ms)
        wire_sleep_ms(5);
    return wire->cancels;
}

static void calls_of_a_killed_client_are_cancelled(void **state)
{
    (void)state;
    struct wire wire = {0};
    make_directory(&wire);
    pid_t pid = start_caller(wire.endpoint); /* before this process has threads */
    start_here(&wire, true);
    struct assay_call *call = wire_take_held(&wire);
    wire_sleep_ms(1500);
    assert_false(assay_call_cancelled(call));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(await_cancel(&wire, ASSAY_WIRE_PEER_SILENT_MS + 3000), 1);
    wire_answer_held(call, 1);
    stop_here(&wire);
}

static void a_client_that_was_stopped_for_long_learns_that_its_call_is_lost(void **state)
{
    (void)state;
    struct wire wire = {0};
    make_directory(&wire);
    pid_t pid = start_caller(wire.endpoint);
    start_here(&wire, true);
    struct assay_call *call = wire_take_held(&wire);
    kill(pid, SIGSTOP);
    assert_int_equal(await_cancel(&wire, ASSAY_WIRE_PEER_SILENT_MS + 3000), 1);
    wire_answer_held(call, 1);
    kill(pid, SIGCONT);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 14);
    stop_here(&wire);
}

static void calls_while_the_server_is_stopped_or_dead_end_unavailable(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        struct wire wire = {0};
        make_directory(&wire);
        pid_t pid = start_service(&wire);
        start_here(&wire, false);
        struct assay_call_options options = {.deadline_ms = 5000, .wait_for_ready = true};
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_reply *reply = NULL;
        assert_int_equal(wire_lease(&wire, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_OK);
        assay_reply_free(reply);
        kill(pid, round == 0 ? SIGSTOP : SIGKILL);
        int64_t before_ms = assay_now_ms();
        assert_int_equal(wire_lease(&wire, LEASE_ECHO, 1, NULL, &reply, &err), ASSAY_UNAVAILABLE);
        int64_t took_ms = assay_now_ms() - before_ms;
        /* A killed server's connection may close on the request, which ends the call at once. */
        assert_true(round == 1 || took_ms >= 3500);
        assert_true(took_ms < ASSAY_WIRE_SERVER_SILENT_MS + 2500);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        stop_here(&wire);
    }
}

static void a_call_under_way_ends_at_once_when_the_server_is_killed(void **state)
{
    (void)state;
    struct wire wire = {0};
    make_directory(&wire);
    pid_t server = start_service(&wire);
    pid_t caller = start_caller(wire.endpoint);
    wire_sleep_ms(500);
    int status = 0;
    assert_int_equal(waitpid(caller, &status, WNOHANG), 0);
    int64_t before_ms = assay_now_ms();
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    assert_int_equal(waitpid(caller, &status, 0), caller);
    assert_true(assay_now_ms() - before_ms < 3000); /* without the closed connection it would be 5 s of silence */
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 14);
    remove_directory(&wire);
}

static void a_server_that_comes_back_takes_calls_again(void **state)
{
    (void)state;
    struct wire wire = {0};
    make_directory(&wire);
    struct assay_call_options options = {.deadline_ms = 5000, .wait_for_ready = true};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    pid_t first = start_service(&wire);
    pid_t second = -1;
    /* The second one is made before this process has threads, and starts to serve when the first is gone. */
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    second = fork();
    if (second == 0) {
        char byte;
        close(gate[1]);
        if (read(gate[0], &byte, 1) < 0)
            _exit(1);
        struct assay_err child_err = ASSAY_ERR_INIT;
        if (assay_loop_new(&wire.loop, &child_err) != ASSAY_OK)
            _exit(1);
        wire_start_server(&wire);
        assay_loop_run(wire.loop);
        _exit(0);
    }
    start_here(&wire, false);
    assert_int_equal(wire_lease(&wire, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_OK);
    assay_reply_free(reply);
    kill(first, SIGKILL);
    waitpid(first, NULL, 0);
    close(gate[1]);
    wire_sleep_ms(200);
    if (wire_lease(&wire, LEASE_ECHO, 1, &options, &reply, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assay_reply_free(reply);
    kill(second, SIGKILL);
    waitpid(second, NULL, 0);
    close(gate[0]);
    stop_here(&wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_of_a_killed_client_are_cancelled),
        cmocka_unit_test(a_client_that_was_stopped_for_long_learns_that_its_call_is_lost),
        cmocka_unit_test(calls_while_the_server_is_stopped_or_dead_end_unavailable),
        cmocka_unit_test(a_call_under_way_ends_at_once_when_the_server_is_killed),
        cmocka_unit_test(a_server_that_comes_back_takes_calls_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
