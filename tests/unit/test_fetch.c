/* Copies in pieces: interrupted, damaged, without room, by several processes at once. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/artifact/fetch.h"
#include "tests/cmocka_all.h"

/* Two files: a piece and a bit, and a small one. */
#define LARGE_BYTES (ASSAY_PIECE_BYTES + 1000)
#define PIECES 3

struct shared {
    atomic_int reads;
};

struct bench {
    char root[64], source[128], cache[128];
    struct shared *shared; /* with child processes */
    struct assay_pieces pieces;
    int damaged_reads; /* the next so many come with a wrong byte */
    int die_after;     /* reads; 0 = never */
};

static void write_file(const char *dir, const char *name, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    size_t words = (bytes + 7) / 8;
    uint64_t state = 88172645463325252u, *data = malloc(words * sizeof *data);
    assert_true(file && data);
    for (size_t i = 0; i < words; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = state;
    }
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(data);
}

static int make_bench(void **state)
{
    struct bench *bench = calloc(1, sizeof *bench);
    /* Every copy is synced, which a disk that is busy takes seconds for. */
    strcpy(bench->root, access("/dev/shm", W_OK) == 0 ? "/dev/shm/assay-fetch-XXXXXX" : "/tmp/assay-fetch-XXXXXX");
    assert_non_null(mkdtemp(bench->root));
    snprintf(bench->source, sizeof bench->source, "%s/source", bench->root);
    snprintf(bench->cache, sizeof bench->cache, "%s/cache", bench->root);
    assert_int_equal(assay_mkdirs(bench->source, 0755, NULL), ASSAY_OK);
    write_file(bench->source, "large.bin", LARGE_BYTES);
    write_file(bench->source, "small.json", 1000);
    bench->shared = mmap(NULL, sizeof *bench->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(bench->shared != MAP_FAILED);
    assert_int_equal(assay_pieces_describe(bench->source, NULL, NULL, &bench->pieces, NULL), ASSAY_OK);
    *state = bench;
    return 0;
}

static int remove_bench(void **state)
{
    struct bench *bench = *state;
    assay_pieces_release(&bench->pieces);
    munmap(bench->shared, sizeof *bench->shared);
    enum assay_status removed = assay_remove_tree(bench->root, NULL);
    free(bench);
    return removed == ASSAY_OK ? 0 : 1;
}

static enum assay_status describe(void *arg, struct assay_pieces *ret, struct assay_err *err)
{
    const struct bench *bench = arg;
    return assay_pieces_describe(bench->source, NULL, NULL, ret, err);
}

static pthread_mutex_t read_lock = PTHREAD_MUTEX_INITIALIZER;

static enum assay_status read_piece(void *arg, const struct assay_pieces *pieces, size_t file, uint64_t piece,
                                    void *buffer, size_t bytes, struct assay_err *err)
{
    struct bench *bench = arg;
    int reads = atomic_fetch_add(&bench->shared->reads, 1) + 1;
    if (bench->die_after && reads > bench->die_after)
        kill(getpid(), SIGKILL);
    enum assay_status status = assay_piece_read(bench->source, &pieces->files[file], piece, buffer, err);
    pthread_mutex_lock(&read_lock);
    if (status == ASSAY_OK && bench->damaged_reads > 0) {
        bench->damaged_reads--;
        ((unsigned char *)buffer)[bytes / 2] ^= 1;
    }
    pthread_mutex_unlock(&read_lock);
    return status;
}

static struct assay_fetch fetch_of(struct bench *bench)
{
    return (struct assay_fetch){
        .cache_dir = bench->cache, .name = "artifact", .describe = describe, .read = read_piece, .arg = bench};
}

static void expect_copy(const struct bench *bench, const char *path)
{
    struct assay_pieces found = ASSAY_PIECES_INIT;
    assert_int_equal(assay_pieces_describe(path, NULL, NULL, &found, NULL), ASSAY_OK);
    assert_true(assay_digest_equal(&found.digest, &bench->pieces.digest));
    assay_pieces_release(&found);
}

static void a_copy_has_the_same_bytes_and_is_made_once(void **state)
{
    struct bench *bench = *state;
    struct assay_fetch fetch = fetch_of(bench);
    char path[ASSAY_PATH_MAX];
    assert_int_equal(bench->pieces.count, 2);
    assert_int_equal(assay_fetch_run(&fetch, path, NULL), ASSAY_OK);
    assert_int_equal(fetch.pieces_fetched, PIECES);
    expect_copy(bench, path);
    assert_int_equal(assay_fetch_run(&fetch, path, NULL), ASSAY_OK);
    assert_true(fetch.was_there);
    assert_int_equal(atomic_load(&bench->shared->reads), PIECES);
}

static void a_copy_that_was_killed_goes_on_where_it_was(void **state)
{
    struct bench *bench = *state;
    char path[ASSAY_PATH_MAX], visible[256];
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct assay_fetch fetch = fetch_of(bench);
        bench->die_after = 2;
        _exit(assay_fetch_run(&fetch, path, NULL) == ASSAY_OK);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
    snprintf(visible, sizeof visible, "%s/artifact", bench->cache);
    assert_int_equal(access(visible, F_OK), -1);

    struct assay_fetch fetch = fetch_of(bench);
    assert_int_equal(assay_fetch_run(&fetch, path, NULL), ASSAY_OK);
    assert_int_equal(fetch.pieces_found + fetch.pieces_fetched, PIECES);
    expect_copy(bench, path);
}

/* What a killed copy wrote is there for certain here: the file is made as it leaves it. */
static void pieces_that_hold_are_not_fetched_again_and_others_are(void **state)
{
    struct bench *bench = *state;
    char staging[256], from[256], to[300], command[1024], path[ASSAY_PATH_MAX];
    snprintf(staging, sizeof staging, "%s/.fetch-artifact", bench->cache);
    assert_int_equal(assay_mkdirs(staging, 0755, NULL), ASSAY_OK);
    snprintf(from, sizeof from, "%s/large.bin", bench->source);
    snprintf(to, sizeof to, "%s/large.bin", staging);
    snprintf(command, sizeof command, "cp '%s' '%s' && touch '%s/stranger'", from, to, staging);
    assert_int_equal(system(command), 0);
    FILE *file = fopen(to, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)ASSAY_PIECE_BYTES + 77, SEEK_SET), 0);
    assert_int_equal(fputc('x' ^ 0x55, file), 'x' ^ 0x55);
    assert_int_equal(fclose(file), 0);

    struct assay_fetch fetch = fetch_of(bench);
    assert_int_equal(assay_fetch_run(&fetch, path, NULL), ASSAY_OK);
    assert_int_equal(fetch.pieces_found, PIECES - 2);
    assert_int_equal(fetch.pieces_fetched, 2);
    expect_copy(bench, path);
}

static void a_damaged_piece_is_refused_and_fetched_again(void **state)
{
    struct bench *bench = *state;
    struct assay_fetch fetch = fetch_of(bench);
    struct assay_err err = ASSAY_ERR_INIT;
    char path[ASSAY_PATH_MAX];
    bench->damaged_reads = 2;
    assert_int_equal(assay_fetch_run(&fetch, path, &err), ASSAY_OK);
    assert_int_equal(fetch.pieces_damaged, 2);
    expect_copy(bench, path);
}

static void pieces_that_always_come_damaged_fail_with_a_sentence(void **state)
{
    struct bench *bench = *state;
    struct assay_fetch fetch = fetch_of(bench);
    struct assay_err err = ASSAY_ERR_INIT;
    char path[ASSAY_PATH_MAX];
    bench->damaged_reads = 1000;
    assert_int_equal(assay_fetch_run(&fetch, path, &err), ASSAY_DATA_LOSS);
    assert_non_null(strstr(err.text, "damaged"));
    bench->damaged_reads = 0;
    assert_int_equal(assay_fetch_run(&fetch, path, &err), ASSAY_OK);
    expect_copy(bench, path);
}

static void a_disk_without_room_is_told_before_anything_is_fetched(void **state)
{
    struct bench *bench = *state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct assay_fetch fetch = fetch_of(bench);
        struct assay_err err = ASSAY_ERR_INIT;
        char path[ASSAY_PATH_MAX];
        const struct rlimit limit = {ASSAY_PIECE_BYTES, ASSAY_PIECE_BYTES};
        signal(SIGXFSZ, SIG_IGN);
        bool told = setrlimit(RLIMIT_FSIZE, &limit) == 0 &&
                    assay_fetch_run(&fetch, path, &err) == ASSAY_RESOURCE_EXHAUSTED && strstr(err.text, "no room") &&
                    strstr(err.text, "large.bin");
        _exit(told ? 0 : 1);
    }
    int ended;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    assert_int_equal(atomic_load(&bench->shared->reads), 0);
}

static void several_processes_fetch_each_piece_once(void **state)
{
    enum { PROCESSES = 3 };
    struct bench *bench = *state;
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            struct assay_fetch fetch = fetch_of(bench);
            char path[ASSAY_PATH_MAX];
            _exit(assay_fetch_run(&fetch, path, NULL) == ASSAY_OK ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int ended;
        assert_int_equal(waitpid(children[i], &ended, 0), children[i]);
        assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    }
    assert_int_equal(atomic_load(&bench->shared->reads), PIECES);
}

static void names_that_are_no_file_names_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", ".", "..", "a/b", "/etc/passwd", ".hidden", "../up"};
    for (size_t i = 0; i < ASSAY_COUNT(wrong); i++) {
        struct assay_pieces pieces = ASSAY_PIECES_INIT;
        assert_int_equal(assay_pieces_add_file(&pieces, wrong[i], 1, NULL), ASSAY_INVALID_ARGUMENT);
        assay_pieces_release(&pieces);
    }
    struct assay_pieces pieces = ASSAY_PIECES_INIT;
    assert_int_equal(assay_pieces_add_file(&pieces, "b", 1, NULL), ASSAY_OK);
    assert_int_equal(assay_pieces_add_file(&pieces, "b", 1, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_pieces_add_file(&pieces, "a", 1, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_pieces_add_file(&pieces, "c", UINT64_MAX, NULL), ASSAY_INVALID_ARGUMENT);
    assay_pieces_release(&pieces);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, make_bench, remove_bench)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BENCH(a_copy_has_the_same_bytes_and_is_made_once),
        WITH_BENCH(a_copy_that_was_killed_goes_on_where_it_was),
        WITH_BENCH(pieces_that_hold_are_not_fetched_again_and_others_are),
        WITH_BENCH(a_damaged_piece_is_refused_and_fetched_again),
        WITH_BENCH(pieces_that_always_come_damaged_fail_with_a_sentence),
        WITH_BENCH(a_disk_without_room_is_told_before_anything_is_fetched),
        WITH_BENCH(several_processes_fetch_each_piece_once),
        cmocka_unit_test(names_that_are_no_file_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
