/* What is left when making an artifact goes wrong. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/artifact/kept_digests.h"
#include "common/artifact/staging.h"
#include "tests/unit/quantizer_fixture.h"

/* Bytes that may be written before the disk is full; negative: any number. */
static atomic_llong disk_left = -1;

ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
    if (fd > STDERR_FILENO && disk_left >= 0) {
        if ((size_t)disk_left < len) {
            errno = ENOSPC;
            return -1;
        }
        disk_left -= (long long)len;
    }
    return __real_write(fd, bytes, len);
}

static void a_killed_maker_leaves_nothing_under_the_digest_and_the_next_run_succeeds(void **state)
{
    struct quantizer_fixture *fixture = *state;
    size_t removed = 0;
    choose(fixture, "int8");
    fixture->kill_at = 30;
    pid_t child = make_in_child(fixture);
    fixture->kill_at = 0;
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome) && WTERMSIG(outcome) == SIGKILL);
    assert_int_not_equal(access(fixture->wanted, F_OK), 0);
    assert_int_equal(entries(fixture->artifacts), 1);
    assert_int_equal(assay_staging_sweep(fixture->artifacts, &removed, NULL), ASSAY_OK);
    assert_int_equal(removed, 1);
    assert_int_equal(entries(fixture->artifacts), 0);
    assert_false(make(fixture));
    assert_true(make(fixture));
}

static void a_sweep_spares_the_living(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_staging staging;
    size_t removed = 7;
    choose(fixture, "int8");
    assert_int_equal(assay_staging_open(fixture->artifacts, &fixture->job.variant_id, &staging, NULL), ASSAY_OK);
    assert_int_equal(assay_staging_sweep(fixture->artifacts, &removed, NULL), ASSAY_OK);
    assert_int_equal(removed, 0);
    assert_int_equal(access(staging.dir, F_OK), 0);
    assay_staging_abandon(&staging);
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_dead_makers_directory_of_the_same_pid_is_used_again(void **state)
{
    struct quantizer_fixture *fixture = *state;
    char name[128], hex[ASSAY_DIGEST_HEX], left_over[ASSAY_PATH_MAX], file[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    snprintf(name, sizeof name, ".tmp-%s-%ld", assay_digest_hex(&fixture->job.variant_id.digest, hex), (long)getpid());
    join(left_over, fixture->artifacts, name);
    join(file, left_over, "model.safetensors");
    assert_int_equal(mkdir(left_over, 0755), 0);
    assert_int_equal(assay_file_write(file, "half", 4, NULL), ASSAY_OK);
    assert_false(make(fixture));
    assert_int_equal(entries(fixture->artifacts), 1);
}

static void two_processes_that_make_one_artifact_both_succeed(void **state)
{
    enum { MAKERS = 3 };
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int8");
    pid_t makers[MAKERS];
    for (size_t i = 0; i < MAKERS; i++)
        makers[i] = make_in_child(fixture);
    for (size_t i = 0; i < MAKERS; i++) {
        int outcome;
        assert_int_equal(waitpid(makers[i], &outcome, 0), makers[i]);
        assert_true(WIFEXITED(outcome) && WEXITSTATUS(outcome) == 0);
    }
    assert_int_equal(entries(fixture->artifacts), 1);
    assert_true(make(fixture));
}

static void paths_and_ids_that_do_not_follow_are_refused(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char elsewhere[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    snprintf(elsewhere, sizeof elsewhere, "%.1000s/../%.1000s", fixture->artifacts, fixture->wanted);
    const char *const dirs[] = {"", "/etc", fixture->artifacts, elsewhere};
    for (size_t i = 0; i < ASSAY_COUNT(dirs); i++) {
        fixture->job.wanted_dir = dirs[i];
        assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "artifact_dir"));
    }
    fixture->job.wanted_dir = fixture->wanted;
    fixture->job.model_dir = "models/assay-tiny";
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "absolute"));
    fixture->job.model_dir = MODEL;
    fixture->job.model_id.digest.bytes[0] ^= 1;
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "variant_id"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_checkpoint_with_other_contents_than_its_id_is_refused(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char model[ASSAY_PATH_MAX], command[ASSAY_PATH_MAX + 64];
    copy_model(fixture, model);
    choose(fixture, "int8");
    snprintf(command, sizeof command, "printf ' ' >> %s/config.json", model);
    assert_int_equal(system(command), 0);
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "has changed"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_full_disk_is_resource_exhausted_and_leaves_nothing(void **state)
{
    static const long long room[] = {0, 1000, 1000000, 3400000, 4100000};
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int8");
    for (size_t i = 0; i < ASSAY_COUNT(room); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        disk_left = room[i];
        assert_int_equal(refused(fixture, &err), ASSAY_RESOURCE_EXHAUSTED);
        disk_left = -1;
        assert_non_null(strstr(err.text, "No space left on device"));
        assert_int_equal(entries(fixture->artifacts), 0);
    }
    assert_false(make(fixture));
}

static void a_cancelled_job_stops_at_the_next_tensor_and_leaves_nothing(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    choose(fixture, "int8");
    fixture->cancel_at = 11;
    assert_int_equal(refused(fixture, &err), ASSAY_CANCELLED);
    assert_int_equal(fixture->steps, 11);
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_damaged_artifact_is_made_again(void **state)
{
    static const char *const damages[] = {
        "truncate -s -1 %s/model.safetensors", "rm %s/config.json",           "rm %s/manifest.json",
        "echo '{}' > %s/manifest.json",        "echo '[' > %s/manifest.json", "sed -i s/a/b/g %s/manifest.json"};
    struct quantizer_fixture *fixture = *state;
    choose(fixture, "int8");
    make(fixture);
    for (size_t i = 0; i < ASSAY_COUNT(damages); i++) {
        char command[ASSAY_PATH_MAX + 64];
        snprintf(command, sizeof command, damages[i], fixture->wanted);
        assert_int_equal(system(command), 0);
        assert_false(make(fixture));
        assert_true(make(fixture));
        assert_int_equal(entries(fixture->artifacts), 1);
    }
}

static void links_to_files_that_were_touched_are_looked_at_again(void **state)
{
    struct quantizer_fixture *fixture = *state;
    char model[ASSAY_PATH_MAX], command[ASSAY_PATH_MAX + 64];
    struct assay_err err = ASSAY_ERR_INIT;
    copy_model(fixture, model);
    choose(fixture, "fp32");
    assert_false(make(fixture));
    assert_true(make(fixture));
    snprintf(command, sizeof command, "touch -d 2001-01-01 %s/model.safetensors", model);
    assert_int_equal(system(command), 0);
    assert_false(make(fixture));
    assert_true(make(fixture));
    snprintf(command, sizeof command, "printf ' ' >> %s/config.json", model);
    assert_int_equal(system(command), 0);
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
}

static void a_weight_that_is_no_number_is_refused_by_name_row_and_column(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char model[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
    float weights[100][3] = {{0}};
    weights[71][2] = NAN;
    join(model, fixture->root, "model");
    assert_int_equal(mkdir(model, 0755), 0);
    join(path, model, "config.json");
    assert_int_equal(assay_file_write(path, "{}", 2, NULL), ASSAY_OK);
    const struct assay_tensor tensors[] = {
        {.name = "lm_head.weight", .dtype = ASSAY_F32, .rank = 2, .shape = {2, 3}},
        {.name = "model.layers.0.mlp.up_proj.weight", .dtype = ASSAY_F32, .rank = 2, .shape = {100, 3}},
    };
    struct assay_safetensors_writer *writer;
    join(path, model, "model.safetensors");
    assert_int_equal(assay_safetensors_create(path, tensors, 2, &writer, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, weights, 2 * 3 * sizeof(float), NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, weights, sizeof weights, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_finish(writer, NULL), ASSAY_OK);
    fixture->job.model_dir = model;
    choose(fixture, "int8");
    assert_int_equal(refused(fixture, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "model.layers.0.mlp.up_proj.weight: row 71, column 2 is NaN"));
    assert_int_equal(entries(fixture->artifacts), 0);
}

static void a_quantized_checkpoint_is_not_quantized_again(void **state)
{
    struct quantizer_fixture *fixture = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char first[ASSAY_PATH_MAX];
    choose(fixture, "int8");
    make(fixture);
    memcpy(first, fixture->wanted, sizeof first);
    fixture->job.model_dir = first;
    choose(fixture, "int8");
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "quantized already"));
}

/* The digests of a file that was not changed lately are taken from where they are kept; any change makes them useless.
 */
static void a_digest_is_kept_as_long_as_the_file_is_the_same(void **state)
{
    struct quantizer_fixture *fixture = *state;
    char dir[ASSAY_PATH_MAX], weights[ASSAY_PATH_MAX], kept[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX];
    char hex[ASSAY_DIGEST_HEX];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_file_identity identity;
    const struct assay_digest wrong = {{1}};
    join(kept, fixture->root, "kept");
    fixture->job.digests_dir = kept;
    copy_model(fixture, dir);
    join(weights, dir, "model.safetensors");
    choose(fixture, "int8");
    assert_false(make(fixture));
    assert_true(entries(kept) > 0); /* the head's at least, whose key is the contents */

    assert_int_equal(assay_file_identify(weights, &identity, &err), ASSAY_OK);
    identity.changed_s += 5;
    assert_false(assay_file_is_settled(&identity));
    identity.changed_s -= 15;
    identity.modified_s -= 10;
    assert_true(assay_file_is_settled(&identity));

    assert_int_equal(assay_file_identify(weights, &identity, &err), ASSAY_OK);
    struct assay_digest key = assay_kept_file_key(&identity);
    assay_kept_put(kept, &key, &wrong);
    choose(fixture, "nf4");
    assert_int_equal(refused(fixture, &err), ASSAY_FAILED_PRECONDITION); /* what is kept is what counts */

    assert_int_equal(utimensat(AT_FDCWD, weights, (struct timespec[2]){{1, 0}, {1, 0}}, 0), 0);
    assert_false(make(fixture)); /* and not for a file that was touched */

    join(path, kept, assay_digest_hex(&key, hex));
    assert_int_equal(assay_file_write(path, "no digest", 9, &err), ASSAY_OK);
    struct assay_digest found = wrong;
    assert_false(assay_kept_find(kept, &key, &found));
    assert_false(assay_kept_find(NULL, &key, &found));
    assert_true(assay_digest_equal(&found, &wrong));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        QUANTIZER_TEST(a_killed_maker_leaves_nothing_under_the_digest_and_the_next_run_succeeds),
        QUANTIZER_TEST(a_sweep_spares_the_living),
        QUANTIZER_TEST(a_dead_makers_directory_of_the_same_pid_is_used_again),
        QUANTIZER_TEST(two_processes_that_make_one_artifact_both_succeed),
        QUANTIZER_TEST(paths_and_ids_that_do_not_follow_are_refused),
        QUANTIZER_TEST(a_checkpoint_with_other_contents_than_its_id_is_refused),
        QUANTIZER_TEST(a_full_disk_is_resource_exhausted_and_leaves_nothing),
        QUANTIZER_TEST(a_cancelled_job_stops_at_the_next_tensor_and_leaves_nothing),
        QUANTIZER_TEST(a_damaged_artifact_is_made_again),
        QUANTIZER_TEST(links_to_files_that_were_touched_are_looked_at_again),
        QUANTIZER_TEST(a_digest_is_kept_as_long_as_the_file_is_the_same),
        QUANTIZER_TEST(a_weight_that_is_no_number_is_refused_by_name_row_and_column),
        QUANTIZER_TEST(a_quantized_checkpoint_is_not_quantized_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
