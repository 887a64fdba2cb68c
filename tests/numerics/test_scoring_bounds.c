/* The bounds of scoring over rows that are meant to break them, against long double: vocabularies of 1 to 200,000, KL
 * of 1e-14 to 50, flat and peaked rows, shifts, tiny changes in one place, -inf. Prints the worst that it finds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/nn/scoring.h"

#define VOCAB_MAX 200000
/* docs/NUMERICS.md */
#define KL_REL 1e-6
#define KL_ABS 1e-23
#define NLL_REL 2e-7
#define NLL_ABS 1e-11

static uint64_t random_state = 7;

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

struct row {
    float ref[VOCAB_MAX], var[VOCAB_MAX];
    size_t vocab;
};

struct truth {
    long double kl, nll_ref, nll_var;
    long double moved; /* mean size of the logits' differences under the reference, with the label's */
};

static struct truth truth_of(const struct row *row, size_t label)
{
    long double max_ref = -INFINITY, max_var = -INFINITY, sum_ref = 0, sum_var = 0;
    for (size_t i = 0; i < row->vocab; i++) {
        max_ref = fmaxl(max_ref, row->ref[i]);
        max_var = fmaxl(max_var, row->var[i]);
    }
    for (size_t i = 0; i < row->vocab; i++) {
        sum_ref += expl(row->ref[i] - max_ref);
        sum_var += expl(row->var[i] - max_var);
    }
    long double log_ref = logl(sum_ref), log_var = logl(sum_var);
    long double between = (max_ref - max_var) + (log_ref - log_var);
    struct truth t = {.nll_ref = (max_ref - row->ref[label]) + log_ref,
                      .nll_var = (max_var - row->var[label]) + log_var};
    for (size_t i = 0; i < row->vocab; i++) {
        long double p = expl((row->ref[i] - max_ref) - log_ref), q = expl((row->var[i] - max_var) - log_var);
        if (p == 0) {
            t.kl += q;
            continue;
        }
        long double d = ((long double)row->ref[i] - row->var[i]) - between;
        t.kl += fabsl(d) <= 1 ? p * (d + expm1l(-d)) : (q - p) + p * d;
        t.moved += p * fabsl(d);
    }
    t.moved += fabsl(((long double)row->ref[label] - row->var[label]) - between);
    return t;
}

enum shape { FLAT, NARROW, WIDE, PEAKED, TWO_LEVELS, SHAPES };
enum change { NOISE, SIGNS, TOP_ONLY, ONE_IN_TAIL, HALF, STRETCH, CHANGES };

static void fill_ref(struct row *row, enum shape shape, double offset)
{
    for (size_t i = 0; i < row->vocab; i++) {
        double x = shape == FLAT         ? 0.0
                   : shape == NARROW     ? 0.5 * normal()
                   : shape == TWO_LEVELS ? (i % 7 ? -16.0 : -15.3)
                                         : 4.0 * normal();
        row->ref[i] = (float)(x + offset);
    }
    if (shape == PEAKED || shape == TWO_LEVELS)
        row->ref[row->vocab / 3] = (float)(offset + (shape == PEAKED ? 30.0 : 0.0));
}

static void fill_var(struct row *row, enum change change, double size, double offset)
{
    size_t top = 0, at = row->vocab / 2;
    for (size_t i = 0; i < row->vocab; i++)
        top = row->ref[i] > row->ref[top] ? i : top;
    for (size_t i = 0; i < row->vocab; i++) {
        double x = row->ref[i];
        bool moves = change == NOISE || change == SIGNS || change == STRETCH || (change == TOP_ONLY && i == top) ||
                     (change == ONE_IN_TAIL && i == at) || (change == HALF && i >= at);
        double by = change == NOISE     ? size * normal()
                    : change == SIGNS   ? (i % 2 ? size : -size)
                    : change == STRETCH ? size * 0.1 * x
                                        : size;
        row->var[i] = (float)((moves ? x + by : x) + offset);
    }
}

struct worst {
    double kl, nll_ref, nll_var;
};

static void check(const struct row *row, size_t path, struct worst *worst)
{
    size_t label = row->vocab * 2 / 5;
    struct truth want = truth_of(row, label);
    struct assay_position got = assay_score_row(assay_kernels_at(path), row->ref, row->var, row->vocab, (int32_t)label);
    double kl = (double)fabsl(got.kl - want.kl), nll_ref = (double)fabsl(got.nll_ref - want.nll_ref);
    double moved = (double)fabsl((got.nll_var - want.nll_var) - (got.nll_ref - want.nll_ref));
    /* A logit of size s was rounded in steps of s * 2^-24 already; rows that are the same but for a shift have that
     * much left. */
    double nll_size = (double)want.nll_ref, moved_size = (double)want.moved;
    if (!(kl <= KL_REL * (double)want.kl + KL_ABS) || !(nll_ref <= NLL_REL * nll_size + NLL_ABS) ||
        !(moved <= NLL_REL * moved_size + NLL_ABS))
        fail_msg("vocabulary %zu, %s: kl %.17g, wanted %.17Lg; nll %.17g, %.17Lg; %.17g, %.17Lg", row->vocab,
                 assay_kernels_at(path)->name, got.kl, want.kl, got.nll_ref, want.nll_ref, got.nll_var, want.nll_var);
    if (want.kl > 1e-14)
        worst->kl = fmax(worst->kl, (kl - KL_ABS) / (double)want.kl);
    worst->nll_ref = fmax(worst->nll_ref, (nll_ref - NLL_ABS) / (nll_size + NLL_ABS));
    worst->nll_var = fmax(worst->nll_var, (moved - NLL_ABS) / (moved_size + NLL_ABS));
}

static size_t fastest_path(void)
{
    size_t path = 0;
    while (assay_kernels_at(path + 1))
        path++;
    return path;
}

static void sweep(const size_t *vocabs, size_t count, struct worst *worst)
{
    static const double offsets[] = {0.0, 7.3, -120.0, 200.0}, moves[] = {0.0, 1.7, -33.1};
    static const double sizes[] = {1e-6, 1e-4, 1e-2, 0.3, 1.9, 2.1, 9.0, 45.0};
    static struct row row;
    size_t path = fastest_path();
    for (size_t v = 0; v < count; v++)
        for (size_t shape = 0; shape < SHAPES; shape++)
            for (size_t change = 0; change < CHANGES; change++)
                for (size_t size = 0; size < ASSAY_COUNT(sizes); size++) {
                    row.vocab = vocabs[v];
                    fill_ref(&row, (enum shape)shape, offsets[(size + shape) % ASSAY_COUNT(offsets)]);
                    fill_var(&row, (enum change)change, sizes[size], moves[(size + change) % ASSAY_COUNT(moves)]);
                    check(&row, path, worst);
                }
}

static void rows_of_every_kind_are_within_the_bounds(void **state)
{
    (void)state;
    static const size_t vocabs[] = {1, 2, 3, 16, 17, 63, 64, 65, 300, 1023, 1024, 1025, 3000};
    struct worst worst = {0};
    sweep(vocabs, ASSAY_COUNT(vocabs), &worst);
    print_message("worst: kl %.2e, nll %.2e, difference of nll %.2e\n", worst.kl, worst.nll_ref, worst.nll_var);
}

/* ASSAY_TEST_WIDE=1 runs all kinds of rows of 200,000; else a few of them. */
static void wide_rows_are_within_the_bounds(void **state)
{
    (void)state;
    static const size_t vocabs[] = {50257, VOCAB_MAX};
    static struct row row;
    struct worst worst = {0};
    if (getenv("ASSAY_TEST_WIDE")) {
        sweep(vocabs, ASSAY_COUNT(vocabs), &worst);
    } else {
        for (size_t change = 0; change < CHANGES; change++) {
            row.vocab = vocabs[change % 2];
            fill_ref(&row, WIDE, 0.0);
            fill_var(&row, (enum change)change, change == STRETCH ? 1.0 : 1e-4, 0.0);
            check(&row, fastest_path(), &worst);
        }
    }
    print_message("worst: kl %.2e, nll %.2e, difference of nll %.2e\n", worst.kl, worst.nll_ref, worst.nll_var);
}

static void rows_with_minus_infinity_are_within_the_bounds(void **state)
{
    (void)state;
    static struct row row;
    struct worst worst = {0};
    for (size_t every = 2; every < 2100; every = every * 3 + 1)
        for (size_t size = 0; size < 4; size++) {
            row.vocab = 5000;
            fill_ref(&row, WIDE, 0.0);
            fill_var(&row, NOISE, pow(10.0, -2.0 * (double)size), 0.0);
            for (size_t i = 1; i < row.vocab; i += every) {
                row.ref[i] = -INFINITY;
                if (i % 3)
                    row.var[i] = -INFINITY;
            }
            row.ref[2000] = row.var[2000] = 1.0f; /* the label */
            check(&row, fastest_path(), &worst);
        }
    print_message("worst: kl %.2e, nll %.2e, difference of nll %.2e\n", worst.kl, worst.nll_ref, worst.nll_var);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_every_kind_are_within_the_bounds),
        cmocka_unit_test(wide_rows_are_within_the_bounds),
        cmocka_unit_test(rows_with_minus_infinity_are_within_the_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
