/* Texts of responses: what streams is the text of all ids, stop strings end it, and a small trained model tells the
 * story that its provenance promises. */
#include <stdio.h>

#include "common/base/fs.h"
#include "common/formats/json.h"
#include "common/nn/responder.h"
#include "common/tokenizer/text_stream.h"
#include "tests/numerics/golden_engine.h"
#include "tests/shared.h"

#define STORY ASSAY_SHARED_DIR "/models/stories260K"
#define TEXT_BYTES 8192

static const char *const models[] = {
    "llama2_mha",    "llama31_gqa_sharded", "llama31_rope_strong", "smollm_tied",
    "mistral_swa16", "qwen2_tied_bias",     "r1_distill_qwen",     "phi3_fused_swa",
    "phi3_longrope", "gptneox_parallel",    "gpt2_small",
};

/* Streams ids and joins the pieces. */
static void stream(const struct assay_tokenizer *tokenizer, const int32_t *ids, size_t count, const char *const *stops,
                   size_t stops_count, char *text, bool *stopped)
{
    struct assay_text_stream *s;
    const char *piece;
    size_t len, whole;
    want_ok(assay_text_stream_new(tokenizer, stops, stops_count, &s, &golden_err));
    text[0] = '\0';
    *stopped = false;
    for (size_t i = 0; i < count && !*stopped; i++) {
        want_ok(assay_text_stream_push(s, ids[i], &piece, &len, stopped, &golden_err));
        strncat(text, piece, len);
    }
    want_ok(assay_text_stream_finish(s, &piece, &len, &golden_err));
    strncat(text, piece, len);
    assert_string_equal(text, assay_text_stream_text(s, &whole));
    assert_int_equal(strlen(text), whole);
    assay_text_stream_free(s);
}

static void streamed_texts_equal_those_of_transformers(void **state)
{
    (void)state;
    need_shared();
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        char dir[ASSAY_PATH_MAX], path[ASSAY_PATH_MAX], text[TEXT_BYTES];
        struct assay_tokenizer *tokenizer;
        cJSON *golden;
        snprintf(dir, sizeof dir, ASSAY_SHARED_DIR "/golden/models/%s", models[i]);
        want_ok(assay_path_join(path, dir, "golden.json", &golden_err));
        want_ok(assay_json_load(path, &golden, &golden_err));
        want_ok(assay_tokenizer_open(dir, &tokenizer, &golden_err));
        const cJSON *row, *id;
        cJSON_ArrayForEach(row, cJSON_GetObjectItemCaseSensitive(golden, "greedy"))
        {
            int32_t ids[128];
            size_t count = 0;
            bool stopped;
            cJSON_ArrayForEach(id, cJSON_GetObjectItemCaseSensitive(row, "new_ids")) ids[count++] = id->valueint;
            stream(tokenizer, ids, count, NULL, 0, text, &stopped);
            assert_string_equal(text, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "text")));
        }
        assay_tokenizer_close(tokenizer);
        cJSON_Delete(golden);
    }
}

static void stop_strings_end_the_text_wherever_tokens_part_them(void **state)
{
    (void)state;
    need_shared();
    static const char story[] = "One day, Lily met a dog. The dog said \xe2\x82\xac 5, \xf0\x9f\x90\xb6!";
    static const char *const stops[] = {"dog said", "never there", "\xe2\x82\xac 6"};
    struct assay_tokenizer *tokenizer;
    int32_t *ids;
    size_t count;
    char text[TEXT_BYTES];
    bool stopped;
    want_ok(assay_tokenizer_open(STORY, &tokenizer, &golden_err));
    want_ok(assay_tokenizer_encode(tokenizer, story, strlen(story), false, &ids, &count, &golden_err));
    stream(tokenizer, ids, count, stops + 1, 2, text, &stopped);
    assert_false(stopped);
    assert_string_equal(text, story);
    stream(tokenizer, ids, count, stops, 3, text, &stopped);
    assert_true(stopped);
    assert_string_equal(text, "One day, Lily met a dog. The ");
    struct assay_text_stream *s = NULL;
    assert_int_equal(assay_text_stream_new(tokenizer, (const char *const[]){""}, 1, &s, &golden_err),
                     ASSAY_INVALID_ARGUMENT);
    assert_null(s);
    free(ids);
    assay_tokenizer_close(tokenizer);
}

struct told {
    char text[TEXT_BYTES];
    size_t tokens;
    enum assay_finish finish;
};

static void keep_story(void *arg, const struct assay_response *response)
{
    struct told *told = arg;
    assert_null(response->err);
    snprintf(told->text, sizeof told->text, "%.*s", (int)response->text_len, response->text);
    told->tokens = response->tokens;
    told->finish = response->finish;
}

/* PROVENANCE.md: the story stands between the first two fences. */
static void read_story(char *story)
{
    char *text;
    size_t len;
    want_ok(assay_file_read(STORY "/PROVENANCE.md", 1u << 20, &text, &len, &golden_err));
    const char *begin = strstr(text, "```\n");
    assert_non_null(begin);
    const char *end = strstr(begin + 4, "\n```");
    assert_non_null(end);
    snprintf(story, TEXT_BYTES, "%.*s", (int)(end - begin - 4), begin + 4);
    free(text);
}

static void a_trained_model_tells_its_story(void **state)
{
    (void)state;
    need_shared();
    static const enum assay_dtype kinds[] = {ASSAY_F32, ASSAY_F16};
    char story[TEXT_BYTES];
    read_story(story);
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++) {
        struct assay_pool *pool;
        struct assay_responder *responder;
        struct told told = {{0}, 0, ASSAY_FINISH_FAILED};
        const int32_t bos = 1;
        const struct assay_request request = {
            .prompt = &bos,
            .prompt_tokens = 1,
            .tokens_max = 200,
            .sampling = ASSAY_SAMPLING_GREEDY,
            .on_end = keep_story,
            .arg = &told,
        };
        want_ok(assay_pool_new(1, NULL, &pool, &golden_err));
        want_ok(assay_responder_open(STORY, pool, 1, kinds[i], &responder, &golden_err));
        want_ok(assay_responder_add(responder, &request, &golden_err));
        while (assay_responder_step(responder))
            ;
        assert_int_equal(told.tokens, 200);
        assert_int_equal(told.finish, ASSAY_FINISH_LENGTH);
        assert_string_equal(told.text, story);
        assay_responder_close(responder);
        assay_pool_free(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_texts_equal_those_of_transformers),
        cmocka_unit_test(stop_strings_end_the_text_wherever_tokens_part_them),
        cmocka_unit_test(a_trained_model_tells_its_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
