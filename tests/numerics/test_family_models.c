/* Small models of families and options that the shared goldens do not hold: tests/interop/make_families.py wrote them
 * with the outputs of transformers. */
#include "common/kernels/kernels.h"
#include "tests/numerics/family_list.h"
#include "tests/numerics/golden_engine.h"

static void hidden_states_and_logits_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++)
        golden_check_outputs(family_models[i], true);
}

static void threads_and_instruction_sets_do_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++)
        golden_check_bits(family_models[i]);
}

static void the_company_in_a_batch_does_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++)
        golden_check_company(family_models[i]);
}

static void products_are_equal_by_rows_on_these_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++)
        golden_check_rows(family_models[i]);
}

/* A head's parts, multiplied and finished by hand, are its logits. */
static void the_parts_of_a_head_give_its_logits(void **state)
{
    (void)state;
    const struct assay_kernels *kernels = NULL;
    want_ok(assay_kernels_select(&kernels, &golden_err));
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++) {
        struct engine e = engine_open(family_models[i], 2, NULL);
        size_t vocab = assay_head_vocab(e.head), width = assay_head_hidden(e.head);
        int32_t ids[9];
        fill_ids(ids, ASSAY_COUNT(ids), vocab);
        float *hidden = hidden_of(&e, ids, ASSAY_COUNT(ids));
        float *want = malloc(ASSAY_COUNT(ids) * vocab * sizeof *want), *got = malloc(vocab * sizeof *got);
        assert_true(want && got);
        assay_head_logits(e.head, e.pool, hidden, ASSAY_COUNT(ids), want);
        struct assay_head_parts parts = assay_head_parts(e.head);
        for (size_t row = 0; row < ASSAY_COUNT(ids); row++) {
            assay_gemm(kernels, e.pool, 1, hidden + row * width, width, parts.panels, parts.bias, got, vocab);
            assay_head_finish(e.head, 5, got);
            assay_head_finish(e.head, vocab - 5, got + 5);
            assert_memory_equal(got, want + row * vocab, vocab * sizeof *got);
        }
        free(got);
        free(want);
        free(hidden);
        engine_close(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_and_logits_are_those_of_transformers),
        cmocka_unit_test(threads_and_instruction_sets_do_not_change_a_bit),
        cmocka_unit_test(the_company_in_a_batch_does_not_change_a_bit),
        cmocka_unit_test(products_are_equal_by_rows_on_these_models),
        cmocka_unit_test(the_parts_of_a_head_give_its_logits),
    };
    return cmocka_run_group_tests_name("family models", tests, NULL, NULL);
}
