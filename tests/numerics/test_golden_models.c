/* The engine against the outputs of transformers, and against itself: threads, batches and instruction sets. */
#include "tests/numerics/golden_engine.h"
#include "tests/shared.h"

static const char *const models[] = {
    ASSAY_SHARED_DIR "/golden/models/llama2_mha",          ASSAY_SHARED_DIR "/golden/models/llama31_gqa_sharded",
    ASSAY_SHARED_DIR "/golden/models/llama31_rope_strong", ASSAY_SHARED_DIR "/golden/models/smollm_tied",
    ASSAY_SHARED_DIR "/golden/models/mistral_swa16",       ASSAY_SHARED_DIR "/golden/models/qwen2_tied_bias",
    ASSAY_SHARED_DIR "/golden/models/r1_distill_qwen",     ASSAY_SHARED_DIR "/golden/models/phi3_fused_swa",
    ASSAY_SHARED_DIR "/golden/models/phi3_longrope",       ASSAY_SHARED_DIR "/golden/models/gptneox_parallel",
    ASSAY_SHARED_DIR "/golden/models/gpt2_small",          ASSAY_SHARED_DIR "/models/assay-tiny",
};

static void hidden_states_and_logits_are_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++)
        golden_check_outputs(models[i], !strstr(models[i], "assay-tiny"));
}

static void threads_and_instruction_sets_do_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++)
        golden_check_bits(models[i]);
}

static void the_company_in_a_batch_does_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++)
        golden_check_company(models[i]);
}

static void a_sequence_that_goes_on_has_the_bits_of_the_whole(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++)
        golden_check_growth(models[i]);
}

static void products_are_equal_by_rows_on_these_models(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++)
        golden_check_rows(models[i]);
}

static void tokens_behind_a_row_and_the_rows_asked_for_do_not_change_a_bit(void **state)
{
    (void)state;
    need_shared();
    struct engine e = engine_open(models[0], 2, NULL);
    size_t width = assay_head_hidden(e.head);
    int32_t ids[2 * GOLDEN_TOKENS];
    fill_ids(ids, ASSAY_COUNT(ids), assay_head_vocab(e.head));
    float *whole = hidden_of(&e, ids, 2 * GOLDEN_TOKENS), *rows = malloc(2 * GOLDEN_TOKENS * width * sizeof *rows);
    assert_non_null(rows);
    static const size_t cuts[][3] = {{1, 0, 1}, {31, 30, 31}, {48, 5, 48}, {49, 0, 49}, {97, 60, 90}, {140, 139, 140}};
    for (size_t i = 0; i < ASSAY_COUNT(cuts); i++) {
        struct assay_sequence s = {ids, cuts[i][0], cuts[i][1], cuts[i][2], rows, NULL};
        want_ok(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err));
        assert_memory_equal(rows, whole + cuts[i][1] * width, (cuts[i][2] - cuts[i][1]) * width * sizeof *rows);
    }
    free(rows);
    free(whole);
    engine_close(&e);
}

/* The same weights as separate and as fused matrices. */
static void fused_projections_are_the_same_bits(void **state)
{
    (void)state;
    need_shared();
    size_t bytes;
    float *want = hidden_by(ASSAY_SHARED_DIR "/models/stories260K", 2, NULL, &bytes);
    float *got = hidden_by(ASSAY_SHARED_DIR "/models/stories260K-as-phi3", 2, NULL, &bytes);
    assert_memory_equal(got, want, bytes);
    free(got);
    free(want);
}

static void what_a_model_cannot_run_is_refused(void **state)
{
    (void)state;
    need_shared();
    struct engine e = engine_open(models[0], 1, NULL);
    int32_t ids[4] = {0, 1, 2, 3};
    float hidden[4 * 64];
    struct assay_sequence s = {ids, 4, 0, 4, hidden, NULL};
    ids[2] = -1;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err), ASSAY_OUT_OF_RANGE);
    ids[2] = 1400;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err), ASSAY_OUT_OF_RANGE);
    ids[2] = 1399;
    volatile bool cancel = true;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, &cancel, &golden_err), ASSAY_CANCELLED);
    s.tokens = 0;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err), ASSAY_OUT_OF_RANGE);
    s.tokens = 4;
    s.end = 5;
    assert_int_equal(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err), ASSAY_OUT_OF_RANGE);
    s.end = 4;
    want_ok(assay_model_forward(e.model, e.pool, &s, 1, NULL, &golden_err));
    want_ok(assay_model_forward(e.model, e.pool, &s, 0, NULL, &golden_err));
    engine_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_and_logits_are_those_of_transformers),
        cmocka_unit_test(threads_and_instruction_sets_do_not_change_a_bit),
        cmocka_unit_test(the_company_in_a_batch_does_not_change_a_bit),
        cmocka_unit_test(tokens_behind_a_row_and_the_rows_asked_for_do_not_change_a_bit),
        cmocka_unit_test(a_sequence_that_goes_on_has_the_bits_of_the_whole),
        cmocka_unit_test(products_are_equal_by_rows_on_these_models),
        cmocka_unit_test(fused_projections_are_the_same_bits),
        cmocka_unit_test(what_a_model_cannot_run_is_refused),
    };
    return cmocka_run_group_tests_name("golden models", tests, NULL, NULL);
}
