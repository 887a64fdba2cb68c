/* What each option leaves of a distribution, what the seed decides, and what is refused. */
#include <math.h>
#include <stdlib.h>

#include "common/nn/sampler.h"
#include "tests/cmocka_all.h"

#define VOCAB 6
#define DRAWS 20000

static struct assay_err err = ASSAY_ERR_INIT;
/* Probabilities 0.4, 0.3, 0.15, 0.1, 0.04, 0.01, out of order. */
static const double probabilities[VOCAB] = {0.1, 0.4, 0.01, 0.3, 0.04, 0.15};

static void fill(float logits[VOCAB])
{
    for (size_t i = 0; i < VOCAB; i++)
        logits[i] = (float)log(probabilities[i]) + 3;
}

static int32_t choose(const struct assay_sampling *sampling, const float *logits, size_t step, const int32_t *seen,
                      size_t seen_count)
{
    struct assay_sampler *sampler;
    struct assay_choice choice;
    assert_int_equal(assay_sampler_new(VOCAB, &sampler, &err), ASSAY_OK);
    if (assay_sampler_choose(sampler, sampling, step, logits, seen, seen_count, &choice, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    if (!(fabs(choice.logprob - log(probabilities[choice.id])) < 1e-6))
        fail_msg("token %d has %g, wanted %g", (int)choice.id, choice.logprob, log(probabilities[choice.id]));
    assay_sampler_free(sampler);
    return choice.id;
}

/* Shares of DRAWS tokens lie within five standard errors of `wanted`; 0 means never. */
static void want_shares(struct assay_sampling sampling, const double wanted[VOCAB])
{
    float logits[VOCAB];
    size_t counts[VOCAB] = {0};
    struct assay_sampler *sampler;
    fill(logits);
    assert_int_equal(assay_sampler_new(VOCAB, &sampler, &err), ASSAY_OK);
    for (size_t i = 0; i < DRAWS; i++) {
        struct assay_choice choice;
        assert_int_equal(assay_sampler_choose(sampler, &sampling, i, logits, NULL, 0, &choice, &err), ASSAY_OK);
        counts[choice.id]++;
    }
    for (size_t i = 0; i < VOCAB; i++) {
        double share = (double)counts[i] / DRAWS, error = 5 * sqrt(wanted[i] * (1 - wanted[i]) / DRAWS);
        if (!(fabs(share - wanted[i]) <= error))
            fail_msg("token %zu: share %g, wanted %g within %g", i, share, wanted[i], error);
    }
    assay_sampler_free(sampler);
}

static void tokens_come_with_their_probabilities(void **state)
{
    (void)state;
    struct assay_sampling sampling = ASSAY_SAMPLING_GREEDY;
    sampling.temperature = 1;
    sampling.seed = 7;
    want_shares(sampling, probabilities);
    sampling.temperature = 0.5;
    double squares[VOCAB], sum = 0;
    for (size_t i = 0; i < VOCAB; i++)
        sum += squares[i] = probabilities[i] * probabilities[i];
    for (size_t i = 0; i < VOCAB; i++)
        squares[i] /= sum;
    want_shares(sampling, squares);
}

static void options_leave_the_tokens_that_they_name(void **state)
{
    (void)state;
    struct assay_sampling base = ASSAY_SAMPLING_GREEDY, sampling;
    base.temperature = 1;
    base.seed = 11;
    sampling = base;
    sampling.top_k = 2;
    want_shares(sampling, (const double[]){0, 4.0 / 7, 0, 3.0 / 7, 0, 0});
    sampling = base;
    sampling.top_p = 0.75;
    want_shares(sampling, (const double[]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0, 0.15 / 0.85});
    sampling = base;
    sampling.min_p = 0.3;
    want_shares(sampling, (const double[]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0, 0.15 / 0.85});
    sampling = base;
    sampling.top_p = 1e-9;
    want_shares(sampling, (const double[]){0, 1, 0, 0, 0, 0});
    /* top-p is over what top-k left: 0.4 of 0.7 is below 0.6, so two remain. */
    sampling = base;
    sampling.top_k = 2;
    sampling.top_p = 0.6;
    want_shares(sampling, (const double[]){0, 4.0 / 7, 0, 3.0 / 7, 0, 0});
}

static void equals_of_the_last_of_top_k_stay_and_the_first_index_wins(void **state)
{
    (void)state;
    const float logits[VOCAB] = {1, 2, 2, 0, 2, -1};
    struct assay_sampling sampling = ASSAY_SAMPLING_GREEDY;
    struct assay_sampler *sampler;
    struct assay_choice choice;
    bool found[VOCAB] = {false};
    assert_int_equal(assay_sampler_new(VOCAB, &sampler, &err), ASSAY_OK);
    assert_int_equal(assay_sampler_choose(sampler, &sampling, 0, logits, NULL, 0, &choice, &err), ASSAY_OK);
    assert_int_equal(choice.id, 1);
    sampling.temperature = 1;
    sampling.top_k = 2;
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(assay_sampler_choose(sampler, &sampling, i, logits, NULL, 0, &choice, &err), ASSAY_OK);
        found[choice.id] = true;
    }
    assert_true(!found[0] && found[1] && found[2] && !found[3] && found[4] && !found[5]);
    assay_sampler_free(sampler);
}

static void tokens_seen_are_penalized_once_towards_less(void **state)
{
    (void)state;
    float logits[VOCAB];
    fill(logits); /* of 1: 2.08, of 3: 1.80, of 5: 1.10 */
    struct assay_sampling sampling = ASSAY_SAMPLING_GREEDY;
    sampling.repetition_penalty = 1.2;
    assert_int_equal(choose(&sampling, logits, 0, (const int32_t[]){1, 1, -4, 99}, 4), 3);
    /* Twice would be 1.45 and below 1.50 of token 3, once is 1.74 and above. */
    assert_int_equal(choose(&sampling, logits, 0, (const int32_t[]){1, 1, 3}, 3), 1);
    for (size_t i = 0; i < VOCAB; i++)
        logits[i] -= 10; /* negative ones are multiplied */
    assert_int_equal(choose(&sampling, logits, 0, (const int32_t[]){1}, 1), 3);
}

static void seed_and_step_decide_alone(void **state)
{
    (void)state;
    float logits[VOCAB];
    fill(logits);
    struct assay_sampling a = ASSAY_SAMPLING_GREEDY;
    a.temperature = 1;
    struct assay_sampling b = a;
    b.seed = 1;
    size_t differ = 0, change = 0;
    for (size_t i = 0; i < 100; i++) {
        int32_t id = choose(&a, logits, i, NULL, 0);
        assert_int_equal(id, choose(&a, logits, i, NULL, 0));
        differ += id != choose(&b, logits, i, NULL, 0);
        change += id != choose(&a, logits, i + 1, NULL, 0);
    }
    assert_true(differ > 40 && change > 40);
}

static void what_is_no_distribution_or_out_of_range_is_refused(void **state)
{
    (void)state;
    static const float broken[][2] = {{NAN, 0}, {INFINITY, 0}, {-INFINITY, -INFINITY}};
    struct assay_sampling sampling = ASSAY_SAMPLING_GREEDY;
    struct assay_sampler *sampler;
    struct assay_choice choice;
    assert_int_equal(assay_sampler_new(2, &sampler, &err), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(broken); i++)
        assert_int_equal(assay_sampler_choose(sampler, &sampling, 0, broken[i], NULL, 0, &choice, &err),
                         ASSAY_INVALID_ARGUMENT);
    assay_sampler_free(sampler);
    const struct assay_sampling wrong[] = {
        {.temperature = -1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = NAN, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1e-9, .top_p = 1, .repetition_penalty = 1},
        {.top_p = 0, .repetition_penalty = 1},
        {.top_p = 1.1, .repetition_penalty = 1},
        {.top_p = 1, .min_p = -0.1, .repetition_penalty = 1},
        {.top_p = 1, .repetition_penalty = 0},
    };
    assert_int_equal(assay_sampling_check(&sampling, &err), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(wrong); i++)
        assert_int_equal(assay_sampling_check(&wrong[i], &err), ASSAY_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_come_with_their_probabilities),
        cmocka_unit_test(options_leave_the_tokens_that_they_name),
        cmocka_unit_test(equals_of_the_last_of_top_k_stay_and_the_first_index_wins),
        cmocka_unit_test(tokens_seen_are_penalized_once_towards_less),
        cmocka_unit_test(seed_and_step_decide_alone),
        cmocka_unit_test(what_is_no_distribution_or_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
