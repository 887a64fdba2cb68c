/* Job files: what they say, and what is said about wrong ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cmocka_all.h"

#include "cli/job_file.h"

static char folder[] = "/tmp/assay-job-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/job.yaml", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return assay_remove_tree(folder, NULL) == ASSAY_OK ? 0 : -1;
}

static enum assay_status load(const char *text, struct assay_job_file *ret, struct assay_err *err)
{
    assert_int_equal(assay_file_write(path, text, strlen(text), err), ASSAY_OK);
    return assay_job_file_load(path, ret, err);
}

static void the_example_is_a_job_on_files_that_exist(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_job_file job = {.chunks = 0};
    if (assay_job_file_load(ASSAY_SOURCE_DIR "/examples/job.yaml", &job, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(access(job.model, R_OK), 0);
    assert_int_equal(access(job.corpus, R_OK), 0);
    assert_string_equal(job.reference, "fp32");
    assert_string_equal(job.variants, "int8");
    assert_string_equal(job.protocol, "llamacpp-512");
    assert_string_equal(job.out, ASSAY_SOURCE_DIR "/examples/../out/report-job");
    assert_true(job.has_chunks && job.chunks == 8);
    assert_true(job.has_perplexity_increase && job.perplexity_increase_percent == 8);
    assert_true(job.has_kl_mean && job.kl_mean_nats == 0.1);
    assay_job_file_release(&job);
}

static void what_the_file_does_not_say_stays_absent(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_job_file job = {.chunks = 0};
    assert_int_equal(load("{model: /m, thresholds: {klMeanNats: 0}}", &job, &err), ASSAY_OK);
    assert_string_equal(job.model, "/m");
    assert_true(!job.name && !job.reference && !job.variants && !job.corpus && !job.protocol && !job.out);
    assert_true(!job.has_chunks && !job.has_perplexity_increase && job.has_kl_mean && job.kl_mean_nats == 0);
    assay_job_file_release(&job);
}

static void variants_become_canonical(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_job_file job = {.chunks = 0};
    assert_int_equal(load("variants: [int8, 'fp32']\n", &job, &err), ASSAY_OK);
    assert_string_equal(job.variants, "int8,fp32");
    assay_job_file_release(&job);
}

static const struct refusal {
    const char *text, *sentence; /* behind the path; the beginning of it */
} refusals[] = {
    {"model: m\nvariant: [int8]\n", ":2: field \"variant\": JobFile has no such field"},
    {"variants:\n  - int8\n  - 8\n", ":3: field \"variants[1]\": found 8, wanted a string"},
    {"variants: int8\n", ":1: field \"variants\": found \"int8\", wanted an array"},
    {"variants:\n  - int8\n  - int99\n", ":3: field \"variants[1]\": "},
    {"variants:\n  - int8\n\n  - int8\n", ":4: field \"variants[1]\": int8 stands twice"},
    {"reference: fp99\n", ":1: field \"reference\": "},
    {"name: n\nthresholds:\n  kl_mean: 1\n", ":3: field \"thresholds.kl_mean\": Thresholds has no such field"},
    {"thresholds:\n  klMeanNats: NaN\n", ":2: field \"thresholds.kl_mean_nats\": found nan, wanted 0 to 1e+06"},
    {"thresholds:\n  perplexity_increase_percent: -1\n",
     ":2: field \"thresholds.perplexity_increase_percent\": found -1, wanted 0 to 1e+06"},
    {"chunks: 10000001\n", ":1: field \"chunks\": found 10000001, wanted at most 10000000"},
    {"chunks: 1.5\n", ":1: field \"chunks\": found 1.5, wanted a whole number"},
    {"protocol: mine\n", ":1: field \"protocol\": found 'mine', known: "},
    {"name: 2024\n", ":1: field \"name\": found 2024, wanted a string"},
    {"model: ''\n", ": the path '' is empty or too long"},
    {"- model\n", ":1: JobFile: found an array, wanted an object"},
    {"model: m\nmodel: n\n", ":2: the key 'model' stands twice"},
    {"a: &a [*a]\n", ":1: anchors and tags are not supported"},
    {"", ":1: holds nothing"},
};

static void a_wrong_file_is_refused_with_its_line_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(refusals); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_job_file job = {.chunks = 0};
        assert_int_equal(load(refusals[i].text, &job, &err), ASSAY_INVALID_ARGUMENT);
        if (strncmp(err.text, path, strlen(path)) != 0 ||
            strncmp(err.text + strlen(path), refusals[i].sentence, strlen(refusals[i].sentence)) != 0)
            fail_msg("found '%s', wanted '%s%s'", err.text, path, refusals[i].sentence);
    }
}

static void the_last_job_flag_before_the_end_of_flags_counts(void **state)
{
    (void)state;
    char *two[] = {"eval", "--job", "a", "--job=b", "--", "--job", "c"}, *none[] = {"eval", "m", "--jobs=x", "--job"};
    unsetenv("ASSAY_JOB");
    assert_string_equal(assay_job_file_named(ASSAY_COUNT(two), two), "b");
    assert_null(assay_job_file_named(ASSAY_COUNT(none), none));
    setenv("ASSAY_JOB", "e", 1);
    assert_string_equal(assay_job_file_named(ASSAY_COUNT(none), none), "e");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_is_a_job_on_files_that_exist),
        cmocka_unit_test(what_the_file_does_not_say_stays_absent),
        cmocka_unit_test(variants_become_canonical),
        cmocka_unit_test(a_wrong_file_is_refused_with_its_line_and_field),
        cmocka_unit_test(the_last_job_flag_before_the_end_of_flags_counts),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
