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

#define SIZES                                                                                                          \
    "\"hidden_size\":64,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"num_key_value_heads\":4,"                  \
    "\"intermediate_size\":172,\"vocab_size\":100,\"max_position_embeddings\":128"
#define OF(architecture) "\"architectures\":[\"" architecture "\"]," SIZES
#define GPT2 "\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"vocab_size\":100"

static void options_of_other_families_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *members, *word;
    } cases[] = {
        {OF("LlamaForCausalLM") ",\"sliding_window\":16", "sliding_window"},
        {OF("LlamaForCausalLM") ",\"logits_scaling\":2", "logits_scaling"},
        {OF("LlamaForCausalLM") ",\"rotary_pct\":0.5", "rotary_pct"},
        {OF("LlamaForCausalLM") ",\"n_routed_experts\":8", "n_routed_experts"},
        {OF("LlamaForCausalLM") ",\"scale_attn_weights\":false", "scale_attn_weights"},
        {OF("LlamaForCausalLM") ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"mrope_section\":[1]}",
         "mrope_section"},
        {OF("LlamaForCausalLM") ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2,\"attention_factor\":2.0}",
         "attention_factor"},
        {OF("MistralForCausalLM") ",\"attention_bias\":true", "attention_bias"},
        {OF("MistralForCausalLM") ",\"layer_types\":[\"sliding_attention\",\"full_attention\",\"full_attention\","
                                  "\"full_attention\"]",
         "layer_types"},
        {OF("Qwen2ForCausalLM") ",\"layer_types\":[\"chunked_attention\",\"full_attention\",\"full_attention\","
                                "\"full_attention\"]",
         "chunked_attention"},
        {OF("Phi3ForCausalLM") ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"qk_layernorm\":true",
         "qk_layernorm"},
        {OF("GPTNeoXForCausalLM") ",\"hidden_act\":\"mish\"", "mish"},
        {OF("Gemma2ForCausalLM") ",\"use_bidirectional_attention\":true", "use_bidirectional_attention"},
        {OF("Gemma2ForCausalLM") ",\"rope_local_base_freq\":10000", "rope_local_base_freq"},
        {OF("Gemma3ForCausalLM") ",\"attn_logit_softcapping\":50.0", "attn_logit_softcapping"},
        {OF("DeepseekV3ForCausalLM") ",\"scoring_func\":\"softmax\"", "softmax"},
        {OF("DeepseekV3ForCausalLM") ",\"topk_method\":\"greedy\"", "greedy"},
        {OF("DeepseekV3ForCausalLM") ",\"moe_layer_freq\":2", "moe_layer_freq"},
        {GPT2 ",\"add_cross_attention\":true", "add_cross_attention"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++)
        want_refused(cases[i].members, ASSAY_UNIMPLEMENTED, cases[i].word);
}

static void values_of_options_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *members, *word;
    } cases[] = {
        {OF("Qwen2ForCausalLM") ",\"layer_types\":[\"full_attention\"]", "4 entries"},
        {OF("Qwen2ForCausalLM") ",\"use_sliding_window\":false,\"layer_types\":[\"sliding_attention\","
                                "\"full_attention\",\"full_attention\",\"full_attention\"]",
         "without a sliding_window"},
        {OF("Gemma2ForCausalLM") ",\"final_logit_softcapping\":-3.0", "final_logit_softcapping"},
        {OF("Gemma2ForCausalLM") ",\"query_pre_attn_scalar\":0", "query_pre_attn_scalar"},
        {OF("Phi3ForCausalLM") ",\"partial_rotary_factor\":0.2", "elements of a head rotate"},
        {OF("Phi3ForCausalLM") ",\"rope_scaling\":{\"type\":\"su\",\"long_factor\":[1,1,1,1,1,1,1,1]}", "short_factor"},
        {OF("Phi3ForCausalLM") ",\"rope_scaling\":{\"type\":\"su\",\"short_factor\":[1,1,1,1,1,1,1,0],"
                               "\"long_factor\":[1,1,1,1,1,1,1,1]}",
         "short_factor[7]"},
        {OF("LlamaForCausalLM") ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":-1}",
         "beta_fast"},
        {OF("LlamaForCausalLM") ",\"assay\":{\"used_vocab\":101}", "used_vocab"},
        {OF("DeepseekV3ForCausalLM") ",\"n_routed_experts\":9,\"n_group\":2", "groups"},
        {OF("DeepseekV3ForCausalLM") ",\"num_experts_per_tok\":200", "are to be chosen"},
        {OF("GraniteForCausalLM") ",\"residual_multiplier\":-1", "residual_multiplier"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++)
        want_refused(cases[i].members, ASSAY_INVALID_ARGUMENT, cases[i].word);
}

static void want_windows(const char *members, const char *pattern, size_t window)
{
    struct assay_model_config c;
    want_config(members, &c);
    for (size_t i = 0; i < 4; i++)
        if (c.windowed[i] != (pattern[i] == 'w'))
            fail_msg("%s: layer %zu", members, i);
    assert_int_equal(c.window, window);
}

static void windows_are_where_transformers_has_them(void **state)
{
    (void)state;
    want_windows(OF("MistralForCausalLM"), "wwww", 4096);
    want_windows(OF("MistralForCausalLM") ",\"sliding_window\":null", "----", 0);
    want_windows(OF("MistralForCausalLM") ",\"sliding_window\":16", "wwww", 16);
    want_windows(OF("Phi3ForCausalLM"), "----", 0);
    want_windows(OF("Qwen2ForCausalLM") ",\"sliding_window\":16", "----", 0);
    want_windows(OF("Qwen2ForCausalLM") ",\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":3",
                 "---w", 16);
    want_windows(OF("Qwen3ForCausalLM") ",\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":0",
                 "wwww", 16);
    want_windows(OF("Gemma2ForCausalLM"), "w-w-", 4096);
    want_windows(OF("Gemma3ForCausalLM") ",\"sliding_window\":512,\"sliding_window_pattern\":3", "ww-w", 512);
}

static void usual_values_are_those_of_the_family(void **state)
{
    (void)state;
    struct assay_model_config c;
    want_config(GPT2, &c);
    assert_int_equal(c.intermediate, 256);
    assert_int_equal(c.positions_max, 1024);
    assert_int_equal(c.rotary_dim, 0);
    assert_true(c.tied_head && c.attention_bias && c.output_bias && c.mlp_bias);
    assert_true(c.activation == ASSAY_ACTIVATION_GELU_TANH && c.norm == ASSAY_NORM_LAYER);
    want_config(OF("Gemma2ForCausalLM"), &c);
    assert_int_equal(c.head_dim, 256);
    assert_true(c.tied_head && c.attention_cap == 50 && c.attention_scale == 1.0 / 16 && c.embedding_scale == 8);
    want_config(OF("Gemma2ForCausalLM") ",\"attn_logit_softcapping\":null", &c);
    assert_true(c.attention_cap == 0);
    want_config(OF("Gemma3ForCausalLM") ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8.0}", &c);
    assert_true(c.rope.theta == 1e6 && c.rope.kind == ASSAY_ROPE_LINEAR);
    assert_true(c.local_rope.theta == 10000 && c.local_rope.kind == ASSAY_ROPE_DEFAULT);
    want_config(OF("GPTNeoXForCausalLM"), &c);
    assert_true(c.rotary_dim == 4 && c.parallel_residual && c.attention_bias);
    want_config(OF("LlamaForCausalLM") ",\"assay\":{\"used_vocab\":90}", &c);
    assert_true(c.vocab == 100 && c.vocab_used == 90);
    want_config(OF("Qwen2ForCausalLM") ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
                                       "\"original_max_position_embeddings\":128}",
                &c);
    assert_int_equal(c.positions_max, 512);
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
        cmocka_unit_test(options_of_other_families_are_refused_by_name),
        cmocka_unit_test(values_of_options_that_cannot_be_are_refused),
        cmocka_unit_test(windows_are_where_transformers_has_them),
        cmocka_unit_test(usual_values_are_those_of_the_family),
        cmocka_unit_test(sizes_that_do_not_fit_are_refused),
        cmocka_unit_test(inverse_frequencies_are_those_of_transformers),
        cmocka_unit_test(dynamic_rope_changes_only_beyond_the_trained_length),
        cmocka_unit_test(rotations_are_within_one_ulp_of_the_true_values),
    };
    return cmocka_run_group_tests_name("model config", tests, NULL, NULL);
}
