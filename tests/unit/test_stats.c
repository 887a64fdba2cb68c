/* Sums, the t distribution, percentiles, intervals by cluster: against scipy's figures and hand-worked examples. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "common/base/fs.h"
#include "common/stats/stats.h"

#define assert_near(got, want, rel) assert_near_(#got, got, want, rel, __FILE__, __LINE__)

static void assert_near_(const char *what, double got, double want, double rel, const char *file, int line)
{
    if (got == want || fabs(got - want) <= rel * fabs(want))
        return;
    print_error("%s: got %.17g, wanted %.17g within %g\n", what, got, want, rel);
    _fail(file, line);
}

static cJSON *golden_functions(cJSON **ret_root)
{
    char *text;
    size_t len;
    struct assay_err err = ASSAY_ERR_INIT;
    if (access(ASSAY_SHARED_DIR "/golden/metrics", F_OK) != 0) {
        const char *ci = getenv("CI");
        assert_false(ci && strcmp(ci, "true") == 0);
        skip();
    }
    assert_int_equal(assay_file_read(ASSAY_SHARED_DIR "/golden/metrics/metrics.json", 1 << 20, &text, &len, &err),
                     ASSAY_OK);
    *ret_root = cJSON_Parse(text);
    free(text);
    assert_non_null(*ret_root);
    cJSON *functions = cJSON_GetObjectItem(cJSON_GetObjectItem(*ret_root, "stats"), "functions");
    assert_non_null(functions);
    return functions;
}

static double number_at(const cJSON *row, int index)
{
    return cJSON_GetNumberValue(cJSON_GetArrayItem(row, index));
}

static void t_and_beta_agree_with_scipy(void **state)
{
    (void)state;
    cJSON *root, *row, *functions = golden_functions(&root);
    int checked = 0;
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(functions, "t_sf"))
    {
        assert_near(assay_stats_t_sf(number_at(row, 0), number_at(row, 1)), number_at(row, 2), 1e-11);
        assert_near(assay_stats_t_sf(-number_at(row, 0), number_at(row, 1)), 1.0 - number_at(row, 2), 1e-13);
        checked++;
    }
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(functions, "t_ppf"))
    {
        assert_near(assay_stats_t_quantile(number_at(row, 0), number_at(row, 1)), number_at(row, 2), 1e-11);
        assert_near(assay_stats_t_quantile(1.0 - number_at(row, 0), number_at(row, 1)), -number_at(row, 2), 1e-9);
        checked++;
    }
    cJSON_ArrayForEach(row, cJSON_GetObjectItem(functions, "betainc"))
    {
        assert_near(assay_stats_beta_inc(number_at(row, 0), number_at(row, 1), number_at(row, 2)), number_at(row, 3),
                    1e-12);
        checked++;
    }
    assert_true(checked >= 50);
    cJSON_Delete(root);
}

static void t_of_many_degrees_is_the_normal_distribution(void **state)
{
    (void)state;
    /* Cornish-Fisher: z + (z^3 + z) / (4 df), z = 1.959963984540054. */
    assert_near(assay_stats_t_quantile(0.975, 1e7), 1.959964221767177, 1e-9);
    assert_near(assay_stats_t_quantile(0.5, 3), 0.0, 1e-15);
    assert_true(isnan(assay_stats_t_quantile(0.0, 3)) && isnan(assay_stats_t_quantile(1.0, 3)));
    assert_true(isnan(assay_stats_t_quantile(0.975, 0)) && isnan(assay_stats_t_quantile(NAN, 3)));
    assert_true(isnan(assay_stats_beta_inc(1, 1, 1.5)) && isnan(assay_stats_beta_inc(0, 1, 0.5)));
    assert_true(assay_stats_t_sf(INFINITY, 3) == 0.0 && assay_stats_t_sf(-INFINITY, 3) == 1.0);
}

static void sums_keep_what_large_terms_would_swallow(void **state)
{
    (void)state;
    struct assay_sum sum = ASSAY_SUM_INIT;
    assay_sum_add(&sum, 1e100);
    for (int i = 0; i < 1000; i++)
        assay_sum_add(&sum, 0.1);
    assay_sum_add(&sum, -1e100);
    assert_near(assay_sum_value(&sum), 100.0, 1e-12);
    struct assay_sum endless = ASSAY_SUM_INIT;
    assay_sum_add(&endless, INFINITY);
    assay_sum_add(&endless, 1.0);
    assert_true(assay_sum_value(&endless) == INFINITY);
    assay_sum_add(&endless, -INFINITY);
    assert_true(isnan(assay_sum_value(&endless)));
}

static void percentiles_interpolate_at_f_times_n_less_one(void **state)
{
    (void)state;
    const double values[] = {40.0, 10.0, 20.0, 30.0, 50.0};
    const double fractions[] = {0.0, 0.5, 0.9, 1.0, 0.125, 1.5};
    double at[6];
    assert_int_equal(assay_stats_percentiles(values, 5, fractions, 6, at, NULL), ASSAY_OK);
    assert_near(at[0], 10.0, 0.0);
    assert_near(at[1], 30.0, 0.0);
    assert_near(at[2], 46.0, 1e-15);
    assert_near(at[3], 50.0, 0.0);
    assert_near(at[4], 15.0, 1e-15);
    assert_true(isnan(at[5]));
    assert_int_equal(assay_stats_percentiles(values, 1, fractions, 4, at, NULL), ASSAY_OK);
    assert_near(at[2], 40.0, 0.0);
}

static void percentiles_of_nothing_or_nan_are_missing_and_infinity_stays(void **state)
{
    (void)state;
    const double fractions[] = {0.5, 1.0};
    const double broken[] = {1.0, NAN, 3.0}, endless[] = {1.0, INFINITY, INFINITY};
    double at[2] = {0.0, 0.0};
    assert_int_equal(assay_stats_percentiles(broken, 3, fractions, 2, at, NULL), ASSAY_OK);
    assert_true(isnan(at[0]) && isnan(at[1]));
    at[0] = at[1] = 0.0;
    assert_int_equal(assay_stats_percentiles(NULL, 0, fractions, 2, at, NULL), ASSAY_OK);
    assert_true(isnan(at[0]) && isnan(at[1]));
    assert_int_equal(assay_stats_percentiles(endless, 3, fractions, 2, at, NULL), ASSAY_OK);
    assert_true(at[0] == INFINITY && at[1] == INFINITY);
}

static void moments_divide_by_n_and_errors_by_n_less_one(void **state)
{
    (void)state;
    const double values[] = {1.0, 2.0, 3.0, 4.0};
    struct assay_moments m = assay_stats_moments(values, 4);
    assert_near(m.mean, 2.5, 0.0);
    assert_near(m.variance, 1.25, 1e-15);
    assert_near(m.se, sqrt(1.25 / 3.0), 1e-15);
    assert_true(m.min == 1.0 && m.max == 4.0 && m.n == 4);
    m = assay_stats_moments(values, 1);
    assert_true(m.mean == 1.0 && isnan(m.se));
    m = assay_stats_moments(values, 0);
    assert_true(isnan(m.mean) && isnan(m.min));
    const double broken[] = {NAN, 2.0};
    m = assay_stats_moments(broken, 2);
    assert_true(isnan(m.mean) && isnan(m.variance) && isnan(m.min) && isnan(m.max));
}

/* Clusters of one value each: the classic t interval of a mean. t(0.975, 3) = 3.182446305284263. */
static void an_interval_of_single_values_is_the_t_interval(void **state)
{
    (void)state;
    const double values[] = {1.0, 2.0, 3.0, 4.0};
    const size_t sizes[] = {1, 1, 1, 1};
    struct assay_estimate e = assay_stats_clustered_mean(values, &(struct assay_clusters){sizes, 4});
    double half = 3.182446305284263 * sqrt(5.0 / 3.0) / 2.0;
    assert_near(e.low, 2.5 - half, 1e-12);
    assert_near(e.high, 2.5 + half, 1e-12);
    assert_near(e.se, sqrt(1.25 / 3.0), 1e-15);
}

/* Equal values inside a cluster say nothing new: the interval is that of the cluster means. */
static void repeating_a_token_does_not_narrow_the_interval(void **state)
{
    (void)state;
    const double once[] = {1.0, 2.0, 4.0}, thrice[] = {1, 1, 1, 2, 2, 2, 4, 4, 4};
    const size_t ones[] = {1, 1, 1}, threes[] = {3, 3, 3};
    struct assay_estimate a = assay_stats_clustered_mean(once, &(struct assay_clusters){ones, 3});
    struct assay_estimate b = assay_stats_clustered_mean(thrice, &(struct assay_clusters){threes, 3});
    assert_near(b.low, a.low, 1e-12);
    assert_near(b.high, a.high, 1e-12);
    assert_true(b.se < a.se);
    assert_true(b.n == 9);
}

/* Sizes 1 and 3, values {0} and {1, 2, 3}: mean 1.5, residuals -1.5 and +1.5, so sqrt(2 / 1 * 4.5) / 4 = 0.75;
 * t(0.975, 1) = 12.706204736174698. An empty cluster changes nothing. */
static void unequal_clusters_use_the_ratio_estimator(void **state)
{
    (void)state;
    const double values[] = {0.0, 1.0, 2.0, 3.0};
    const size_t sizes[] = {1, 0, 3};
    struct assay_estimate e = assay_stats_clustered_mean(values, &(struct assay_clusters){sizes, 3});
    assert_near(e.value, 1.5, 0.0);
    assert_near(e.high - e.value, 12.706204736174698 * 0.75, 1e-11);
    double means[3];
    assay_stats_cluster_means(values, &(struct assay_clusters){sizes, 3}, means);
    assert_true(means[0] == 0.0 && isnan(means[1]) && means[2] == 2.0);
}

static void what_cannot_be_computed_is_nan(void **state)
{
    (void)state;
    const double values[] = {1.0, 2.0, NAN};
    const size_t one[] = {2}, all[] = {1, 1, 1};
    struct assay_estimate e = assay_stats_clustered_mean(values, &(struct assay_clusters){one, 1});
    assert_true(e.value == 1.5 && e.se == 0.5 && isnan(e.low) && isnan(e.high));
    e = assay_stats_clustered_mean(values, &(struct assay_clusters){one, 0});
    assert_true(isnan(e.value) && isnan(e.se) && isnan(e.low) && e.n == 0);
    e = assay_stats_clustered_mean(values, &(struct assay_clusters){all, 3});
    assert_true(isnan(e.value) && isnan(e.se) && isnan(e.low) && isnan(e.high));
    e = assay_stats_perplexity(values, &(struct assay_clusters){all, 3});
    assert_true(isnan(e.value) && isnan(e.high));
    e = assay_stats_perplexity_increase(values, values, &(struct assay_clusters){all, 3});
    assert_true(isnan(e.value));
    e = assay_stats_delta_p_rms(values, values, &(struct assay_clusters){all, 3});
    assert_true(isnan(e.value) && isnan(e.low) && isnan(e.high));
}

static void perplexity_is_exp_of_the_mean_with_its_interval(void **state)
{
    (void)state;
    const double nll[] = {1.0, 2.0, 3.0, 4.0}, more[] = {1.1, 2.1, 3.2, 4.2};
    const size_t sizes[] = {2, 2};
    struct assay_clusters clusters = {sizes, 2};
    struct assay_estimate mean = assay_stats_clustered_mean(nll, &clusters);
    struct assay_estimate ppl = assay_stats_perplexity(nll, &clusters);
    assert_near(ppl.value, exp(2.5), 1e-15);
    assert_near(ppl.se, exp(2.5) * sqrt(1.25 / 3.0), 1e-14);
    assert_near(ppl.low, exp(mean.low), 1e-15);
    assert_near(ppl.high, exp(mean.high), 1e-15);
    /* Paired differences 0.1, 0.1, 0.2, 0.2: mean 0.15; by cluster 0.1 and 0.2, so t(0.975, 1) * 0.05. */
    struct assay_estimate rise = assay_stats_perplexity_increase(nll, more, &clusters);
    assert_near(rise.value, 100.0 * expm1(0.15), 1e-12);
    assert_near(rise.se, 100.0 * exp(0.15) * sqrt(0.0025 / 3.0), 1e-12);
    assert_near(rise.low, 100.0 * expm1(0.15 - 12.706204736174698 * 0.05), 1e-11);
    assert_near(rise.high, 100.0 * expm1(0.15 + 12.706204736174698 * 0.05), 1e-11);
}

static void shares_stay_within_0_and_100_percent(void **state)
{
    (void)state;
    const uint8_t flags[] = {1, 1, 1, 0};
    const size_t sizes[] = {1, 1, 1, 1};
    struct assay_estimate e = assay_stats_share_percent(flags, &(struct assay_clusters){sizes, 4});
    assert_near(e.value, 75.0, 0.0);
    assert_near(e.se, 100.0 * sqrt(0.75 * 0.25 / 3.0), 1e-14);
    assert_true(e.low == 0.0 && e.high == 100.0);
}

static void delta_p_is_a_root_mean_square_of_label_probabilities(void **state)
{
    (void)state;
    const double ref[] = {-log(0.5), -log(0.25)}, var[] = {-log(0.4), -log(0.45)};
    const size_t sizes[] = {1, 1};
    struct assay_clusters clusters = {sizes, 2};
    struct assay_estimate e = assay_stats_delta_p_rms(ref, var, &clusters);
    /* Squares 0.01 and 0.04: mean 0.025, population deviation 0.015. */
    double mean = 0.025, error = 0.015;
    assert_near(e.value, 100.0 * sqrt(mean), 1e-12);
    assert_near(e.se, 100.0 * 0.5 / sqrt(mean) * error, 1e-12);
    assert_true(e.low == 0.0 && e.high > e.value);
    e = assay_stats_delta_p_rms(ref, ref, &clusters);
    assert_true(e.value == 0.0 && e.se == 0.0 && e.low == 0.0 && e.high == 0.0);
}

static void a_reference_against_itself_is_exactly_zero(void **state)
{
    (void)state;
    const double nll[] = {1.0, 2.5, 0.25, 4.0}, kl[] = {0.0, 0.0, 0.0, 0.0};
    const uint8_t same[] = {1, 1, 1, 1};
    const size_t sizes[] = {2, 2};
    double by_chunk[2] = {9.0, 9.0};
    struct assay_pair_summary s;
    const struct assay_pair_series series = {nll, nll, kl, same, {sizes, 2}};
    assert_int_equal(assay_stats_pair(&series, by_chunk, &s, NULL), ASSAY_OK);
    assert_true(s.perplexity_increase_percent.value == 0.0 && s.perplexity_increase_percent.high == 0.0);
    assert_true(s.kl.mean == 0.0 && s.kl.p99 == 0.0 && s.kl.high == 0.0 && s.kl.n == 4);
    assert_true(s.same_top1_percent.value == 100.0 && s.delta_p_rms_percent.value == 0.0);
    assert_true(by_chunk[0] == 0.0 && by_chunk[1] == 0.0);
    assert_near(s.mean_nll.value, 7.75 / 4.0, 0.0);
    assert_near(s.perplexity.value, exp(7.75 / 4.0), 1e-15);
}

static void a_pair_has_the_figures_of_its_parts(void **state)
{
    (void)state;
    const double ref[] = {1.0, 2.0, 3.0, 0.5, 1.5}, var[] = {1.2, 1.9, 3.3, 0.6, 1.5};
    const double kl[] = {0.1, 0.2, 0.3, 0.4, 1.0};
    const uint8_t same[] = {1, 0, 1, 1, 0};
    const size_t sizes[] = {3, 2};
    double by_chunk[2];
    struct assay_pair_summary s;
    const struct assay_pair_series series = {ref, var, kl, same, {sizes, 2}};
    assert_int_equal(assay_stats_pair(&series, by_chunk, &s, NULL), ASSAY_OK);
    assert_near(s.kl.mean, 0.4, 1e-15);
    assert_near(s.kl.median, 0.3, 0.0);
    assert_near(s.kl.p90, 0.76, 1e-15);
    assert_near(s.kl.min, 0.1, 0.0);
    assert_near(s.kl.max, 1.0, 0.0);
    assert_true(s.kl.low < s.kl.mean && s.kl.mean < s.kl.high);
    assert_near(by_chunk[0], 0.2, 1e-15);
    assert_near(by_chunk[1], 0.7, 1e-15);
    assert_near(s.same_top1_percent.value, 60.0, 1e-15);
    assert_near(s.perplexity.value, exp(1.7), 1e-15);
    assert_near(s.perplexity_increase_percent.value, 100.0 * expm1(0.1), 1e-12);
    assert_true(s.mean_nll.n == 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_and_beta_agree_with_scipy),
        cmocka_unit_test(t_of_many_degrees_is_the_normal_distribution),
        cmocka_unit_test(sums_keep_what_large_terms_would_swallow),
        cmocka_unit_test(percentiles_interpolate_at_f_times_n_less_one),
        cmocka_unit_test(percentiles_of_nothing_or_nan_are_missing_and_infinity_stays),
        cmocka_unit_test(moments_divide_by_n_and_errors_by_n_less_one),
        cmocka_unit_test(an_interval_of_single_values_is_the_t_interval),
        cmocka_unit_test(repeating_a_token_does_not_narrow_the_interval),
        cmocka_unit_test(unequal_clusters_use_the_ratio_estimator),
        cmocka_unit_test(what_cannot_be_computed_is_nan),
        cmocka_unit_test(perplexity_is_exp_of_the_mean_with_its_interval),
        cmocka_unit_test(shares_stay_within_0_and_100_percent),
        cmocka_unit_test(delta_p_is_a_root_mean_square_of_label_probabilities),
        cmocka_unit_test(a_reference_against_itself_is_exactly_zero),
        cmocka_unit_test(a_pair_has_the_figures_of_its_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
