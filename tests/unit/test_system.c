/* Parts of base that touch the system: settings, files, threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/digest.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/base/paths.h"
#include "common/base/pool.h"
#include "common/base/settings.h"
#include "tests/cmocka_all.h"

static struct parsed {
    const char *output;
    int64_t threads;
    double rate;
    bool loud;
    const char *positional[2];
} parsed;

#define ARGS_MAX 8

/* Arguments up to the first NULL. */
static enum assay_status parse(const char *const *given, bool output_required, struct assay_err *err)
{
    parsed = (struct parsed){.threads = 4, .rate = 0.5};
    const struct assay_setting settings[] = {
        {.name = "output", .target = &parsed.output, .argument = "FILE", .help = "h", .required = output_required},
        {.name = "io-threads", ASSAY_SETTING_INT, &parsed.threads, 1, 64, "N", "h", false},
        {.name = "rate", ASSAY_SETTING_DOUBLE, &parsed.rate, 0, 1, "R", "h", false},
        {.name = "loud", .type = ASSAY_SETTING_FLAG, .target = &parsed.loud, .help = "h"},
    };
    const struct assay_command command = {"test A [B]", "s", settings, ASSAY_COUNT(settings), parsed.positional, 1, 2};
    static char copies[ARGS_MAX][64]; /* parsed.output and the positionals point into it */
    char *argv[ARGS_MAX + 1] = {0};
    int argc = 1;
    argv[0] = strcpy(copies[0], "test");
    for (; given[argc - 1]; argc++)
        argv[argc] = strcpy(copies[argc], given[argc - 1]);
    enum assay_settings_outcome outcome;
    enum assay_status status = assay_settings_parse(&command, argc, argv, &outcome, err);
    if (status == ASSAY_OK)
        assert_int_equal(outcome, ASSAY_SETTINGS_RUN);
    return status;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void a_flag_beats_the_environment_and_that_the_default(void **state)
{
    (void)state;
    assert_int_equal(parse(ARGS("a"), false, NULL), ASSAY_OK);
    assert_int_equal(parsed.threads, 4);
    assert_int_equal(setenv("ASSAY_IO_THREADS", "8", 1), 0);
    assert_int_equal(parse(ARGS("a"), false, NULL), ASSAY_OK);
    assert_int_equal(parsed.threads, 8);
    assert_int_equal(parse(ARGS("a", "--io-threads", "9"), false, NULL), ASSAY_OK);
    assert_int_equal(parsed.threads, 9);
    assert_int_equal(setenv("ASSAY_IO_THREADS", "many", 1), 0);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(parse(ARGS("a"), false, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "ASSAY_IO_THREADS"));
    unsetenv("ASSAY_IO_THREADS");
}

static void flags_and_arguments_may_stand_in_any_order(void **state)
{
    (void)state;
    assert_int_equal(parse(ARGS("--rate=0.25", "a", "--loud", "b", "-o", "x"), true, NULL), ASSAY_OK);
    assert_true(parsed.rate == 0.25 && parsed.loud);
    assert_string_equal(parsed.output, "x");
    assert_string_equal(parsed.positional[0], "a");
    assert_string_equal(parsed.positional[1], "b");
    assert_int_equal(parse(ARGS("--", "--loud"), false, NULL), ASSAY_OK);
    assert_string_equal(parsed.positional[0], "--loud");
    assert_false(parsed.loud);
    assert_int_equal(parse(ARGS("-"), false, NULL), ASSAY_OK);
    assert_string_equal(parsed.positional[0], "-");
}

static void a_bad_value_is_answered_with_key_value_and_range(void **state)
{
    (void)state;
    static const struct {
        const char *args[3], *sentence;
    } cases[] = {
        {{"a", "--io-threads=0"}, "--io-threads: found '0', wanted a whole number from 1 to 64"},
        {{"a", "--io-threads=65"}, "found '65'"},
        {{"a", "--io-threads=4x"}, "found '4x'"},
        {{"a", "--io-threads="}, "found ''"},
        {{"a", "--io-threads=99999999999999999999"}, "found '99999999999999999999'"},
        {{"a", "--rate=nan"}, "--rate: found 'nan', wanted a number from 0 to 1"},
        {{"a", "--rate=1e-999"}, "--rate"},
        {{"a", "--loud=yes"}, "--loud: found 'yes', wanted true or false"},
        {{"a", "--rate"}, "--rate wants a value"},
        {{"a", "--quiet"}, "unknown option --quiet"},
        {{"--loud"}, "found 0 arguments, wanted 1"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(parse(cases[i].args, false, &err), ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, cases[i].sentence))
            fail_msg("case %zu: wanted '%s', found '%s'", i, cases[i].sentence, err.text);
    }
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(parse(ARGS("a", "b", "c"), false, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "unexpected argument 'c'"));
    assert_int_equal(parse(ARGS("a"), true, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "--output FILE is missing"));
}

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/assay-test-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return assay_remove_tree(dir, NULL) == ASSAY_OK ? 0 : -1;
}

static const char *in_dir(const char *name, char path[ASSAY_PATH_MAX])
{
    assert_int_equal(assay_path_join(path, dir, name, NULL), ASSAY_OK);
    return path;
}

static void only_plain_names_are_names(void **state)
{
    (void)state;
    assert_true(assay_path_is_name("a"));
    assert_true(assay_path_is_name("..."));
    static const char *const others[] = {"", ".", "..", "/", "a/b", "../a"};
    for (size_t i = 0; i < ASSAY_COUNT(others); i++)
        assert_false(assay_path_is_name(others[i]));
    char path[ASSAY_PATH_MAX], big[ASSAY_PATH_MAX];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    assert_int_equal(assay_path_join(path, big, "b", NULL), ASSAY_INVALID_ARGUMENT);
}

static void a_written_file_is_read_back_whole_and_alone(void **state)
{
    (void)state;
    char path[ASSAY_PATH_MAX], *text = NULL;
    size_t len = 0;
    in_dir("file", path);
    assert_int_equal(assay_file_write(path, "first version", 13, NULL), ASSAY_OK);
    assert_int_equal(assay_file_write(path, "a\0b", 3, NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, 3, &text, &len, NULL), ASSAY_OK);
    assert_int_equal(len, 3);
    assert_memory_equal(text, "a\0b", 4);
    free(text);
    assert_int_equal(assay_file_read(path, 2, &text, &len, NULL), ASSAY_RESOURCE_EXHAUSTED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(assay_file_read(path, 3, &text, &len, NULL), ASSAY_NOT_FOUND);
    assert_int_equal(assay_file_write(path, "x", 1, NULL), ASSAY_NOT_FOUND);
}

static void a_large_file_is_read_whole(void **state)
{
    (void)state;
    enum { BYTES = 300 * 1000 };
    char path[ASSAY_PATH_MAX], *bytes = malloc(BYTES), *back = NULL;
    size_t len = 0;
    assert_non_null(bytes);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (char)(i * 7 % 251);
    assert_int_equal(assay_file_write(in_dir("file", path), bytes, BYTES, NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, BYTES, &back, &len, NULL), ASSAY_OK);
    assert_int_equal(len, BYTES);
    assert_memory_equal(back, bytes, BYTES);
    free(bytes);
    free(back);
}

static void directories_are_made_with_their_parents_and_removed_without_following_links(void **state)
{
    (void)state;
    char deep[ASSAY_PATH_MAX], kept[ASSAY_PATH_MAX], link[ASSAY_PATH_MAX], tree[ASSAY_PATH_MAX];
    in_dir("kept", kept);
    in_dir("tree", tree);
    assert_int_equal(assay_mkdirs(in_dir("tree/b/c", deep), 0700, NULL), ASSAY_OK);
    assert_int_equal(assay_mkdirs(deep, 0700, NULL), ASSAY_OK);
    assert_int_equal(assay_mkdirs(kept, 0700, NULL), ASSAY_OK);
    assert_int_equal(symlink(kept, in_dir("tree/b/link", link)), 0);
    assert_int_equal(assay_remove_tree(tree, NULL), ASSAY_OK);
    assert_int_equal(access(tree, F_OK), -1);
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(assay_remove_tree(tree, NULL), ASSAY_OK);
    assert_int_equal(assay_file_write(tree, "", 0, NULL), ASSAY_OK);
    assert_int_not_equal(assay_mkdirs(in_dir("tree/b", deep), 0700, NULL), ASSAY_OK);
}

static void only_regular_files_are_mapped_and_an_empty_one_is_empty(void **state)
{
    (void)state;
    char path[ASSAY_PATH_MAX];
    struct assay_mapping mapping = {0};
    in_dir("file", path);
    assert_int_equal(assay_file_write(path, "abc", 3, NULL), ASSAY_OK);
    assert_int_equal(assay_map_file(path, &mapping, NULL), ASSAY_OK);
    assert_int_equal(mapping.bytes, 3);
    assert_memory_equal(mapping.data, "abc", 3);
    assay_unmap(&mapping);
    assert_null(mapping.data);
    assert_int_equal(assay_file_write(path, "", 0, NULL), ASSAY_OK);
    assert_int_equal(assay_map_file(path, &mapping, NULL), ASSAY_OK);
    assert_int_equal(mapping.bytes, 0);
    assay_unmap(&mapping);
    assert_int_equal(assay_map_file(dir, &mapping, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_map_file("/nonexistent", &mapping, NULL), ASSAY_NOT_FOUND);
}

static void a_directory_given_as_a_file_is_the_callers_mistake(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    struct assay_digest digest;
    assert_int_equal(assay_file_read(dir, 100, &text, &len, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_digest_file(dir, &digest, NULL), ASSAY_INVALID_ARGUMENT);
}

enum { INDEXES = 1000, THREADS = 4 };

struct counted {
    atomic_int calls[INDEXES];
    atomic_bool bad_thread;
};

static void count_call(void *arg, size_t index, size_t thread)
{
    struct counted *counted = arg;
    atomic_fetch_add(&counted->calls[index], 1);
    if (thread >= THREADS)
        atomic_store(&counted->bad_thread, true);
}

static void expect_calls(struct counted *counted, size_t count, int calls)
{
    for (size_t i = 0; i < INDEXES; i++)
        assert_int_equal(atomic_load(&counted->calls[i]), i < count ? calls : 0);
    assert_false(atomic_load(&counted->bad_thread));
}

/* Threads that look for work as those that sleep: with a CPU for each or without, at once and after a while, in quick
 * succession or not. */
static void a_pool_calls_each_index_once_and_returns_when_all_are_done(void **state)
{
    (void)state;
    static const size_t threads[] = {1, 2, THREADS}, counts[] = {0, 1, 2, 3, 5, INDEXES};
    for (size_t t = 0; t < ASSAY_COUNT(threads); t++) {
        struct assay_pool *pool = NULL;
        assert_int_equal(assay_pool_new(threads[t], NULL, &pool, NULL), ASSAY_OK);
        assert_int_equal(assay_pool_threads(pool), threads[t]);
        for (int round = 0; round < 50; round++) {
            if (round % 4 == 1)
                assay_pool_quick_begin(pool);
            for (size_t i = 0; i < ASSAY_COUNT(counts); i++) {
                struct counted counted = {0};
                assay_pool_run(pool, counts[i], count_call, &counted);
                expect_calls(&counted, counts[i], 1);
            }
            if (round % 4 == 3)
                assay_pool_quick_end(pool);
            if (round % 10 == 0)
                usleep(1000);
        }
        assay_pool_free(pool);
    }
    assay_pool_free(NULL);
}

struct caller {
    struct assay_pool *pool;
    struct counted counted;
};

static void *run_often(void *arg)
{
    struct caller *caller = arg;
    for (int i = 0; i < 20; i++)
        assay_pool_run(caller->pool, INDEXES, count_call, &caller->counted);
    return NULL;
}

static void concurrent_callers_of_a_pool_wait_their_turn(void **state)
{
    (void)state;
    static struct caller callers[3];
    struct assay_pool *pool = NULL;
    pthread_t threads[ASSAY_COUNT(callers)];
    assert_int_equal(assay_pool_new(THREADS, NULL, &pool, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(callers); i++) {
        callers[i].pool = pool;
        assert_int_equal(pthread_create(&threads[i], NULL, run_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < ASSAY_COUNT(callers); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        expect_calls(&callers[i].counted, INDEXES, 20);
    }
    assay_pool_free(pool);
}

static void bad_lists_of_cpus_and_counts_of_threads_are_refused(void **state)
{
    (void)state;
    struct assay_pool *pool = NULL;
    static const char *const lists[] = {"a", "0-", "-1", "1-0", "0,,1", "0 1", "99999", "0-99999", "0;1"};
    for (size_t i = 0; i < ASSAY_COUNT(lists); i++)
        assert_int_equal(assay_pool_new(2, lists[i], &pool, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_pool_new(0, NULL, &pool, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_pool_new(ASSAY_POOL_THREADS_MAX + 1, NULL, &pool, NULL), ASSAY_INVALID_ARGUMENT);
    assert_null(pool);
    assert_true(assay_cpu_count() >= 1);
}

static void the_data_directory_is_the_given_one_or_that_of_the_environment(void **state)
{
    (void)state;
    char path[ASSAY_PATH_MAX];
    assert_int_equal(setenv("XDG_DATA_HOME", "/x", 1) | setenv("HOME", "/h", 1), 0);
    assert_int_equal(assay_data_dir("/given", path, NULL), ASSAY_OK);
    assert_string_equal(path, "/given");
    assert_int_equal(assay_data_dir(NULL, path, NULL), ASSAY_OK);
    assert_string_equal(path, "/x/assay");
    assert_int_equal(unsetenv("XDG_DATA_HOME"), 0);
    assert_int_equal(assay_data_dir("", path, NULL), ASSAY_OK);
    assert_string_equal(path, "/h/.local/share/assay");
    assert_int_equal(unsetenv("HOME"), 0);
    assert_int_equal(assay_data_dir(NULL, path, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_data_dir("relative", path, NULL), ASSAY_OK);
    assert_int_equal(path[0], '/');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flag_beats_the_environment_and_that_the_default),
        cmocka_unit_test(flags_and_arguments_may_stand_in_any_order),
        cmocka_unit_test(a_bad_value_is_answered_with_key_value_and_range),
        cmocka_unit_test(only_plain_names_are_names),
        cmocka_unit_test_setup_teardown(a_written_file_is_read_back_whole_and_alone, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_large_file_is_read_whole, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(directories_are_made_with_their_parents_and_removed_without_following_links,
                                        make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(only_regular_files_are_mapped_and_an_empty_one_is_empty, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(a_directory_given_as_a_file_is_the_callers_mistake, make_dir, remove_dir),
        cmocka_unit_test(a_pool_calls_each_index_once_and_returns_when_all_are_done),
        cmocka_unit_test(concurrent_callers_of_a_pool_wait_their_turn),
        cmocka_unit_test(bad_lists_of_cpus_and_counts_of_threads_are_refused),
        cmocka_unit_test(the_data_directory_is_the_given_one_or_that_of_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
