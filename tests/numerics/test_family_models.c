/* Small models of families and options that the shared goldens do not hold: tests/interop/make_families.py wrote them
 * with the outputs of transformers. */
#include <unistd.h>

#include "common/base/fs.h"
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

static void a_sequence_that_goes_on_has_the_bits_of_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++)
        golden_check_growth(family_models[i]);
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

/* A copy of a model whose config.json says more. */
static void write_changed(const char *model, const char *dir, const char *member, const char *value)
{
    struct assay_checkpoint *checkpoint;
    char path[ASSAY_PATH_MAX], target[ASSAY_PATH_MAX];
    want_ok(assay_checkpoint_open(model, &checkpoint, &golden_err));
    cJSON *config = cJSON_Duplicate(assay_checkpoint_config(checkpoint), true);
    assert_non_null(config);
    cJSON_DeleteItemFromObject(config, member);
    cJSON_AddItemToObject(config, member, cJSON_Parse(value));
    char *text = cJSON_Print(config);
    want_ok(assay_path_join(path, dir, "config.json", &golden_err));
    want_ok(assay_file_write(path, text, strlen(text), &golden_err));
    want_ok(assay_path_join(path, dir, "model.safetensors", &golden_err));
    want_ok(assay_path_join(target, model, "model.safetensors", &golden_err));
    assert_int_equal(symlink(target, path), 0);
    cJSON_free(text);
    cJSON_Delete(config);
    assay_checkpoint_close(checkpoint);
}

/* Padding has no logits; the others are as before, and the head is another one. */
static void ids_out_of_use_have_no_logits(void **state)
{
    (void)state;
    char dir[] = "/tmp/assay-used-XXXXXX";
    assert_non_null(mkdtemp(dir));
    write_changed(VECTORS "gemma2", dir, "assay", "{\"used_vocab\": 33}");
    struct engine all = engine_open(VECTORS "gemma2", 1, NULL), used = engine_open(dir, 1, NULL);
    assert_int_equal(assay_head_vocab(all.head), 40);
    assert_int_equal(assay_head_vocab(used.head), 33);
    int32_t ids[6];
    fill_ids(ids, 6, 40);
    float *hidden = hidden_of(&all, ids, 6), want[6 * 40], got[6 * 33];
    assay_head_logits(all.head, all.pool, hidden, 6, want);
    assay_head_logits(used.head, used.pool, hidden, 6, got);
    for (size_t row = 0; row < 6; row++)
        assert_memory_equal(got + row * 33, want + row * 40, 33 * sizeof *got);
    struct assay_digest a = assay_head_digest(all.head), b = assay_head_digest(used.head);
    assert_false(assay_digest_equal(&a, &b));
    free(hidden);
    engine_close(&all);
    engine_close(&used);
    want_ok(assay_remove_tree(dir, &golden_err));
}

static void a_check_says_what_loading_would(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(family_models); i++) {
        struct assay_checkpoint *checkpoint;
        want_ok(assay_checkpoint_open(family_models[i], &checkpoint, &golden_err));
        want_ok(assay_model_check(checkpoint, &golden_err));
        assay_checkpoint_close(checkpoint);
    }
    static const struct {
        const char *model, *member, *value, *word;
    } cases[] = {{VECTORS "gemma2", "intermediate_size", "33", "mlp.gate_proj"},
                 {VECTORS "gemma2", "num_hidden_layers", "4", "layer_types"},
                 {VECTORS "granite_multipliers", "num_hidden_layers", "3", "layers.2"},
                 {VECTORS "granite_multipliers", "vocab_size", "41", "embed_tokens"},
                 {VECTORS "gpt2_scaled", "n_inner", "40", "mlp.c_fc"},
                 {VECTORS "llama_yarn_bias", "attention_bias", "false", "q_proj.bias"},
                 {VECTORS "deepseek_v3", "n_routed_experts", "12", "mlp.gate"},
                 {VECTORS "deepseek_v3", "moe_intermediate_size", "8", "shared_experts"}};
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        char dir[] = "/tmp/assay-check-XXXXXX";
        struct assay_checkpoint *checkpoint;
        struct assay_pool *pool;
        struct assay_model *model = NULL;
        struct assay_err checked = ASSAY_ERR_INIT, loaded = ASSAY_ERR_INIT;
        assert_non_null(mkdtemp(dir));
        write_changed(cases[i].model, dir, cases[i].member, cases[i].value);
        want_ok(assay_pool_new(1, NULL, &pool, &golden_err));
        want_ok(assay_checkpoint_open(dir, &checkpoint, &golden_err));
        enum assay_status status = assay_model_check(checkpoint, &checked);
        assert_int_not_equal(status, ASSAY_OK);
        assert_int_equal(assay_model_load(checkpoint, pool, &model, &loaded), status);
        assert_string_equal(checked.text, loaded.text);
        if (!strstr(checked.text, cases[i].word))
            fail_msg("'%s' does not name %s", checked.text, cases[i].word);
        assay_checkpoint_close(checkpoint);
        assay_pool_free(pool);
        want_ok(assay_remove_tree(dir, &golden_err));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_and_logits_are_those_of_transformers),
        cmocka_unit_test(threads_and_instruction_sets_do_not_change_a_bit),
        cmocka_unit_test(the_company_in_a_batch_does_not_change_a_bit),
        cmocka_unit_test(a_sequence_that_goes_on_has_the_bits_of_the_whole),
        cmocka_unit_test(products_are_equal_by_rows_on_these_models),
        cmocka_unit_test(the_parts_of_a_head_give_its_logits),
        cmocka_unit_test(ids_out_of_use_have_no_logits),
        cmocka_unit_test(a_check_says_what_loading_would),
    };
    return cmocka_run_group_tests_name("family models", tests, NULL, NULL);
}
