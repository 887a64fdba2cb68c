/* Scoring through heads: the rows of the definition whatever the tiles, the threads and the company; refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/formats/safetensors.h"
#include "common/nn/scoring.h"

#define HIDDEN 16
#define ROWS 350 /* more than a tile */

static float pseudo_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* A head of its own: a checkpoint with nothing else in it. */
static struct assay_head *make_head(struct assay_pool *pool, size_t vocab, uint32_t seed)
{
    char dir[] = "/tmp/assay-head-XXXXXX", path[ASSAY_PATH_MAX], config[512];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_non_null(mkdtemp(dir));
    int len = snprintf(config, sizeof config,
                       "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_act\": \"silu\", \"hidden_size\": %d,"
                       " \"intermediate_size\": 32, \"max_position_embeddings\": 64, \"num_attention_heads\": 2,"
                       " \"num_hidden_layers\": 1, \"num_key_value_heads\": 2, \"rms_norm_eps\": 1e-5,"
                       " \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"vocab_size\": %zu}",
                       HIDDEN, vocab);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(assay_file_write(path, config, (size_t)len, &err), ASSAY_OK);
    float *weight = malloc(vocab * HIDDEN * sizeof *weight);
    assert_non_null(weight);
    for (size_t i = 0; i < vocab * HIDDEN; i++)
        weight[i] = pseudo_random(&seed);
    const struct assay_tensor tensor = {
        .name = "lm_head.weight", .dtype = ASSAY_F32, .rank = 2, .shape = {vocab, HIDDEN}};
    struct assay_safetensors_writer *writer;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    assert_int_equal(assay_safetensors_create(path, &tensor, 1, &writer, &err), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, weight, vocab * HIDDEN * sizeof *weight, &err), ASSAY_OK);
    assert_int_equal(assay_safetensors_finish(writer, &err), ASSAY_OK);
    struct assay_checkpoint *checkpoint;
    struct assay_head *head = NULL;
    assert_int_equal(assay_checkpoint_open(dir, &checkpoint, &err), ASSAY_OK);
    if (assay_head_load(checkpoint, pool, &head, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assay_checkpoint_close(checkpoint);
    assert_int_equal(assay_remove_tree(dir, &err), ASSAY_OK);
    free(weight);
    return head;
}

struct fixture {
    struct assay_pool *pools[2]; /* 1 and 3 threads */
    struct assay_head *head, *other;
    float *hidden[3]; /* [ROWS, HIDDEN] */
    int32_t labels[ROWS];
    size_t vocab;
};

static void set_up(struct fixture *f)
{
    uint32_t seed = 5;
    f->vocab = 2777; /* two whole parts and a short one */
    assert_int_equal(assay_pool_new(1, NULL, &f->pools[0], NULL), ASSAY_OK);
    assert_int_equal(assay_pool_new(3, NULL, &f->pools[1], NULL), ASSAY_OK);
    f->head = make_head(f->pools[0], f->vocab, 1);
    f->other = make_head(f->pools[0], f->vocab, 2);
    for (size_t s = 0; s < 3; s++) {
        f->hidden[s] = malloc(ROWS * HIDDEN * sizeof(float));
        assert_non_null(f->hidden[s]);
        for (size_t i = 0; i < ROWS * HIDDEN; i++)
            f->hidden[s][i] = s == 0 ? pseudo_random(&seed) : f->hidden[0][i] + 0.1f * pseudo_random(&seed);
    }
    for (size_t t = 0; t < ROWS; t++)
        f->labels[t] = (int32_t)(t * 31 % f->vocab);
}

static void tear_down(struct fixture *f)
{
    for (size_t s = 0; s < 3; s++)
        free(f->hidden[s]);
    assay_head_free(f->head);
    assay_head_free(f->other);
    assay_pool_free(f->pools[0]);
    assay_pool_free(f->pools[1]);
}

static bool within(double got, double want, double rel)
{
    return got == want || fabs(got - want) <= rel * fabs(want);
}

static const struct assay_kernels *fastest(void)
{
    size_t path = 0;
    while (assay_kernels_at(path + 1))
        path++;
    return assay_kernels_at(path);
}

static void check_position(const struct fixture *f, const struct assay_scoring_side *variant, size_t t,
                           const struct assay_position *got)
{
    float *ref = malloc(f->vocab * sizeof *ref), *var = malloc(f->vocab * sizeof *var);
    assert_true(ref && var);
    assay_head_logits(f->head, f->pools[0], f->hidden[0] + t * HIDDEN, 1, ref);
    assay_head_logits(variant->head, f->pools[0], variant->hidden + t * HIDDEN, 1, var);
    struct assay_position want = assay_score_row_f64(ref, var, f->vocab, f->labels[t]);
    if (!within(got->kl, want.kl, 1e-6) || !within(got->nll_ref, want.nll_ref, 2e-7) ||
        !within(got->nll_var, want.nll_var, 2e-7) || got->top_ref != want.top_ref || got->top_var != want.top_var)
        fail_msg("position %zu: kl %.17g, wanted %.17g", t, got->kl, want.kl);
    struct assay_position row = assay_score_row(fastest(), ref, var, f->vocab, f->labels[t]);
    assert_memory_equal(&row, got, sizeof row);
    free(ref);
    free(var);
}

static void positions_are_those_of_single_rows(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    const struct assay_scoring_side ref = {f.head, f.hidden[0]};
    const struct assay_scoring_side variants[] = {{f.head, f.hidden[1]}, {f.other, f.hidden[2]}, {f.head, f.hidden[0]}};
    static struct assay_position got[3 * ROWS];
    assert_int_equal(assay_score(f.pools[1], &ref, variants, 3, f.labels, ROWS, got, NULL), ASSAY_OK);
    for (size_t v = 0; v < 3; v++)
        for (size_t t = 0; t < ROWS; t++)
            check_position(&f, &variants[v], t, &got[v * ROWS + t]);
    for (size_t t = 0; t < ROWS; t++)
        assert_true(got[2 * ROWS + t].kl == 0.0 && got[2 * ROWS + t].nll_ref == got[2 * ROWS + t].nll_var);
    tear_down(&f);
}

static void threads_and_company_do_not_change_a_bit(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    const struct assay_scoring_side ref = {f.head, f.hidden[0]};
    const struct assay_scoring_side variants[] = {{f.other, f.hidden[2]}, {f.head, f.hidden[1]}};
    static struct assay_position both[2 * ROWS], alone[ROWS], few[7];
    assert_int_equal(assay_score(f.pools[1], &ref, variants, 2, f.labels, ROWS, both, NULL), ASSAY_OK);
    assert_int_equal(assay_score(f.pools[0], &ref, &variants[1], 1, f.labels, ROWS, alone, NULL), ASSAY_OK);
    assert_int_equal(assay_score(f.pools[0], &ref, &variants[1], 1, f.labels, 7, few, NULL), ASSAY_OK);
    assert_memory_equal(both + ROWS, alone, sizeof alone);
    assert_memory_equal(alone, few, sizeof few);
    tear_down(&f);
}

static void labels_and_vocabularies_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    set_up(&f);
    struct assay_head *smaller = make_head(f.pools[0], f.vocab - 1, 3);
    const struct assay_scoring_side ref = {f.head, f.hidden[0]}, same = {f.head, f.hidden[1]};
    const struct assay_scoring_side variants[] = {same, {smaller, f.hidden[1]}};
    static struct assay_position got[2 * ROWS];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_score(f.pools[0], &ref, variants, 2, f.labels, ROWS, got, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "2776"));
    f.labels[9] = (int32_t)f.vocab;
    assert_int_equal(assay_score(f.pools[0], &ref, &same, 1, f.labels, ROWS, got, &err), ASSAY_OUT_OF_RANGE);
    assert_non_null(strstr(err.text, "2777"));
    f.labels[9] = -1;
    assert_int_equal(assay_score(f.pools[0], &ref, &same, 1, f.labels, ROWS, got, &err), ASSAY_OUT_OF_RANGE);
    assert_int_equal(assay_score(f.pools[0], &ref, &same, 1, f.labels, 9, got, &err), ASSAY_OK);
    assay_head_free(smaller);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(positions_are_those_of_single_rows),
        cmocka_unit_test(threads_and_company_do_not_change_a_bit),
        cmocka_unit_test(labels_and_vocabularies_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
