/* Decisions of `assay up`, and its child processes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/child.h"
#include "cli/stack_lock.h"
#include "cli/stack_plan.h"
#include "common/base/clock.h"
#include "common/base/exit_code.h"

static void worker_plans_name_precisions_and_their_cpus(void **state)
{
    struct assay_worker_plan plans[ASSAY_STACK_WORKERS_MAX];
    size_t count = 99;
    (void)state;
    assert_int_equal(assay_worker_plans_parse("fp32:0-3,8;int8:4-7", plans, &count, NULL), ASSAY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(plans[0].precision, "fp32");
    assert_string_equal(plans[0].cpus, "0-3,8");
    assert_string_equal(plans[1].cpus, "4-7");
    assert_int_equal(assay_worker_plans_parse("fp32,int8,int8:1", plans, &count, NULL), ASSAY_OK);
    assert_int_equal(count, 3);
    assert_string_equal(plans[1].cpus, "");
    assert_string_equal(plans[2].cpus, "1");
    assert_int_equal(assay_worker_plans_parse("", plans, &count, NULL), ASSAY_OK);
    assert_int_equal(count, 0);
    assert_int_equal(assay_worker_plans_parse(NULL, plans, &count, NULL), ASSAY_OK);
}

static void bad_worker_plans_are_refused_with_a_sentence(void **state)
{
    static const char *const bad[] = {":0-3", "fp32:",     "fp32:x",     "fp32;;int8", "../x",    "fp32:3-1",
                                      "-v:0", "fp32:1,,2", "fp32:99999", "fp32:0-",    "int 8:1", ";"};
    struct assay_worker_plan plans[ASSAY_STACK_WORKERS_MAX];
    char many[5 * (ASSAY_STACK_WORKERS_MAX + 2)] = "";
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        size_t count;
        if (assay_worker_plans_parse(bad[i], plans, &count, &err) != ASSAY_INVALID_ARGUMENT || !err.text[0])
            fail_msg("'%s' was not refused", bad[i]);
    }
    for (size_t i = 0; i <= ASSAY_STACK_WORKERS_MAX; i++)
        strcat(many, "fp4;");
    size_t count;
    assert_int_equal(assay_worker_plans_parse(many, plans, &count, NULL), ASSAY_INVALID_ARGUMENT);
}

static void external_precisions_are_a_list_or_all(void **state)
{
    static const char *const bad[] = {
        ",", "fp32,", "fp32,,nf4", "int 8", "-v", "fp32;nf4", "0123456789012345678901234567890123"};
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        if (assay_external_check(bad[i], &err) != ASSAY_INVALID_ARGUMENT || !err.text[0])
            fail_msg("'%s' was not refused", bad[i]);
    }
    assert_int_equal(assay_external_check(NULL, NULL), ASSAY_OK);
    assert_int_equal(assay_external_check("fp32,nf4", NULL), ASSAY_OK);
    assert_true(assay_external_has("fp32,nf4", "fp32"));
    assert_true(assay_external_has("fp32,nf4", "nf4"));
    assert_false(assay_external_has("fp32,nf4", "fp3"));
    assert_false(assay_external_has("fp32,nf4", "int8"));
    assert_false(assay_external_has("", "fp32"));
    assert_false(assay_external_has(NULL, "fp32"));
    assert_true(assay_external_has("all", "int8"));
}

static void the_fifth_death_within_a_minute_gives_up(void **state)
{
    struct assay_restarts restarts = {0};
    int64_t delay = 0, now = 1000;
    (void)state;
    for (int i = 0; i < ASSAY_RESTARTS_MAX - 1; i++) {
        assert_true(assay_restarts_died(&restarts, now, &delay));
        assert_int_equal(delay, ASSAY_RESTART_FIRST_MS << i);
        now += 10000;
    }
    assert_false(assay_restarts_died(&restarts, now, &delay));
}

static void deaths_far_apart_are_always_mended(void **state)
{
    struct assay_restarts restarts = {0};
    int64_t delay = 0;
    (void)state;
    for (int64_t i = 0; i < 100; i++)
        assert_true(assay_restarts_died(&restarts, i * (ASSAY_RESTARTS_WINDOW_MS / 3), &delay));
}

static void the_last_line_of_a_log_is_its_sentence(void **state)
{
    static const char *const rows[][2] = {
        {"one\ntwo\n\n", "two"},
        {"2026-01-31T12:00:00.000Z error coordinator address in use\n", "address in use"},
        {"2026-01-31T12:00:00.000Z short", "2026-01-31T12:00:00.000Z short"},
        {"", ""},
        {"\n\n", ""},
        {"a\x1b[31mred", "a [31mred"},
    };
    char sentence[64];
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        assay_log_last_sentence(rows[i][0], strlen(rows[i][0]), sentence, sizeof sentence);
        assert_string_equal(sentence, rows[i][1]);
    }
    assay_log_last_sentence("0123456789", 10, sentence, 5);
    assert_string_equal(sentence, "0123");
}

static void the_exit_code_of_a_child_becomes_ours(void **state)
{
    (void)state;
    for (int code = ASSAY_EXIT_BAD_INPUT; code <= ASSAY_EXIT_CANCELLED; code++)
        assert_int_equal(assay_exit_code(assay_status_of_wait(W_EXITCODE(code, 0))), code);
    assert_int_equal(assay_status_of_wait(W_EXITCODE(ASSAY_EXIT_USAGE, 0)), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_status_of_wait(W_EXITCODE(0, SIGKILL)), ASSAY_INTERNAL);
    assert_int_equal(assay_status_of_wait(W_EXITCODE(0, 0)), ASSAY_INTERNAL);
}

static void start_shell(struct assay_child *child, const char *dir, const char *script)
{
    const char *const arguments[] = {"-c", script, NULL};
    assert_int_equal(assay_child_init(child, "shell", dir, "/bin/sh", NULL), ASSAY_OK);
    assert_int_equal(assay_child_arguments(child, arguments, NULL), ASSAY_OK);
    assert_int_equal(assay_child_start(child, NULL), ASSAY_OK);
}

static int wait_for_end(struct assay_child *child)
{
    int wait_status = 0;
    int64_t deadline_ms = assay_now_ms() + 10000;
    while (!assay_child_ended(child, &wait_status)) {
        const struct timespec pause = {.tv_nsec = 5000000};
        assert_true(assay_now_ms() < deadline_ms);
        nanosleep(&pause, NULL);
    }
    return wait_status;
}

static void a_child_that_dies_tells_its_last_line_of_this_run(void **state)
{
    char dir[] = "/tmp/assay-child-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    for (int run = 0; run < 2; run++) {
        struct assay_child child = {0};
        struct assay_err err = ASSAY_ERR_INIT;
        start_shell(&child, dir, run == 0 ? "echo first >&2; echo port in use >&2; exit 6" : "exit 4");
        int wait_status = wait_for_end(&child);
        assert_int_equal(child.pid, 0);
        assert_int_equal(assay_exit_code(assay_child_sentence(&child, wait_status, &err)), run == 0 ? 6 : 4);
        assert_string_equal(err.text, run == 0 ? "shell ended with exit code 6: port in use"
                                               : "shell ended with exit code 4: it said nothing");
        assay_child_release(&child);
    }
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
}

static void a_child_does_not_see_what_the_supervisor_decides(void **state)
{
    char dir[] = "/tmp/assay-child-XXXXXX";
    struct assay_child child = {0};
    (void)state;
    assert_non_null(mkdtemp(dir));
    setenv("ASSAY_LISTEN", "tcp://127.0.0.1:1", 1);
    setenv("ASSAY_BATCH_TOKENS", "7", 1);
    start_shell(&child, dir, "test -z \"$ASSAY_LISTEN\" && test \"$ASSAY_BATCH_TOKENS\" = 7 && exit 10; exit 5");
    int wait_status = wait_for_end(&child);
    assert_true(WIFEXITED(wait_status));
    assert_int_equal(WEXITSTATUS(wait_status), 10);
    unsetenv("ASSAY_LISTEN");
    assay_child_release(&child);
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
}

static void children_end_when_their_supervisor_is_killed(void **state)
{
    char dir[] = "/tmp/assay-child-XXXXXX";
    int pipe_fds[2];
    pid_t grandchild = 0;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t supervisor = fork();
    if (supervisor == 0) {
        struct assay_child child = {0};
        start_shell(&child, dir, "echo started; exec sleep 100");
        if (write(pipe_fds[1], &child.pid, sizeof child.pid) != sizeof child.pid)
            _exit(1);
        pause();
        _exit(0);
    }
    close(pipe_fds[1]);
    assert_int_equal(read(pipe_fds[0], &grandchild, sizeof grandchild), sizeof grandchild);
    close(pipe_fds[0]);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    int64_t deadline_ms = assay_now_ms() + 10000;
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)grandchild);
    for (;;) { /* gone, or a zombie that nobody reaps */
        FILE *file = fopen(path, "re");
        bool alive = file && fgets(text, sizeof text, file) && strrchr(text, ')') && strrchr(text, ')')[2] != 'Z';
        if (file)
            fclose(file);
        if (!alive)
            break;
        assert_true(assay_now_ms() < deadline_ms);
        const struct timespec wait = {.tv_nsec = 5000000};
        nanosleep(&wait, NULL);
    }
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
}

static void a_data_directory_has_one_holder_and_a_dead_one_counts_for_nothing(void **state)
{
    char dir[] = "/tmp/assay-lock-XXXXXX", run[64];
    struct assay_stack_holder holder;
    struct assay_err err = ASSAY_ERR_INIT;
    int fd = -1, second = -1;
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(run, sizeof run, "%s/run", dir);
    assert_int_equal(assay_stack_lock_look(dir, &holder, NULL), ASSAY_OK);
    assert_false(holder.running);
    assert_int_equal(assay_mkdirs(run, 0700, NULL), ASSAY_OK);
    assert_int_equal(assay_stack_lock_take(dir, "ipc:///x/y.sock", &fd, NULL), ASSAY_OK);
    assert_int_equal(assay_stack_lock_look(dir, &holder, NULL), ASSAY_OK);
    assert_true(holder.running);
    assert_int_equal(holder.pid, getpid());
    assert_string_equal(holder.endpoint, "ipc:///x/y.sock");
    assert_int_equal(assay_stack_lock_take(dir, "ipc:///z", &second, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, "runs on"));
    close(fd);
    assert_int_equal(assay_stack_lock_look(dir, &holder, NULL), ASSAY_OK);
    assert_false(holder.running);
    assert_int_equal(holder.pid, 0);
    assert_int_equal(assay_stack_lock_take(dir, "ipc:///z", &second, NULL), ASSAY_OK);
    assay_stack_lock_drop(second);
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worker_plans_name_precisions_and_their_cpus),
        cmocka_unit_test(bad_worker_plans_are_refused_with_a_sentence),
        cmocka_unit_test(external_precisions_are_a_list_or_all),
        cmocka_unit_test(the_fifth_death_within_a_minute_gives_up),
        cmocka_unit_test(deaths_far_apart_are_always_mended),
        cmocka_unit_test(the_last_line_of_a_log_is_its_sentence),
        cmocka_unit_test(the_exit_code_of_a_child_becomes_ours),
        cmocka_unit_test(a_child_that_dies_tells_its_last_line_of_this_run),
        cmocka_unit_test(a_child_does_not_see_what_the_supervisor_decides),
        cmocka_unit_test(children_end_when_their_supervisor_is_killed),
        cmocka_unit_test(a_data_directory_has_one_holder_and_a_dead_one_counts_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
