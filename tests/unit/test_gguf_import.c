/* A GGUF file becomes a checkpoint: names, order of rows, values, config and vocabulary; and what is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/formats/checkpoint.h"
#include "common/formats/gguf_import.h"
#include "common/formats/gguf_tokenizer.h"
#include "tests/cmocka_all.h"
#include "tests/unit/gguf_writer.h"

static char scratch[] = "/tmp/assay-test-gguf-XXXXXX";

static int make_scratch(void **state)
{
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    (void)state;
    return assay_remove_tree(scratch, NULL) == ASSAY_OK ? 0 : -1;
}

static enum assay_status import(struct gguf_writer *writer, assay_gguf_progress_fn progress,
                                struct assay_gguf_summary *summary, struct assay_err *err)
{
    size_t len;
    unsigned char *bytes = gguf_image(writer, &len);
    struct assay_gguf *file = NULL;
    enum assay_status status = assay_gguf_parse(bytes, len, "file", &file, err);
    if (status == ASSAY_OK)
        status = assay_gguf_import(file, scratch, progress, NULL, summary, err);
    assay_gguf_close(file);
    free(bytes);
    gguf_writer_release(writer);
    *writer = (struct gguf_writer){0};
    return status;
}

static void refused(struct gguf_writer *writer, enum assay_status wanted, const char *words)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_gguf_summary summary;
    enum assay_status status = import(writer, NULL, &summary, &err);
    if (status != wanted || !strstr(err.text, words))
        fail_msg("status %s, '%s'; wanted %s, '%s'", assay_status_name(status), err.text, assay_status_name(wanted),
                 words);
}

/* Value `index` of a tensor of the checkpoint. */
static float value_at(const struct assay_checkpoint *checkpoint, const char *name, size_t index)
{
    const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, name);
    float value = NAN;
    if (!tensor)
        fail_msg("no tensor %s", name);
    else
        assert_true(assay_dtype_to_f32(
            tensor->dtype, (const char *)tensor->data + index * assay_dtype_bytes(tensor->dtype), 1, &value));
    return value;
}

static void a_llama_becomes_its_checkpoint(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    struct assay_gguf_summary summary;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_checkpoint *checkpoint = NULL;
    gguf_put_llama(&writer);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    assert_int_equal(assay_checkpoint_count(checkpoint), 20);
    assert_int_equal(summary.tensors, 20);
    assert_int_equal(summary.f16, 20);
    assert_int_equal(summary.bytes * 2, summary.source_bytes);
    assert_true(value_at(checkpoint, "model.embed_tokens.weight", 9) == gguf_llama_weight(0, 9));
    assert_true(value_at(checkpoint, "model.norm.weight", 3) == gguf_llama_weight(1, 3));
    /* Layer 1 begins with tensor 11; q is the 2nd of a layer, k the 3rd, v the 4th. Head of 4: file rows 0 1 2 3 are
     * the checkpoint's 0 2 1 3. */
    static const size_t source[8] = {0, 2, 1, 3, 4, 6, 5, 7};
    for (size_t row = 0; row < 8; row++) {
        assert_true(value_at(checkpoint, "model.layers.1.self_attn.q_proj.weight", row * 8 + 5) ==
                    gguf_llama_weight(12, source[row] * 8 + 5));
        if (row < 4)
            assert_true(value_at(checkpoint, "model.layers.1.self_attn.k_proj.weight", row * 8) ==
                        gguf_llama_weight(13, source[row] * 8));
        if (row < 4)
            assert_true(value_at(checkpoint, "model.layers.1.self_attn.v_proj.weight", row * 8) ==
                        gguf_llama_weight(14, row * 8));
    }
    assert_true(value_at(checkpoint, "model.layers.0.mlp.down_proj.weight", 95) == gguf_llama_weight(10, 95));
    const cJSON *config = assay_checkpoint_config(checkpoint);
    double eps = 0;
    bool tied = false;
    assert_int_equal(assay_json_get_double(config, "c", "rms_norm_eps", true, &eps, &err), ASSAY_OK);
    assert_true(eps == 1e-5);
    assert_int_equal(assay_json_get_bool(config, "c", "tie_word_embeddings", true, &tied, &err), ASSAY_OK);
    assert_true(tied);
    assert_int_equal(cJSON_GetObjectItem(config, "vocab_size")->valueint, 262);
    assert_int_equal(cJSON_GetObjectItem(config, "num_key_value_heads")->valueint, 1);
    assert_int_equal(cJSON_GetObjectItem(config, "bos_token_id")->valueint, 258);
    assert_null(cJSON_GetObjectItem(config, "rope_scaling"));
    assay_checkpoint_close(checkpoint);
}

static void a_tensor_is_narrowed_only_where_that_is_exact(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    struct assay_gguf_summary summary;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_checkpoint *checkpoint = NULL;
    float brain[262 * 8];
    uint16_t blocks[262 * 8] = {0};
    for (size_t i = 0; i < ASSAY_COUNT(brain); i++)
        brain[i] = 0x1p100f;
    brain[2000] = -0.0f;
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "output.weight", 262, 8, ASSAY_GGML_F32, brain, sizeof brain);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    assert_int_equal(summary.bf16, 1);
    assert_int_equal(assay_checkpoint_find(checkpoint, "lm_head.weight")->dtype, ASSAY_BF16);
    assert_true(value_at(checkpoint, "lm_head.weight", 7) == 0x1p100f);
    assert_true(signbit(value_at(checkpoint, "lm_head.weight", 2000)));
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(assay_checkpoint_config(checkpoint), "tie_word_embeddings")));
    assay_checkpoint_close(checkpoint);
    brain[2095] = 1 + 0x1p-20f;
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "output.weight", 262, 8, ASSAY_GGML_F32, brain, sizeof brain);
    assert_int_equal(import(&writer, NULL, &summary, &err), ASSAY_OK);
    assert_int_equal(summary.f32, 1);
    blocks[0] = 0x7c01; /* a signalling NaN keeps its bits or goes to F32 */
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "output.weight", 262, 8, ASSAY_GGML_F16, blocks, sizeof blocks);
    assert_int_equal(import(&writer, NULL, &summary, &err), ASSAY_OK);
}

static bool stop_at_three(void *arg, size_t done, size_t total)
{
    (void)arg;
    assert_int_equal(total, 20);
    return done < 3;
}

static void a_stopped_import_says_so(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    struct assay_gguf_summary summary;
    struct assay_err err = ASSAY_ERR_INIT;
    gguf_put_llama(&writer);
    assert_int_equal(import(&writer, stop_at_three, &summary, &err), ASSAY_CANCELLED);
    assert_non_null(strstr(err.text, "3 of 20"));
}

static void what_would_change_the_result_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        const char *words;
    } ints[] = {{"llama.expert_count", 8, "llama.expert_count of 8"},
                {"llama.attention.kv_lora_rank", 8, "kv_lora_rank of 8"},
                {"llama.nextn_predict_layers", 1, "nextn_predict_layers of 1"},
                {"llama.rope.dimension_count", 2, "2 rotated"},
                {"llama.attention.value_length", 8, "values of 8"}};
    static const struct {
        const char *key;
        float value;
        const char *words;
    } floats[] = {{"llama.logit_scale", 2, "logit_scale of 2"},
                  {"llama.attention.scale", 0.5f, "attention.scale of 0.5"},
                  {"llama.final_logit_softcapping", 30, "final_logit_softcapping of 30"},
                  {"llama.attention.clamp_kqv", 8, "clamp_kqv of 8"},
                  {"llama.rope.scaling.attn_factor", 1.5f, "attn_factor 1.5"}};
    struct gguf_writer writer = {0};
    const float one[8] = {0};
    for (size_t i = 0; i < ASSAY_COUNT(ints); i++) {
        gguf_put_llama(&writer);
        gguf_put_int(&writer, ints[i].key, ints[i].value);
        refused(&writer, ASSAY_UNIMPLEMENTED, ints[i].words);
    }
    for (size_t i = 0; i < ASSAY_COUNT(floats); i++) {
        gguf_put_llama(&writer);
        gguf_put_float(&writer, floats[i].key, floats[i].value);
        refused(&writer, ASSAY_UNIMPLEMENTED, floats[i].words);
    }
    gguf_put_llama(&writer);
    gguf_put_bool(&writer, "llama.attention.causal", false);
    refused(&writer, ASSAY_UNIMPLEMENTED, "later positions");
    gguf_put_llama(&writer);
    gguf_put_int(&writer, "llama.attention.key_length", 8);
    gguf_put_int(&writer, "llama.attention.value_length", 8);
    refused(&writer, ASSAY_INVALID_ARGUMENT, "'blk.0.attn_q.weight' is [8, 8], wanted [16, 8]");
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "blk.0.attn_q.bias", 0, 8, ASSAY_GGML_F32, one, sizeof one);
    refused(&writer, ASSAY_INVALID_ARGUMENT, "'blk.0.attn_k.bias' is missing");
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "blk.0.attn_qkv.weight", 0, 8, ASSAY_GGML_F32, one, sizeof one);
    refused(&writer, ASSAY_UNIMPLEMENTED, "'blk.0.attn_qkv.weight' has no place in a llama of 2 layers");
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "blk.2.attn_q.weight", 0, 8, ASSAY_GGML_F32, one, sizeof one);
    refused(&writer, ASSAY_UNIMPLEMENTED, "blk.2.attn_q.weight");
    gguf_put_llama(&writer);
    gguf_put_int(&writer, "split.count", 3);
    refused(&writer, ASSAY_UNIMPLEMENTED, "one of 3 files");
    gguf_put_text(&writer, "general.architecture", "falcon");
    refused(&writer, ASSAY_UNIMPLEMENTED, "'falcon' is not implemented for GGUF; these are: llama, qwen2");
    gguf_put_text(&writer, "general.architecture", "llama");
    refused(&writer, ASSAY_INVALID_ARGUMENT, "llama.embedding_length");
}

static void ropes_that_cannot_be_told_are_refused(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    const struct {
        const char *name;
        float factors[2];
        enum assay_status status;
        const char *words;
    } tensors[] = {
        {"rope_freqs.weight", {1, 0}, ASSAY_INVALID_ARGUMENT, "factor 1 of rope_freqs.weight is 0"},
        {"rope_freqs.weight", {NAN, 1}, ASSAY_INVALID_ARGUMENT, "factor 0 of rope_freqs.weight is nan"},
        {"rope_factors_long.weight", {1, 2}, ASSAY_UNIMPLEMENTED, "'longrope' is not implemented for llama"}};
    for (size_t i = 0; i < ASSAY_COUNT(tensors); i++) {
        gguf_put_llama(&writer);
        gguf_put_tensor(&writer, tensors[i].name, 0, 2, ASSAY_GGML_F32, tensors[i].factors, 8);
        refused(&writer, tensors[i].status, tensors[i].words);
    }
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "rope_freqs.weight", 0, 1, ASSAY_GGML_F32, tensors[0].factors, 4);
    refused(&writer, ASSAY_INVALID_ARGUMENT, "not F32 [2]");
    gguf_put_llama(&writer);
    gguf_put_text(&writer, "llama.rope.scaling.type", "longrope");
    refused(&writer, ASSAY_UNIMPLEMENTED, "'longrope'");
    gguf_put_llama(&writer);
    gguf_put_text(&writer, "llama.rope.scaling.type", "spiral");
    refused(&writer, ASSAY_UNIMPLEMENTED, "'spiral'");
    gguf_put_llama(&writer);
    gguf_put_text(&writer, "llama.rope.scaling.type", "yarn");
    gguf_put_float(&writer, "llama.rope.scaling.yarn_ext_factor", 0.5f);
    refused(&writer, ASSAY_UNIMPLEMENTED, "yarn_ext_factor 0.5");
    gguf_put_llama(&writer);
    gguf_put_text(&writer, "llama.rope.scaling.type", "linear");
    gguf_put_float(&writer, "llama.rope.scaling.factor", 2);
    gguf_put_tensor(&writer, "rope_freqs.weight", 0, 2, ASSAY_GGML_F32, (const float[]){1, 2}, 8);
    refused(&writer, ASSAY_UNIMPLEMENTED, "two scalings");
}

static void rope_scalings_reach_the_config(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    struct assay_gguf_summary summary;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_checkpoint *checkpoint = NULL;
    gguf_put_llama(&writer);
    gguf_put_text(&writer, "llama.rope.scaling.type", "linear");
    gguf_put_float(&writer, "llama.rope.scaling.factor", 2.5f);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    const cJSON *rope = cJSON_GetObjectItem(assay_checkpoint_config(checkpoint), "rope_scaling");
    assert_string_equal(cJSON_GetObjectItem(rope, "rope_type")->valuestring, "linear");
    assert_true(cJSON_GetObjectItem(rope, "factor")->valuedouble == 2.5);
    assay_checkpoint_close(checkpoint);
    /* Heads of 4 at theta 10000: wavelengths 6.3 and 628, both shorter than 2048, so that Llama 3 divides by 1. */
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "rope_freqs.weight", 0, 2, ASSAY_GGML_F32, (const float[]){1, 1}, 8);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    assert_null(cJSON_GetObjectItem(assay_checkpoint_config(checkpoint), "rope_scaling"));
    assay_checkpoint_close(checkpoint);
    /* Others stay as they are, for sequences of every length. */
    gguf_put_llama(&writer);
    gguf_put_tensor(&writer, "rope_freqs.weight", 0, 2, ASSAY_GGML_F32, (const float[]){1, 0.5f}, 8);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    rope = cJSON_GetObjectItem(assay_checkpoint_config(checkpoint), "rope_scaling");
    assert_string_equal(cJSON_GetObjectItem(rope, "rope_type")->valuestring, "longrope");
    assert_true(cJSON_GetObjectItem(rope, "attention_factor")->valuedouble == 1);
    assert_true(cJSON_GetArrayItem(cJSON_GetObjectItem(rope, "short_factor"), 1)->valuedouble == 0.5);
    assert_true(cJSON_GetArrayItem(cJSON_GetObjectItem(rope, "long_factor"), 1)->valuedouble == 0.5);
    assay_checkpoint_close(checkpoint);
}

static void a_llama_with_a_window_is_a_mistral(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    struct assay_gguf_summary summary;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_checkpoint *checkpoint = NULL;
    gguf_put_llama(&writer);
    gguf_put_int(&writer, "llama.attention.sliding_window", 16);
    if (import(&writer, NULL, &summary, &err) != ASSAY_OK || assay_checkpoint_open(scratch, &checkpoint, &err))
        fail_msg("%s", err.text);
    const cJSON *config = assay_checkpoint_config(checkpoint);
    assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(config, "architectures"), 0)->valuestring,
                        "MistralForCausalLM");
    assert_int_equal(cJSON_GetObjectItem(config, "sliding_window")->valueint, 16);
    assay_checkpoint_close(checkpoint);
}

/* What the writer holds, with these tokens and one merge. */
static struct assay_gguf *vocabulary(struct gguf_writer *writer, const char *const *tokens, size_t count,
                                     const char *merge, unsigned char **bytes)
{
    size_t len;
    struct assay_gguf *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    gguf_put_text(writer, "tokenizer.ggml.model", "gpt2");
    gguf_put_texts(writer, "tokenizer.ggml.tokens", tokens, count);
    gguf_put_texts(writer, "tokenizer.ggml.merges", &merge, 1);
    *bytes = gguf_image(writer, &len);
    if (assay_gguf_parse(*bytes, len, "file", &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    gguf_writer_release(writer);
    *writer = (struct gguf_writer){0};
    return file;
}

static void refused_vocabulary(struct gguf_writer *writer, const char *const *tokens, size_t count, const char *merge,
                               const char *words)
{
    unsigned char *bytes;
    struct assay_gguf *file = vocabulary(writer, tokens, count, merge, &bytes);
    assay_auto(assay_buf_release) struct assay_buf json = ASSAY_BUF_INIT, config = ASSAY_BUF_INIT;
    struct assay_err err = ASSAY_ERR_INIT;
    const char *name = NULL;
    enum assay_status status = assay_gguf_tokenizer(file, 4, &name, &json, &config, &err);
    if (status == ASSAY_OK || !strstr(err.text, words))
        fail_msg("%s, '%s'; wanted '%s'", assay_status_name(status), err.text, words);
    assay_gguf_close(file);
    free(bytes);
}

static void broken_vocabularies_are_refused(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "b", "ab", "<s>", "more"}, *const twice[] = {"a", "b", "a"};
    struct gguf_writer w = {0};
    refused_vocabulary(&w, good, 5, "a b", "5 tokens for 4 rows");
    refused_vocabulary(&w, good, 0, "a b", "0 tokens");
    refused_vocabulary(&w, twice, 3, "a b", "'a' stands twice");
    refused_vocabulary(&w, good, 4, "ab", "merge 0");
    refused_vocabulary(&w, good, 4, " b", "merge 0");
    refused_vocabulary(&w, good, 4, "a ", "merge 0");
    refused_vocabulary(&w, good, 4, "a b c", "merge 0");
    gguf_put_text(&w, "tokenizer.ggml.pre", "viking");
    refused_vocabulary(&w, good, 4, "a b", "'viking'");
    gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", true);
    refused_vocabulary(&w, good, 4, "a b", "does not say which");
    gguf_put_int(&w, "tokenizer.ggml.bos_token_id", 4);
    refused_vocabulary(&w, good, 4, "a b", "bos_token_id");
    gguf_put_ints(&w, "tokenizer.ggml.token_type", (const int32_t[]){1}, 1);
    refused_vocabulary(&w, good, 4, "a b", "1 token types");
    gguf_put_ints(&w, "tokenizer.ggml.token_type", (const int32_t[]){1, 1, 7, 1}, 4);
    refused_vocabulary(&w, good, 4, "a b", "type of token 2 is 7");
}

/* A sentencepiece vocabulary with three scores. */
static void put_pieces(struct gguf_writer *writer, const float scores[3])
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>"};
    static const int32_t types[] = {2, 3, 3};
    gguf_put_text(writer, "tokenizer.ggml.model", "llama");
    gguf_put_texts(writer, "tokenizer.ggml.tokens", tokens, 3);
    gguf_put_ints(writer, "tokenizer.ggml.token_type", types, 3);
    gguf_put_floats(writer, "tokenizer.ggml.scores", scores, 3);
}

static void refused_pieces(struct gguf_writer *writer, enum assay_status wanted, const char *words)
{
    size_t len;
    unsigned char *bytes = gguf_image(writer, &len);
    struct assay_gguf *file = NULL;
    const char *name = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT, config = ASSAY_BUF_INIT;
    assert_int_equal(assay_gguf_parse(bytes, len, "file", &file, &err), ASSAY_OK);
    enum assay_status status = assay_gguf_tokenizer(file, 3, &name, &text, &config, &err);
    if (status != wanted || (words && !strstr(err.text, words)))
        fail_msg("%s, '%s'; wanted '%s'", assay_status_name(status), err.text, words);
    if (status == ASSAY_OK)
        assert_string_equal(name, "tokenizer.model");
    else
        assert_null(name);
    assay_gguf_close(file);
    free(bytes);
    gguf_writer_release(writer);
    *writer = (struct gguf_writer){0};
}

static void broken_pieces_are_refused(void **state)
{
    (void)state;
    const float scores[3] = {0, -1, -2}, wrong[3] = {0, NAN, 0};
    struct gguf_writer w = {0};
    put_pieces(&w, scores);
    refused_pieces(&w, ASSAY_OK, NULL);
    put_pieces(&w, wrong);
    refused_pieces(&w, ASSAY_INVALID_ARGUMENT, "score of token 1 is nan");
    put_pieces(&w, scores);
    gguf_put_bool(&w, "tokenizer.ggml.remove_extra_whitespaces", true);
    refused_pieces(&w, ASSAY_UNIMPLEMENTED, "remove_extra_whitespaces");
    put_pieces(&w, scores);
    gguf_put_text(&w, "tokenizer.ggml.precompiled_charsmap", "map");
    refused_pieces(&w, ASSAY_UNIMPLEMENTED, "precompiled_charsmap");
    gguf_put_text(&w, "tokenizer.ggml.model", "llama");
    gguf_put_texts(&w, "tokenizer.ggml.tokens", (const char *const[]){"a"}, 1);
    refused_pieces(&w, ASSAY_INVALID_ARGUMENT, "'tokenizer.ggml.scores' is missing");
    gguf_put_text(&w, "tokenizer.ggml.model", "t5");
    refused_pieces(&w, ASSAY_UNIMPLEMENTED, "'t5'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_llama_becomes_its_checkpoint),
        cmocka_unit_test(a_tensor_is_narrowed_only_where_that_is_exact),
        cmocka_unit_test(a_stopped_import_says_so),
        cmocka_unit_test(what_would_change_the_result_is_refused),
        cmocka_unit_test(ropes_that_cannot_be_told_are_refused),
        cmocka_unit_test(rope_scalings_reach_the_config),
        cmocka_unit_test(a_llama_with_a_window_is_a_mistral),
        cmocka_unit_test(broken_vocabularies_are_refused),
        cmocka_unit_test(broken_pieces_are_refused),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
