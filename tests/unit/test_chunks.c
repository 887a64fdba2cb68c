#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/corpus/chunks.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define WINDOW 512

/* Words with the special tokens that `single` puts around a text; BOS 1, EOS 2. */
static struct assay_tokenizer *tokenizer_with(const char *single)
{
    char json[2048];
    snprintf(json, sizeof json,
             "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,"
             "\"pre_tokenizer\":{\"type\":\"Whitespace\"},"
             "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[%s],\"pair\":[],"
             "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]},"
             "\"</s>\":{\"id\":\"</s>\",\"ids\":[2],\"tokens\":[\"</s>\"]}}},\"decoder\":null,"
             "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"a\":3,\"b\":4,\"c\":5},"
             "\"unk_token\":\"<unk>\"}}",
             single);
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_parse(json, strlen(json), "words", &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

#define BOS "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}}"
#define EOS "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}"
#define TEXT "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}"

/* Word i is a, b or c: ids 3, 4, 5, 3, ... */
static int32_t word_id(size_t i)
{
    return 3 + (int32_t)(i % 3);
}

static enum assay_status cut_by(const char *protocol, const char *single, size_t words, size_t chunks_max,
                                struct assay_chunks *ret, struct assay_err *err)
{
    struct assay_tokenizer *tokenizer = tokenizer_with(single);
    struct assay_buf text = ASSAY_BUF_INIT;
    for (size_t i = 0; i < words; i++)
        assay_buf_printf(&text, "%c ", 'a' + (int)(i % 3));
    enum assay_status status = assay_chunks_cut(assay_protocol_find(protocol), tokenizer, assay_buf_cstr(&text),
                                                text.len, chunks_max, ret, err);
    assay_buf_release(&text);
    assay_tokenizer_close(tokenizer);
    return status;
}

static enum assay_status cut(const char *single, size_t words, size_t chunks_max, struct assay_chunks *ret,
                             struct assay_err *err)
{
    return cut_by("llamacpp-512", single, words, chunks_max, ret, err);
}

static void chunks_lie_end_to_end_and_a_rest_is_left_out(void **state)
{
    (void)state;
    struct assay_chunks chunks = {0};
    assert_int_equal(cut(TEXT, 3 * WINDOW + WINDOW - 1, 0, &chunks, NULL), ASSAY_OK);
    assert_int_equal(chunks.count, 3);
    assert_int_equal(chunks.corpus_tokens, 4 * WINDOW - 1);
    assert_false(chunks.adds_bos);
    for (size_t i = 0; i < chunks.count; i++) {
        const struct assay_chunk *chunk = &chunks.at[i];
        assert_ptr_equal(chunk->ids, chunks.ids + i * WINDOW);
        assert_int_equal(chunk->tokens, WINDOW);
        assert_int_equal(chunk->score_begin, 256);
        assert_int_equal(chunk->score_end, 511);
        for (size_t j = 0; j < WINDOW; j++)
            assert_int_equal(chunk->ids[j], word_id(i * WINDOW + j));
    }
    assay_chunks_release(&chunks);
    assay_chunks_release(&chunks);
}

static void bos_stands_first_in_the_text_and_replaces_the_first_token_of_each_chunk(void **state)
{
    (void)state;
    struct assay_chunks chunks = {0};
    assert_int_equal(cut(BOS "," TEXT "," EOS, 2 * WINDOW - 1, 0, &chunks, NULL), ASSAY_OK);
    assert_true(chunks.adds_bos);
    assert_int_equal(chunks.count, 2);
    assert_int_equal(chunks.corpus_tokens, 2 * WINDOW);
    for (size_t i = 0; i < chunks.count; i++) {
        assert_int_equal(chunks.at[i].ids[0], 1);
        for (size_t j = 1; j < WINDOW; j++)
            assert_int_equal(chunks.at[i].ids[j], word_id(i * WINDOW + j - 1));
    }
    assay_chunks_release(&chunks);
}

static void an_eos_that_is_added_alone_is_not_counted(void **state)
{
    (void)state;
    struct assay_chunks chunks = {0};
    assert_int_equal(cut(TEXT "," EOS, 2 * WINDOW, 0, &chunks, NULL), ASSAY_OK);
    assert_false(chunks.adds_bos);
    assert_int_equal(chunks.corpus_tokens, 2 * WINDOW);
    assert_int_equal(chunks.at[0].ids[0], 3);
    assay_chunks_release(&chunks);
}

static void gptq_has_bos_before_the_first_chunk_alone_and_scores_all_but_one_position(void **state)
{
    (void)state;
    enum { LONG = 2048 };
    struct assay_chunks chunks = {0};
    assert_int_equal(cut_by("gptq-2048", BOS "," TEXT, 2 * LONG + 5, 0, &chunks, NULL), ASSAY_OK);
    assert_int_equal(chunks.count, 2);
    assert_int_equal(chunks.at[0].ids[0], 1);
    assert_int_equal(chunks.at[0].ids[1], word_id(0));
    assert_int_equal(chunks.at[1].ids[0], word_id(LONG - 1));
    for (size_t i = 0; i < chunks.count; i++) {
        assert_int_equal(chunks.at[i].tokens, LONG);
        assert_int_equal(chunks.at[i].score_begin, 0);
        assert_int_equal(chunks.at[i].score_end, LONG - 1);
    }
    assay_chunks_release(&chunks);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(cut_by("gptq-2048", TEXT, LONG - 1, 0, &chunks, &err), ASSAY_OUT_OF_RANGE);
    assert_non_null(strstr(err.text, "2048"));
}

static void a_text_below_the_protocols_least_is_out_of_range(void **state)
{
    (void)state;
    struct assay_chunks chunks = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(cut(TEXT, 2 * WINDOW - 1, 0, &chunks, &err), ASSAY_OUT_OF_RANGE);
    assert_string_equal(err.text, "the text has 1023 tokens; llamacpp-512 needs at least 1024");
    assert_int_equal(cut(TEXT, 0, 0, &chunks, &err), ASSAY_OUT_OF_RANGE);
    assert_null(chunks.at);
    assert_int_equal(cut(TEXT, 2 * WINDOW, 0, &chunks, &err), ASSAY_OK);
    assay_chunks_release(&chunks);
}

static void chunks_max_keeps_the_first_ones(void **state)
{
    (void)state;
    struct assay_chunks some = {0}, all = {0};
    assert_int_equal(cut(TEXT, 5 * WINDOW, 2, &some, NULL), ASSAY_OK);
    assert_int_equal(cut(TEXT, 5 * WINDOW, 99, &all, NULL), ASSAY_OK);
    assert_int_equal(some.count, 2);
    assert_int_equal(all.count, 5);
    for (size_t i = 0; i < some.count; i++)
        assert_true(assay_digest_equal(&some.at[i].key.digest, &all.at[i].key.digest));
    assay_chunks_release(&some);
    assay_chunks_release(&all);
}

static void keys_cover_tokenizer_ids_and_scored_range(void **state)
{
    (void)state;
    struct assay_digest tokenizer = {{1}}, other = {{2}};
    const int32_t ids[] = {1, 2, 3, 4}, changed[] = {1, 2, 3, 5};
    struct assay_chunk_key base = assay_chunk_key_of(&tokenizer, ids, 4, 1, 3);
    const struct assay_chunk_key others[] = {
        assay_chunk_key_of(&other, ids, 4, 1, 3),     assay_chunk_key_of(&tokenizer, changed, 4, 1, 3),
        assay_chunk_key_of(&tokenizer, ids, 3, 1, 3), assay_chunk_key_of(&tokenizer, ids, 4, 2, 3),
        assay_chunk_key_of(&tokenizer, ids, 4, 1, 4),
    };
    struct assay_chunk_key again = assay_chunk_key_of(&tokenizer, ids, 4, 1, 3);
    assert_true(assay_digest_equal(&base.digest, &again.digest));
    for (size_t i = 0; i < ASSAY_COUNT(others); i++)
        assert_false(assay_digest_equal(&base.digest, &others[i].digest));
}

static void protocols_are_found_by_name(void **state)
{
    (void)state;
    assert_null(assay_protocol_find("llamacpp-513"));
    static const char *const names[] = {"llamacpp-512", "gptq-2048"};
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        assert_non_null(assay_protocol_find(names[i]));
        assert_non_null(strstr(assay_protocol_names(), names[i]));
    }
}

static void wikitext_has_as_many_tokens_as_the_recorded_evaluation(void **state)
{
    (void)state;
    need_shared();
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    char *text = NULL;
    size_t len = 0;
    if (assay_tokenizer_open(ASSAY_SHARED_DIR "/models/assay-tiny", &tokenizer, &err) != ASSAY_OK ||
        assay_file_read(ASSAY_SHARED_DIR "/data/wikitext-2/wiki.test.raw", ASSAY_CORPUS_BYTES_MAX, &text, &len, &err) !=
            ASSAY_OK)
        fail_msg("%s", err.text);
    struct assay_chunks chunks = {0};
    assert_int_equal(assay_chunks_cut(assay_protocol_find("llamacpp-512"), tokenizer, text, len, 0, &chunks, &err),
                     ASSAY_OK);
    assert_int_equal(chunks.corpus_tokens, 388963);
    assert_int_equal(chunks.count, 388963 / WINDOW);
    assert_false(chunks.adds_bos);
    assay_chunks_release(&chunks);
    free(text);
    assay_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_lie_end_to_end_and_a_rest_is_left_out),
        cmocka_unit_test(bos_stands_first_in_the_text_and_replaces_the_first_token_of_each_chunk),
        cmocka_unit_test(an_eos_that_is_added_alone_is_not_counted),
        cmocka_unit_test(gptq_has_bos_before_the_first_chunk_alone_and_scores_all_but_one_position),
        cmocka_unit_test(a_text_below_the_protocols_least_is_out_of_range),
        cmocka_unit_test(chunks_max_keeps_the_first_ones),
        cmocka_unit_test(keys_cover_tokenizer_ids_and_scored_range),
        cmocka_unit_test(protocols_are_found_by_name),
        cmocka_unit_test(wikitext_has_as_many_tokens_as_the_recorded_evaluation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
