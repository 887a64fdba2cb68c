#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "services/coordinator/coordinator.h"

/* A job with a reference and one variant whose dPPL% has this interval and whose KL is small. */
static Assay__V1__Job *job_with(double value, double low, double high)
{
    Assay__V1__Job job = ASSAY__V1__JOB__INIT;
    Assay__V1__SubmitJobRequest request = ASSAY__V1__SUBMIT_JOB_REQUEST__INIT;
    Assay__V1__VariantResult reference = ASSAY__V1__VARIANT_RESULT__INIT, variant = ASSAY__V1__VARIANT_RESULT__INIT;
    Assay__V1__VariantResult *results[] = {&reference, &variant};
    Assay__V1__VariantScore score = ASSAY__V1__VARIANT_SCORE__INIT;
    Assay__V1__Estimate increase = ASSAY__V1__ESTIMATE__INIT;
    Assay__V1__Distribution kl = ASSAY__V1__DISTRIBUTION__INIT;
    increase.has_value = increase.has_interval_low = increase.has_interval_high = true;
    increase.value = value;
    increase.interval_low = low;
    increase.interval_high = high;
    kl.has_mean = kl.has_interval_low = kl.has_interval_high = true;
    kl.mean = 0.001;
    kl.interval_low = 0.0009;
    kl.interval_high = 0.0011;
    score.perplexity_increase_percent = &increase;
    score.kl_nats = &kl;
    variant.score = &score;
    job.request = &request;
    job.n_results = 2;
    job.results = results;
    uint8_t packed[1024];
    size_t bytes = assay__v1__job__pack(&job, packed);
    return assay__v1__job__unpack(NULL, bytes, packed);
}

static Assay__V1__Verdict verdict_of(double value, double low, double high, bool *ret_point_pass)
{
    Assay__V1__Job *job = job_with(value, low, high);
    assert_true(assay_report_fill(job));
    Assay__V1__Verdict verdict = job->verdict;
    *ret_point_pass = job->results[1]->criteria[0]->point_pass;
    assay__v1__job__free_unpacked(job, NULL);
    return verdict;
}

static void a_verdict_needs_the_whole_interval_on_one_side(void **state)
{
    (void)state;
    bool point;
    assert_int_equal(verdict_of(2, 1, 3, &point), ASSAY__V1__VERDICT__VERDICT_PASS);
    assert_true(point);
    assert_int_equal(verdict_of(7, 5, 9, &point), ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
    assert_true(point);
    assert_int_equal(verdict_of(9, 7, 11, &point), ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
    assert_false(point);
    assert_int_equal(verdict_of(12, 10, 14, &point), ASSAY__V1__VERDICT__VERDICT_FAIL);
    assert_false(point);
}

static void nan_never_passes(void **state)
{
    (void)state;
    bool point;
    assert_int_equal(verdict_of((double)NAN, 1, 2, &point), ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
    assert_false(point);
    assert_int_equal(verdict_of(1, 0, (double)NAN, &point), ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
}

static void what_was_not_computed_is_missing_with_the_reason(void **state)
{
    (void)state;
    Assay__V1__Job *job = job_with(1, 0, 2);
    assay__v1__variant_score__free_unpacked(job->results[1]->score, NULL);
    job->results[1]->score = NULL;
    assert_true(assay_report_fill(job));
    assert_int_equal(job->verdict, ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE);
    assert_non_null(job->results[1]->criteria[0]->missing);
    assert_false(job->results[1]->criteria[0]->has_value);
    assay__v1__job__free_unpacked(job, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_verdict_needs_the_whole_interval_on_one_side),
        cmocka_unit_test(nan_never_passes),
        cmocka_unit_test(what_was_not_computed_is_missing_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
