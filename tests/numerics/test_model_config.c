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
    want_refused(PLAIN ",\"rope_scaling\":{\"rope_type\":\"axial\",\"factor\":4.0}", ASSAY_UNIMPLEMENTED, "axial");
    want_refused("\"architectures\":[\"CohereForCausalLM\"]", ASSAY_UNIMPLEMENTED, "CohereForCausalLM");
    want_refused("\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":\"mish\",\"hidden_size\":64,"
                 "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"intermediate_size\":172,\"vocab_size\":100",
                 ASSAY_UNIMPLEMENTED, "mish");
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

static void want_inverse(const cJSON *want, const struct assay_model_config *c, size_t tokens, const char *model)
{
    float inverse[ASSAY_ROPE_PAIRS_MAX];
    assert_true(cJSON_IsArray(want));
    assert_int_equal(cJSON_GetArraySize(want), c->rotary_dim / 2);
    assay_rope_inverse(&c->rope, c->rotary_dim, tokens, inverse);
    for (size_t i = 0; i < c->rotary_dim / 2; i++) {
        double expected = cJSON_GetArrayItem(want, (int)i)->valuedouble;
        if (!(fabs((double)inverse[i] / expected - 1) <= 1.2e-7))
            fail_msg("%s: pair %zu at %zu tokens: %g, wanted %g", model, i, tokens, (double)inverse[i], expected);
    }
}

static void inverse_frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    struct assay_err err = ASSAY_ERR_INIT;
    assay_auto(assay_json_delete) cJSON *reference = NULL;
    if (assay_json_load(ASSAY_SHARED_DIR "/golden/models/rope_reference.json", &reference, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    const cJSON *model;
    size_t compared = 0;
    cJSON_ArrayForEach(model, reference)
    {
        static const struct {
            const char *key;
            size_t tokens;
        } lengths[] = {{"inv_freq_seqNone", 1}, {"inv_freq_seq33", 33}, {"inv_freq_seq120", 120}};
        char path[512];
        struct assay_model_config c;
        assay_auto(assay_json_delete) cJSON *json = NULL;
        snprintf(path, sizeof path, ASSAY_SHARED_DIR "/golden/models/%s/config.json", model->string);
        if (assay_json_load(path, &json, &err) != ASSAY_OK || assay_model_config_read(json, path, &c, &err) != ASSAY_OK)
            fail_msg("%s", err.text);
        const cJSON *factor = cJSON_GetObjectItemCaseSensitive(model, "attention_factor");
        assert_true(fabs(c.rope.attention_factor / factor->valuedouble - 1) <= 1e-12);
        for (size_t i = 0; i < ASSAY_COUNT(lengths); i++) {
            const cJSON *want = cJSON_GetObjectItemCaseSensitive(model, lengths[i].key);
            if (want) {
                want_inverse(want, &c, lengths[i].tokens, model->string);
                compared++;
            }
        }
    }
    assert_true(compared >= 16);
}

static void dynamic_rope_changes_only_beyond_the_trained_length(void **state)
{
    (void)state;
    struct assay_model_config plain, dynamic;
    want_config(PLAIN, &plain);
    want_config(PLAIN ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}", &dynamic);
    float want[8], got[8];
    assay_rope_inverse(&plain.rope, 16, 128, want);
    assay_rope_inverse(&dynamic.rope, 16, 128, got);
    assert_memory_equal(got, want, sizeof got);
    assay_rope_inverse(&dynamic.rope, 16, 256, got);
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
