/* Scoring of rows of logits: exact zeros, tiny KL, broken rows, every path with the same bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/kernels/score/score.h"
#include "common/nn/scoring.h"

#define VOCAB_MAX 5000

static uint64_t random_state = 1;

/* xorshift64*: uniform in [0, 1). */
static double uniform(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (double)((random_state * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53;
}

static double normal(void)
{
    return sqrt(-2.0 * log(1.0 - uniform())) * cos(6.283185307179586 * uniform());
}

static void fill(float *ref, float *var, size_t vocab, double spread, double noise)
{
    for (size_t i = 0; i < vocab; i++) {
        ref[i] = (float)(spread * normal());
        var[i] = (float)((double)ref[i] + noise * normal());
    }
}

static bool same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static bool within(double got, double want, double rel)
{
    return got == want || fabs(got - want) <= rel * fabs(want);
}

static void same_logits_have_a_kl_of_exactly_zero(void **state)
{
    (void)state;
    static float ref[VOCAB_MAX], var[VOCAB_MAX];
    fill(ref, var, VOCAB_MAX, 4.0, 0.0);
    ref[7] = -INFINITY;
    ref[9] = -3.4e38f;
    memcpy(var, ref, sizeof var);
    for (size_t i = 0; assay_kernels_at(i); i++)
        for (size_t vocab = 1; vocab <= VOCAB_MAX; vocab = vocab * 2 + 9) {
            struct assay_position p = assay_score_row(assay_kernels_at(i), ref, var, vocab, 0);
            assert_true(p.kl == 0.0 && same_bits(p.nll_ref, p.nll_var) && p.top_ref == p.top_var);
        }
    struct assay_position p = assay_score_row_f64(ref, var, VOCAB_MAX, 0);
    assert_true(p.kl == 0.0 && same_bits(p.nll_ref, p.nll_var));
}

static void check_same_bits(const float *ref, const float *var, size_t vocab)
{
    int32_t label = (int32_t)(vocab / 2);
    struct assay_position want = assay_score_row(assay_kernels_at(0), ref, var, vocab, label);
    for (size_t i = 1; assay_kernels_at(i); i++) {
        struct assay_position got = assay_score_row(assay_kernels_at(i), ref, var, vocab, label);
        assert_true(same_bits(got.kl, want.kl) && same_bits(got.nll_ref, want.nll_ref) &&
                    same_bits(got.nll_var, want.nll_var));
        assert_true(got.top_ref == want.top_ref && got.top_var == want.top_var);
    }
}

static void every_path_gives_the_same_bits(void **state)
{
    (void)state;
    static float ref[VOCAB_MAX], var[VOCAB_MAX];
    for (size_t vocab = 1; vocab < 330; vocab++) {
        fill(ref, var, vocab, 3.0, vocab % 3 ? 0.1 : 1.5);
        check_same_bits(ref, var, vocab);
    }
    /* Rows of several parts: near, far, one part wholly in float64, one with an infinity. */
    static const size_t vocabs[] = {1023, 1024, 1025, 2100, VOCAB_MAX};
    static const double noises[] = {1e-3, 0.7, 2.5, 30.0};
    for (size_t v = 0; v < ASSAY_COUNT(vocabs); v++)
        for (size_t k = 0; k < ASSAY_COUNT(noises); k++) {
            fill(ref, var, vocabs[v], 3.0, noises[k]);
            check_same_bits(ref, var, vocabs[v]);
            ref[vocabs[v] - 1] = var[vocabs[v] - 1] = 300.0f;
            check_same_bits(ref, var, vocabs[v]);
            var[7] = -INFINITY;
            check_same_bits(ref, var, vocabs[v]);
            ref[7] = -INFINITY;
            check_same_bits(ref, var, vocabs[v]);
        }
}

/* The true value in long double: the plain sum of p ln(p / q) needs its 64 bits here. */
static long double exact_kl(const float *ref, const float *var, size_t vocab)
{
    long double max_ref = -INFINITY, max_var = -INFINITY, sum_ref = 0, sum_var = 0, kl = 0;
    for (size_t i = 0; i < vocab; i++) {
        max_ref = ref[i] > max_ref ? ref[i] : max_ref;
        max_var = var[i] > max_var ? var[i] : max_var;
    }
    for (size_t i = 0; i < vocab; i++) {
        sum_ref += expl(ref[i] - max_ref);
        sum_var += expl(var[i] - max_var);
    }
    long double lse_ref = max_ref + logl(sum_ref), lse_var = max_var + logl(sum_var);
    for (size_t i = 0; i < vocab; i++)
        kl += expl(ref[i] - lse_ref) * ((ref[i] - lse_ref) - (var[i] - lse_var));
    return kl;
}

static void a_kl_of_1e9_keeps_six_digits_and_more(void **state)
{
    (void)state;
    static float ref[VOCAB_MAX], var[VOCAB_MAX];
    static const double noises[] = {3e-5, 1e-3, 0.1, 0.7, 3.0, 20.0};
    for (size_t k = 0; k < ASSAY_COUNT(noises); k++) {
        fill(ref, var, VOCAB_MAX, 2.0, noises[k]);
        double want = (double)exact_kl(ref, var, VOCAB_MAX);
        struct assay_position plain = assay_score_row_f64(ref, var, VOCAB_MAX, 3);
        assert_true(fabs(plain.kl - want) <= 1e-14 + 1e-13 * want);
        for (size_t i = 0; assay_kernels_at(i); i++) {
            struct assay_position p = assay_score_row(assay_kernels_at(i), ref, var, VOCAB_MAX, 3);
            /* docs/NUMERICS.md has 1e-6 for any row; roundings of ordinary rows largely cancel. */
            if (!within(p.kl, want, 1e-7) || !within(p.nll_ref, plain.nll_ref, 1e-7))
                fail_msg("noise %g: kl %.17g, wanted %.17g; nll %.17g, %.17g", noises[k], p.kl, want, p.nll_ref,
                         plain.nll_ref);
        }
        if (k == 0)
            assert_true(want < 2e-9);
    }
}

/* var = ref + 500 is the same distribution up to the rounding of the logits. */
static void a_shift_of_all_logits_costs_only_their_rounding(void **state)
{
    (void)state;
    static float ref[VOCAB_MAX], var[VOCAB_MAX];
    for (size_t i = 0; i < VOCAB_MAX; i++) {
        ref[i] = (float)(floor(normal() * 4.0 * 1024.0) / 1024.0);
        var[i] = ref[i] + 500.0f;
    }
    for (size_t i = 0; assay_kernels_at(i); i++) {
        struct assay_position p = assay_score_row(assay_kernels_at(i), ref, var, VOCAB_MAX, 3);
        assert_true(p.kl >= 0.0 && p.kl < 1e-20 && within(p.nll_var, p.nll_ref, 1e-12));
    }
}

static void the_first_of_equal_tops_wins(void **state)
{
    (void)state;
    static float ref[300], var[300];
    for (size_t first = 0; first < 300; first += 23) {
        for (size_t i = 0; i < 300; i++) {
            ref[i] = i >= first && i % 2 == first % 2 ? 2.5f : -1.0f;
            var[i] = i >= first ? 7.0f : 6.5f;
        }
        for (size_t i = 0; assay_kernels_at(i); i++) {
            struct assay_position p = assay_score_row(assay_kernels_at(i), ref, var, 300, 0);
            assert_int_equal(p.top_ref, first);
            assert_int_equal(p.top_var, first);
        }
        struct assay_position p = assay_score_row_f64(ref, var, 300, 0);
        assert_true(p.top_ref == first && p.top_var == first);
    }
}

static struct assay_position score_by(size_t path, const float *ref, const float *var, size_t vocab)
{
    if (path == 0)
        return assay_score_row_f64(ref, var, vocab, 1);
    return assay_score_row(assay_kernels_at(path - 1), ref, var, vocab, 1);
}

static void broken_rows_never_give_a_plausible_number(void **state)
{
    (void)state;
    static float good[200], bad[200], other[200];
    const float breakers[] = {NAN, INFINITY};
    for (size_t path = 0; path == 0 || assay_kernels_at(path - 1); path++)
        for (size_t b = 0; b < ASSAY_COUNT(breakers); b++)
            for (size_t at = 0; at < 200; at += 33) {
                fill(good, other, 200, 2.0, 0.3);
                memcpy(bad, good, sizeof bad);
                bad[at] = breakers[b];
                struct assay_position p = score_by(path, bad, good, 200);
                assert_true(isnan(p.kl) && isnan(p.nll_ref) && isfinite(p.nll_var));
                assert_true(p.top_ref == ASSAY_TOP_NONE_REF && p.top_var < 200);
                p = score_by(path, good, bad, 200);
                assert_true(isnan(p.kl) && isfinite(p.nll_ref) && isnan(p.nll_var));
                p = score_by(path, bad, bad, 200);
                assert_true(isnan(p.kl) && p.top_ref != p.top_var);
            }
    for (size_t i = 0; i < 200; i++)
        bad[i] = -INFINITY;
    for (size_t path = 0; path == 0 || assay_kernels_at(path - 1); path++) {
        struct assay_position p = score_by(path, bad, bad, 200);
        assert_true(isnan(p.kl) && isnan(p.nll_ref) && p.top_ref != p.top_var);
    }
}

static void a_logit_of_minus_infinity_is_a_probability_of_zero(void **state)
{
    (void)state;
    float ref[4] = {0.0f, 0.0f, -INFINITY, -INFINITY}, var[4] = {0.0f, 0.0f, 0.0f, -INFINITY};
    for (size_t path = 0; path == 0 || assay_kernels_at(path - 1); path++) {
        struct assay_position p = score_by(path, ref, var, 4);
        assert_true(within(p.kl, log(1.5), 1e-11));
        p = score_by(path, var, ref, 4);
        assert_true(p.kl == INFINITY);
        p = score_by(path, ref, ref, 4);
        assert_true(p.kl == 0.0);
    }
    struct assay_position p = assay_score_row(assay_kernels_at(0), ref, var, 4, 2);
    assert_true(p.nll_ref == INFINITY && within(p.nll_var, log(3.0), 1e-11));
}

static void a_sure_label_keeps_the_digits_of_its_nll(void **state)
{
    (void)state;
    float ref[2] = {0.0f, -18.0f};
    for (size_t i = 0; assay_kernels_at(i); i++)
        assert_true(within(assay_score_row(assay_kernels_at(i), ref, ref, 2, 0).nll_ref, log1p(exp(-18.0)), 1e-7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_logits_have_a_kl_of_exactly_zero),
        cmocka_unit_test(every_path_gives_the_same_bits),
        cmocka_unit_test(a_kl_of_1e9_keeps_six_digits_and_more),
        cmocka_unit_test(a_shift_of_all_logits_costs_only_their_rounding),
        cmocka_unit_test(the_first_of_equal_tops_wins),
        cmocka_unit_test(broken_rows_never_give_a_plausible_number),
        cmocka_unit_test(a_logit_of_minus_infinity_is_a_probability_of_zero),
        cmocka_unit_test(a_sure_label_keeps_the_digits_of_its_nll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
