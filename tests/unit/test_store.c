#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/store/store.h"

static const char *const TABLES[] = {"a", "b", NULL};

static int make_dir(void **state)
{
    char path[] = "/tmp/assay-store-XXXXXX";
    if (!mkdtemp(path))
        return -1;
    *state = strdup(path);
    return 0;
}

static int remove_dir(void **state)
{
    enum assay_status status = assay_remove_tree(*state, NULL);
    free(*state);
    return status == ASSAY_OK ? 0 : -1;
}

static struct assay_store *open_store(const char *dir, bool durable)
{
    struct assay_store *store = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_store_options options = {dir, TABLES, durable};
    if (assay_store_open(&options, &store, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return store;
}

static unsigned char *pattern(size_t bytes, unsigned seed)
{
    unsigned char *value = malloc(bytes + 1);
    assert_non_null(value);
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < bytes; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        value[i] = (unsigned char)x;
    }
    return value;
}

static void put(struct assay_store *store, const char *table, const char *key, const void *value, size_t bytes)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_put one = {table, key, strlen(key), value, bytes};
    if (assay_store_put(store, &one, 1, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
}

static enum assay_status get(struct assay_store *store, const char *table, const char *key, void **ret, size_t *bytes)
{
    return assay_store_get(store, table, key, strlen(key), ret, bytes, NULL);
}

static void expect(struct assay_store *store, const char *table, const char *key, const void *value, size_t bytes)
{
    void *got = NULL;
    size_t got_bytes = 0;
    assert_int_equal(get(store, table, key, &got, &got_bytes), ASSAY_OK);
    assert_int_equal(got_bytes, bytes);
    assert_true(memcmp(got, value, bytes) == 0);
    free(got);
}

static void values_of_any_size_come_back_also_after_a_restart(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 4000, 16335, 16336, 16337, 16368, 16369, 32736, 32737, 1000000, 40000000};
    char key[32];
    for (int round = 0; round < 2; round++) {
        struct assay_store *store = open_store(*state, round == 0);
        for (size_t i = 0; i < ASSAY_COUNT(sizes); i++) {
            unsigned char *value = pattern(sizes[i], (unsigned)i);
            snprintf(key, sizeof key, "key %zu", sizes[i]);
            if (round == 0)
                put(store, "a", key, value, sizes[i]);
            expect(store, "a", key, value, sizes[i]);
            free(value);
        }
        bool there = true;
        assert_int_equal(assay_store_has(store, "b", "key 1", 5, &there, NULL), ASSAY_OK);
        assert_false(there);
        assay_store_close(store);
    }
}

static void overwriting_and_deleting_give_pages_back(void **state)
{
    struct assay_store *store = open_store(*state, false);
    void *got;
    size_t bytes;
    uint64_t before = assay_store_bytes(store);
    unsigned char *big = pattern(3000000, 1), *other = pattern(2999999, 2);
    put(store, "a", "k", big, 3000000);
    put(store, "a", "k", other, 2999999);
    expect(store, "a", "k", other, 2999999);
    put(store, "a", "k", "small", 5);
    expect(store, "a", "k", "small", 5);
    for (int i = 0; i < 20; i++)
        put(store, "a", "k", big, 3000000);
    put(store, "a", "k", NULL, 0);
    put(store, "a", "never there", NULL, 0);
    assert_int_equal(get(store, "a", "k", &got, &bytes), ASSAY_NOT_FOUND);
    put(store, "a", "x", "1", 1);
    assert_true(assay_store_bytes(store) < before + 200000);
    char path[ASSAY_PATH_MAX];
    struct stat info;
    assert_int_equal(assay_path_join(path, *state, "data.mdb", NULL), ASSAY_OK);
    assert_int_equal(stat(path, &info), 0);
    assert_true(info.st_size < 16000000); /* 60 MB were written */
    free(big);
    free(other);
    assay_store_close(store);
}

static void a_batch_is_written_whole_or_not_at_all(void **state)
{
    struct assay_store *store = open_store(*state, true);
    struct assay_err err = ASSAY_ERR_INIT;
    void *got;
    size_t bytes;
    struct assay_put puts[] = {{"a", "one", 3, "1", 1}, {"nowhere", "two", 3, "2", 1}};
    assert_int_equal(assay_store_put(store, puts, 2, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "nowhere"));
    assert_int_equal(get(store, "a", "one", &got, &bytes), ASSAY_NOT_FOUND);
    char key[401] = "x";
    struct assay_put longest = {"a", key, 400, "v", 1}, longer = {"a", key, 401, "v", 1}, none = {"a", key, 0, "v", 1};
    assert_int_equal(assay_store_put(store, &longest, 1, NULL), ASSAY_OK);
    assert_int_equal(assay_store_put(store, &longer, 1, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_store_put(store, &none, 1, NULL), ASSAY_INVALID_ARGUMENT);
    assay_store_close(store);
}

struct seen {
    char keys[256];
    size_t bytes;
    size_t stop_after;
    size_t count;
};

static bool note(void *arg, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct seen *seen = arg;
    strncat(seen->keys, key, key_bytes);
    strcat(seen->keys, " ");
    seen->bytes += value_bytes;
    if (value)
        assert_int_equal(((const char *)value)[value_bytes], 0);
    return ++seen->count != seen->stop_after;
}

static void a_visit_sees_the_keys_of_a_prefix_in_order(void **state)
{
    struct assay_store *store = open_store(*state, true);
    unsigned char *big = pattern(100000, 3);
    put(store, "a", "job/2", big, 100000);
    put(store, "a", "job/1", "xy", 2);
    put(store, "a", "joc", "z", 1);
    put(store, "a", "a", "z", 1);
    put(store, "b", "job/0", "z", 1);
    struct seen with = {0}, without = {0}, all = {.stop_after = 2};
    assert_int_equal(assay_store_visit(store, "a", "job/", 4, true, note, &with, NULL), ASSAY_OK);
    assert_string_equal(with.keys, "job/1 job/2 ");
    assert_int_equal(with.bytes, 100002);
    assert_int_equal(assay_store_visit(store, "a", "job/", 4, false, note, &without, NULL), ASSAY_OK);
    assert_int_equal(without.bytes, 100002);
    assert_int_equal(assay_store_visit(store, "a", NULL, 0, false, note, &all, NULL), ASSAY_OK);
    assert_string_equal(all.keys, "a job/1 ");
    free(big);
    assay_store_close(store);
}

/* Flips one bit of every copy of the needle in data.mdb: earlier ones may stand in free pages. */
static void flip(const char *dir, const void *needle, size_t bytes)
{
    char path[ASSAY_PATH_MAX];
    struct assay_mapping file;
    assert_int_equal(assay_path_join(path, dir, "data.mdb", NULL), ASSAY_OK);
    assert_int_equal(assay_map_file(path, &file, NULL), ASSAY_OK);
    int fd = open(path, O_WRONLY);
    size_t flips = 0;
    for (const unsigned char *at = file.data; (at = memmem(at, file.bytes - (size_t)(at - file.data), needle, bytes));
         at++) {
        unsigned char flipped = *at ^ 0x10;
        assert_int_equal(pwrite(fd, &flipped, 1, at - file.data), 1);
        flips++;
    }
    assert_true(flips > 0);
    close(fd);
    assay_unmap(&file);
}

static void a_flipped_bit_is_found_and_the_value_dropped(void **state)
{
    void *got = NULL;
    size_t bytes = 0;
    unsigned char *big = pattern(200000, 4);
    struct assay_store *store = open_store(*state, false);
    put(store, "a", "big", big, 200000);
    put(store, "a", "small", "some small value", 16);
    put(store, "a", "sound", "a sound value", 13);
    assay_store_close(store);
    flip(*state, big + 150000, 64);
    flip(*state, "some small value", 16);
    store = open_store(*state, false);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_store_get(store, "a", "big", 3, &got, &bytes, &err), ASSAY_DATA_LOSS);
    assert_null(got);
    assert_non_null(strstr(err.text, "dropped"));
    assert_int_equal(get(store, "a", "big", &got, &bytes), ASSAY_NOT_FOUND);
    struct seen seen = {0};
    assert_int_equal(assay_store_visit(store, "a", NULL, 0, true, note, &seen, NULL), ASSAY_DATA_LOSS);
    assert_string_equal(seen.keys, "sound ");
    assert_int_equal(get(store, "a", "small", &got, &bytes), ASSAY_NOT_FOUND);
    put(store, "a", "big", big, 200000);
    expect(store, "a", "big", big, 200000);
    free(big);
    assay_store_close(store);
}

static void expect_refused(const char *dir, enum assay_status want, const char *words)
{
    struct assay_store *store = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_store_options options = {dir, TABLES, false};
    assert_int_equal(assay_store_open(&options, &store, &err), want);
    assert_null(store);
    if (!strstr(err.text, words))
        fail_msg("wanted '%s' in: %s", words, err.text);
}

static void fill_keys(struct assay_store *store, size_t count)
{
    char key[64];
    unsigned char *value = pattern(20000, 5);
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof key, "a key that takes some room %06zu", i);
        put(store, "b", key, value, i % 16 == 0 ? 20000 : 700);
        if (i % 5 == 4)
            put(store, "b", key, NULL, 0);
    }
    free(value);
}

/* The file with one page replaced. */
static void write_file(const char *path, const char *whole, size_t bytes, const unsigned char *page, size_t at)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(pwrite(fd, whole, bytes, 0), bytes);
    assert_int_equal(pwrite(fd, page, 4096, (off_t)at), 4096);
    close(fd);
}

static void a_cut_or_overwritten_file_is_refused_with_a_sentence(void **state)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *whole = NULL;
    size_t bytes, refused = 0;
    struct assay_store *store = open_store(*state, false);
    fill_keys(store, 120);
    assay_store_close(store);
    assert_int_equal(assay_path_join(path, *state, "data.mdb", NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, 1 << 30, &whole, &bytes, NULL), ASSAY_OK);
    static const size_t cuts[] = {0, 1, 4096, 8191, 8192, 40960};
    for (size_t i = 0; i < ASSAY_COUNT(cuts); i++) {
        assert_int_equal(assay_file_write(path, whole, cuts[i], NULL), ASSAY_OK);
        expect_refused(*state, ASSAY_DATA_LOSS, "damaged");
    }
    assert_int_equal(unlink(path), 0);
    expect_refused(*state, ASSAY_DATA_LOSS, "missing");
    /* One page of garbage: either the structure shows it, or it lies in a value and every value is checked, or it was
     * free. */
    unsigned char *garbage = pattern(4096, 6);
    for (size_t at = 0; at + 4096 <= bytes; at += 4096) {
        write_file(path, whole, bytes, garbage, at);
        struct assay_store_options options = {*state, TABLES, false};
        enum assay_status status = assay_store_open(&options, &store, NULL);
        if (status != ASSAY_OK) {
            assert_int_equal(status, ASSAY_DATA_LOSS);
            refused++;
            continue;
        }
        struct seen seen = {0};
        seen.keys[0] = '\0';
        status = assay_store_visit(store, "b", "a key that takes some room 000001", 33, true, note, &seen, NULL);
        assert_true(status == ASSAY_OK || status == ASSAY_DATA_LOSS);
        assay_store_close(store);
    }
    assert_true(refused >= 10);
    free(garbage);
}

/* The page of the overflow run that a key's entry names: behind the key, in every copy of the entry. */
static unsigned char *page_of(char *file, size_t bytes, const char *key, size_t skip)
{
    char *at = file;
    for (size_t i = 0; (at = memmem(at, bytes - (size_t)(at - file), key, strlen(key))); i++, at++)
        if (i == skip)
            return (unsigned char *)at + strlen(key);
    return NULL;
}

static void a_page_with_two_owners_is_found(void **state)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *file = NULL;
    size_t bytes;
    unsigned char *value = pattern(5000, 9), *to;
    struct assay_store *store = open_store(*state, true);
    struct assay_put puts[] = {{"a", "owner-1", 7, value, 5000}, {"a", "owner-2", 7, value, 5000}};
    assert_int_equal(assay_store_put(store, puts, 2, NULL), ASSAY_OK);
    assay_store_close(store);
    assert_int_equal(assay_path_join(path, *state, "data.mdb", NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, 1 << 30, &file, &bytes, NULL), ASSAY_OK);
    const unsigned char *from = page_of(file, bytes, "owner-1", 0);
    assert_non_null(from);
    for (size_t i = 0; (to = page_of(file, bytes, "owner-2", i)); i++)
        memcpy(to, from, sizeof(uint64_t));
    assert_int_equal(assay_file_write(path, file, bytes, NULL), ASSAY_OK);
    expect_refused(*state, ASSAY_DATA_LOSS, "used twice");
    free(value);
}

static void commits_that_a_power_loss_may_have_torn_are_not_trusted(void **state)
{
    char path[ASSAY_PATH_MAX];
    struct assay_store *store = open_store(*state, false);
    assert_int_equal(assay_path_join(path, *state, "unsynced", NULL), ASSAY_OK);
    put(store, "a", "k", "v", 1);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(assay_store_sync(store, NULL), ASSAY_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    put(store, "a", "k", "w", 1);
    assert_int_equal(access(path, F_OK), 0);
    assay_store_close(store);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(assay_file_write(path, "another boot", 12, NULL), ASSAY_OK);
    expect_refused(*state, ASSAY_DATA_LOSS, "machine went down");
}

static void a_killed_process_loses_no_commit(void **state)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct assay_store *store = open_store(*state, false);
        put(store, "a", "k", "committed", 9);
        raise(SIGKILL);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    struct assay_store *store = open_store(*state, false);
    expect(store, "a", "k", "committed", 9);
    assay_store_close(store);
}

static void a_second_process_is_refused_by_pid(void **state)
{
    char words[64];
    struct assay_store *store = open_store(*state, true);
    snprintf(words, sizeof words, "in use by process %ld", (long)getpid());
    expect_refused(*state, ASSAY_FAILED_PRECONDITION, words);
    assay_store_close(store);
    store = open_store(*state, true);
    assay_store_close(store);
}

static void the_directory_is_ours_alone(void **state)
{
    char path[ASSAY_PATH_MAX];
    struct stat info;
    assert_int_equal(assay_path_join(path, *state, "deep/er", NULL), ASSAY_OK);
    assay_store_close(open_store(path, true));
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    expect_refused("/proc/assay", ASSAY_NOT_FOUND, "/proc/assay");
}

static void the_map_grows_while_others_read(void **state)
{
    struct assay_store *store = open_store(*state, false);
    unsigned char *value = pattern(20000000, 7);
    char key[16];
    for (int i = 0; i < 5; i++) { /* 100 MB in a map of 64 */
        snprintf(key, sizeof key, "%d", i);
        put(store, "a", key, value, 20000000);
    }
    expect(store, "a", "0", value, 20000000);
    expect(store, "a", "4", value, 20000000);
    free(value);
    assay_store_close(store);
}

static void a_full_disk_changes_nothing(void **state)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct assay_store *store = open_store(*state, false);
        unsigned char *value = pattern(4000000, 8);
        struct assay_err err = ASSAY_ERR_INIT;
        put(store, "a", "before", value, 100000);
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {2000000, 2000000};
        setrlimit(RLIMIT_FSIZE, &limit);
        struct assay_put puts[] = {{"a", "before", 6, NULL, 0}, {"a", "more", 4, value, 4000000}};
        bool right =
            assay_store_put(store, puts, 2, &err) == ASSAY_RESOURCE_EXHAUSTED && strstr(err.text, "disk is full");
        expect(store, "a", "before", value, 100000);
        put(store, "a", "small", "still works", 11);
        expect(store, "a", "small", "still works", 11);
        free(value);
        assay_store_close(store);
        _exit(right ? 0 : 9);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    struct assay_store *store = open_store(*state, false);
    unsigned char *value = pattern(4000000, 8);
    expect(store, "a", "before", value, 100000);
    free(value);
    assay_store_close(store);
}

struct crowd {
    struct assay_store *store;
    int number;
    bool right;
};

static void *crowd_main(void *arg)
{
    struct crowd *crowd = arg;
    char key[32];
    crowd->right = true;
    for (int i = 0; i < 12; i++) {
        size_t bytes = (size_t)(i % 3) * 700000 + 10, got_bytes;
        unsigned char *value = pattern(bytes, (unsigned)(crowd->number * 100 + i));
        int len = snprintf(key, sizeof key, "%d/%d", crowd->number, i);
        struct assay_put one = {"a", key, (size_t)len, value, bytes};
        void *got;
        if (assay_store_put(crowd->store, &one, 1, NULL) != ASSAY_OK ||
            assay_store_get(crowd->store, "a", key, (size_t)len, &got, &got_bytes, NULL) != ASSAY_OK) {
            crowd->right = false;
        } else {
            crowd->right = crowd->right && got_bytes == bytes && memcmp(got, value, bytes) == 0;
            free(got);
        }
        free(value);
    }
    return NULL;
}

static void eight_threads_write_and_read_at_once(void **state)
{
    struct crowd crowd[8];
    pthread_t threads[8];
    struct assay_store *store = open_store(*state, false);
    for (int i = 0; i < 8; i++) {
        crowd[i] = (struct crowd){store, i, false};
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &crowd[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_true(crowd[i].right);
    assay_store_close(store);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        T(values_of_any_size_come_back_also_after_a_restart),
        T(overwriting_and_deleting_give_pages_back),
        T(a_batch_is_written_whole_or_not_at_all),
        T(a_visit_sees_the_keys_of_a_prefix_in_order),
        T(a_flipped_bit_is_found_and_the_value_dropped),
        T(a_cut_or_overwritten_file_is_refused_with_a_sentence),
        T(a_page_with_two_owners_is_found),
        T(commits_that_a_power_loss_may_have_torn_are_not_trusted),
        T(a_killed_process_loses_no_commit),
        T(a_second_process_is_refused_by_pid),
        T(the_directory_is_ours_alone),
        T(the_map_grows_while_others_read),
        T(a_full_disk_changes_nothing),
        T(eight_threads_write_and_read_at_once),
    };
#undef T
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
