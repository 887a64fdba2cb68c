/* KL and NLL of the golden rows of logits: the plain float64 way to 1e-12, every path of this CPU within the contract.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/formats/safetensors.h"
#include "common/nn/scoring.h"

/* docs/NUMERICS.md */
#define KL_REL 1e-6
#define NLL_REL 2e-7

static bool within(double got, double want, double rel)
{
    return got == want || fabs(got - want) <= rel * fabs(want);
}

static struct assay_safetensors *golden_logits(void)
{
    struct assay_safetensors *file;
    struct assay_err err = ASSAY_ERR_INIT;
    if (access(ASSAY_SHARED_DIR "/golden/metrics", F_OK) != 0) {
        const char *ci = getenv("CI");
        assert_false(ci && strcmp(ci, "true") == 0);
        skip();
    }
    assert_int_equal(assay_safetensors_open(ASSAY_SHARED_DIR "/golden/metrics/logits.safetensors", &file, &err),
                     ASSAY_OK);
    return file;
}

static void *copy_of(struct assay_safetensors *file, const char *set, const char *name, enum assay_dtype dtype)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", set, name);
    const struct assay_tensor *tensor = assay_safetensors_find(file, full);
    assert_non_null(tensor);
    assert_int_equal(tensor->dtype, dtype);
    void *copy = malloc(tensor->bytes);
    assert_non_null(copy);
    memcpy(copy, tensor->data, tensor->bytes);
    return copy;
}

struct golden {
    float *ref, *var;
    int32_t *labels;
    double *kl, *kl_reverse, *nll_ref, *nll_var;
    size_t rows, vocab;
};

static struct golden golden_open(struct assay_safetensors *file, const char *set)
{
    struct golden g = {
        .ref = copy_of(file, set, "P", ASSAY_F32),
        .var = copy_of(file, set, "Q", ASSAY_F32),
        .labels = copy_of(file, set, "target", ASSAY_I32),
        .kl = copy_of(file, set, "kl", ASSAY_F64),
        .kl_reverse = copy_of(file, set, "kl_reverse", ASSAY_F64),
        .nll_ref = copy_of(file, set, "nll_p", ASSAY_F64),
        .nll_var = copy_of(file, set, "nll_q", ASSAY_F64),
    };
    char full[64];
    snprintf(full, sizeof full, "%s.P", set);
    const struct assay_tensor *p = assay_safetensors_find(file, full);
    g.rows = p->shape[0];
    g.vocab = p->shape[1];
    return g;
}

static void golden_close(struct golden *g)
{
    free(g->ref);
    free(g->var);
    free(g->labels);
    free(g->kl);
    free(g->kl_reverse);
    free(g->nll_ref);
    free(g->nll_var);
}

static struct assay_position plain(const struct assay_kernels *kernels, const float *ref, const float *var,
                                   size_t vocab, int32_t label)
{
    (void)kernels;
    return assay_score_row_f64(ref, var, vocab, label);
}

typedef struct assay_position (*score_fn)(const struct assay_kernels *kernels, const float *ref, const float *var,
                                          size_t vocab, int32_t label);

static void compare_set(struct assay_safetensors *file, const char *set, score_fn score,
                        const struct assay_kernels *kernels, double rel_kl, double rel_nll)
{
    struct golden g = golden_open(file, set);
    assert_true(g.rows >= 12);
    for (size_t t = 0; t < g.rows; t++) {
        const float *ref = g.ref + t * g.vocab, *var = g.var + t * g.vocab;
        struct assay_position there = score(kernels, ref, var, g.vocab, g.labels[t]);
        struct assay_position back = score(kernels, var, ref, g.vocab, g.labels[t]);
        if (!within(there.kl, g.kl[t], rel_kl) || !within(back.kl, g.kl_reverse[t], rel_kl) ||
            !within(there.nll_ref, g.nll_ref[t], rel_nll) || !within(there.nll_var, g.nll_var[t], rel_nll))
            fail_msg("%s row %zu: kl %.17g (%.17g), reverse %.17g (%.17g), nll %.17g (%.17g), %.17g (%.17g)", set, t,
                     there.kl, g.kl[t], back.kl, g.kl_reverse[t], there.nll_ref, g.nll_ref[t], there.nll_var,
                     g.nll_var[t]);
        assert_true(there.top_ref < g.vocab && there.top_ref == back.top_var && there.top_var == back.top_ref);
    }
    golden_close(&g);
}

static void plain_float64_agrees_to_1e12(void **state)
{
    (void)state;
    struct assay_safetensors *file = golden_logits();
    compare_set(file, "small", plain, NULL, 1e-12, 1e-12);
    compare_set(file, "wide", plain, NULL, 1e-12, 1e-12);
    compare_set(file, "edge", plain, NULL, 1e-12, 1e-12);
    assay_safetensors_close(file);
}

static void every_path_is_within_its_bounds(void **state)
{
    (void)state;
    struct assay_safetensors *file = golden_logits();
    for (size_t i = 0; assay_kernels_at(i); i++) {
        compare_set(file, "small", assay_score_row, assay_kernels_at(i), KL_REL, NLL_REL);
        compare_set(file, "wide", assay_score_row, assay_kernels_at(i), KL_REL, NLL_REL);
        compare_set(file, "edge", assay_score_row, assay_kernels_at(i), KL_REL, NLL_REL);
    }
    assay_safetensors_close(file);
}

static void the_share_of_same_tops_is_the_goldens(void **state)
{
    (void)state;
    struct assay_safetensors *file = golden_logits();
    /* top1_agreement in metrics.json: 0.84375 of 64 rows, 7 of 12 rows with ties among them. */
    static const struct {
        const char *set;
        size_t same;
    } wanted[] = {{"small", 54}, {"wide", 24}, {"edge", 7}};
    for (size_t s = 0; s < ASSAY_COUNT(wanted); s++) {
        struct golden g = golden_open(file, wanted[s].set);
        size_t same = 0;
        for (size_t t = 0; t < g.rows; t++) {
            struct assay_position p =
                assay_score_row(assay_kernels_at(0), g.ref + t * g.vocab, g.var + t * g.vocab, g.vocab, g.labels[t]);
            same += p.top_ref == p.top_var;
        }
        assert_int_equal(same, wanted[s].same);
        golden_close(&g);
    }
    assay_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_float64_agrees_to_1e12),
        cmocka_unit_test(every_path_is_within_its_bounds),
        cmocka_unit_test(the_share_of_same_tops_is_the_goldens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
