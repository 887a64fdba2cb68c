/* config.json as models have it, rotary frequencies, and artifacts of int8. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/model.h"
#include "common/nn/rope.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define PLAIN                                                                                                          \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"   \
    "\"intermediate_size\":172,\"vocab_size\":100,\"hidden_act\":\"silu\",\"max_position_embeddings\":128"

static enum assay_status read_config(const char *members, struct assay_model_config *ret, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *json = NULL;
    char text[2048];
    int length = snprintf(text, sizeof text, "{%s}", members);
    assert_int_equal(assay_json_parse(text, (size_t)length, "test", &json, err), ASSAY_OK);
    return assay_model_config_read(json, "config.json", ret, err);
}

static void want_config(const char *members, struct assay_model_config *ret)
{
    struct assay_err err = ASSAY_ERR_INIT;
    if (read_config(members, ret, &err) != ASSAY_OK)
        fail_msg("%s: %s", members, err.text);
}

static void want_refused(const char *members, enum assay_status status, const char *word)
{
    struct assay_model_config config = {.hidden = 77};
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(read_config(members, &config, &err), status);
    if (!strstr(err.text, word))
        fail_msg("'%s' does not name %s", err.text, word);
    assert_int_equal(config.hidden, 77);
}

static void defaults_are_those_of_transformers(void **state)
{
    (void)state;
    struct assay_model_config c;
    want_config(PLAIN, &c);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.norm_eps == 1e-6f);
    assert_true(c.rope.kind == ASSAY_ROPE_DEFAULT && c.rope.theta == 10000);
    assert_false(c.tied_head || c.attention_bias || c.mlp_bias);
    want_config(
        PLAIN ",\"sliding_window\":null,\"pretraining_tp\":2,\"partial_rotary_factor\":1.0,\"rope_scaling\":null", &c);
}

static void both_styles_of_rope_are_read(void **state)
{
    (void)state;
    struct assay_model_config c;
    want_config(PLAIN ",\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}", &c);
    assert_true(c.rope.kind == ASSAY_ROPE_LINEAR && c.rope.theta == 500000 && c.rope.factor == 4);
    want_config(PLAIN ",\"rope_parameters\":{\"rope_type\":\"dynamic\",\"factor\":2.0,\"rope_theta\":20000}", &c);
    assert_true(c.rope.kind == ASSAY_ROPE_DYNAMIC && c.rope.theta == 20000 && c.rope.original_positions == 128);
    assert_int_equal(c.positions_max, 256);
}

static void what_is_not_implemented_is_refused_by_name(void **state)
{
    (void)state;
    want_refused(PLAIN ",\"sliding_window\":4096", ASSAY_UNIMPLEMENTED, "sliding_window");
    want_refused(PLAIN ",\"partial_rotary_factor\":0.5", ASSAY_UNIMPLEMENTED, "partial_rotary_factor");
    want_refused(PLAIN ",\"final_logit_softcapping\":30.0", ASSAY_UNIMPLEMENTED, "final_logit_softcapping");
    want_refused(PLAIN ",\"attention_multiplier\":0.1", ASSAY_UNIMPLEMENTED, "attention_multiplier");
    want_refused(PLAIN ",\"layer_types\":[\"sliding_attention\"]", ASSAY_UNIMPLEMENTED, "layer_types");
    want_refused(PLAIN ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}", ASSAY_UNIMPLEMENTED, "yarn");
    want_refused("\"architectures\":[\"GPT2LMHeadModel\"]", ASSAY_UNIMPLEMENTED, "GPT2LMHeadModel");
    want_refused("\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"gelu\",\"hidden_size\":64,"
                 "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":172,\"vocab_size\":100",
                 ASSAY_UNIMPLEMENTED, "gelu");
}

static void sizes_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    want_refused(PLAIN ",\"num_key_value_heads\":3", ASSAY_INVALID_ARGUMENT, "3 key-value heads");
    want_refused(PLAIN ",\"num_key_value_heads\":0", ASSAY_INVALID_ARGUMENT, "num_key_value_heads");
    want_refused(PLAIN ",\"head_dim\":15", ASSAY_INVALID_ARGUMENT, "head_dim");
    want_refused(PLAIN ",\"rms_norm_eps\":0", ASSAY_INVALID_ARGUMENT, "rms_norm_eps");
    want_refused(PLAIN ",\"rope_theta\":-1", ASSAY_INVALID_ARGUMENT, "rope_theta");
    want_refused(PLAIN ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}", ASSAY_INVALID_ARGUMENT,
                 "low_freq_factor");
    want_refused(PLAIN ",\"rope_scaling\":7", ASSAY_INVALID_ARGUMENT, "rope_scaling");
    want_refused("\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":1e18", ASSAY_INVALID_ARGUMENT,
                 "hidden_size");
    want_refused("\"architectures\":[]", ASSAY_INVALID_ARGUMENT, "architectures");
}

static void inverse_frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    struct assay_err err = ASSAY_ERR_INIT;
    assay_auto(assay_json_delete) cJSON *reference = NULL;
    if (assay_json_load(ASSAY_SHARED_DIR "/golden/models/rope_reference.json", &reference, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    static const char *const models[] = {"llama2_mha", "llama31_gqa_sharded", "llama31_rope_strong"};
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        const cJSON *model = cJSON_GetObjectItemCaseSensitive(reference, models[i]);
        const cJSON *want = cJSON_GetObjectItemCaseSensitive(model, "inv_freq_seqNone");
        assay_auto(assay_free_ptr) char *rope =
            cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(model, "rope_parameters"));
        assert_true(rope && cJSON_IsArray(want));
        char members[1024];
        snprintf(members, sizeof members, PLAIN ",\"rope_parameters\":%s", rope);
        struct assay_model_config c;
        want_config(members, &c);
        float inverse[8];
        assert_int_equal(cJSON_GetArraySize(want), ASSAY_COUNT(inverse));
        assay_rope_inverse(&c, 33, inverse);
        for (int j = 0; j < 8; j++)
            assert_true(fabs((double)inverse[j] / cJSON_GetArrayItem(want, j)->valuedouble - 1) <= 1.2e-7);
    }
}

static void dynamic_rope_changes_only_beyond_the_trained_length(void **state)
{
    (void)state;
    struct assay_model_config plain, dynamic;
    want_config(PLAIN, &plain);
    want_config(PLAIN ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}", &dynamic);
    float want[8], got[8];
    assay_rope_inverse(&plain, 128, want);
    assay_rope_inverse(&dynamic, 128, got);
    assert_memory_equal(got, want, sizeof got);
    assay_rope_inverse(&dynamic, 256, got);
    /* base 10000 * (2 * 256 / 128 - 1)^(16 / 14) */
    double base = 10000 * pow(3, 16.0 / 14);
    for (int i = 0; i < 8; i++)
        assert_true(fabs((double)got[i] * pow(base, i / 8.0) - 1) <= 3e-7);
}

static void rotations_are_within_one_ulp_of_the_true_values(void **state)
{
    (void)state;
    static const size_t positions[] = {0, 1, 2, 3, 511, 4095, 131071, 1048575, 16777215};
    const float inverse[6] = {1.0f, 0.31622776f, 0.1f, 1e-3f, 1e-6f, 0.77f};
    float cosine[6], sine[6];
    for (size_t i = 0; i < ASSAY_COUNT(positions); i++) {
        assay_rope_row(positions[i], 6, inverse, cosine, sine);
        for (size_t j = 0; j < 6; j++) {
            double angle = (double)((float)positions[i] * inverse[j]);
            assert_true(fabs((double)cosine[j] - cos(angle)) <= 6e-8 * fabs(cos(angle)) + 1e-12);
            assert_true(fabs((double)sine[j] - sin(angle)) <= 6e-8 * fabs(sin(angle)) + 1e-12);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_transformers),
        cmocka_unit_test(both_styles_of_rope_are_read),
        cmocka_unit_test(what_is_not_implemented_is_refused_by_name),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
        cmocka_unit_test(inverse_frequencies_are_those_of_transformers),
        cmocka_unit_test(dynamic_rope_changes_only_beyond_the_trained_length),
        cmocka_unit_test(rotations_are_within_one_ulp_of_the_true_values),
    };
    return cmocka_run_group_tests_name("model config", tests, NULL, NULL);
}
