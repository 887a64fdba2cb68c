#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"

#define BUNDLED ASSAY_SOURCE_DIR "/models/assay-tiny"

/* Words, a template with BOS and EOS, and truncation and padding that must not act. */
static const char words[] =
    "{\"version\":\"1.0\","
    "\"truncation\":{\"direction\":\"Right\",\"max_length\":3,\"strategy\":\"LongestFirst\",\"stride\":0},"
    "\"padding\":{\"strategy\":{\"Fixed\":8},\"direction\":\"Right\",\"pad_to_multiple_of\":null,\"pad_id\":0,"
    "\"pad_type_id\":0,\"pad_token\":\"<unk>\"},"
    "\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Whitespace\"},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
    "{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}],"
    "\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]},"
    "\"</s>\":{\"id\":\"</s>\",\"ids\":[2],\"tokens\":[\"</s>\"]}}},"
    "\"decoder\":null,"
    "\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</"
    "s>\":2,\"a\":3,\"b\":4},\"unk_token\":\"<unk>\"}}";

static struct assay_tokenizer *words_tokenizer(void)
{
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_parse(words, sizeof words - 1, "words", &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

static struct assay_tokenizer *bundled_tokenizer(void)
{
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_open(BUNDLED, &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

static void expect_ids(const struct assay_tokenizer *tokenizer, const char *text, bool special, const int32_t *wanted,
                       size_t count)
{
    int32_t *ids = NULL;
    size_t found = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_encode(tokenizer, text, strlen(text), special, &ids, &found, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(found, count);
    if (count)
        assert_memory_equal(ids, wanted, count * sizeof *ids);
    free(ids);
}

static void special_tokens_come_only_when_asked_and_nothing_is_cut_or_padded(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = words_tokenizer();
    expect_ids(tokenizer, "a b c a b", false, (int32_t[]){3, 4, 0, 3, 4}, 5);
    expect_ids(tokenizer, "a b c a b", true, (int32_t[]){1, 3, 4, 0, 3, 4, 2}, 7);
    expect_ids(tokenizer, "", false, NULL, 0);
    expect_ids(tokenizer, "", true, (int32_t[]){1, 2}, 2);
    assay_tokenizer_close(tokenizer);
}

static void tokens_are_found_by_text(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = words_tokenizer();
    int32_t id = -1;
    assert_true(assay_tokenizer_id(tokenizer, "</s>", &id));
    assert_int_equal(id, 2);
    assert_false(assay_tokenizer_id(tokenizer, "nothing", &id));
    assert_false(assay_tokenizer_id(tokenizer, "\xff", &id));
    assert_int_equal(id, 2);
    assert_int_equal(assay_tokenizer_vocab(tokenizer), 5);
    assay_tokenizer_close(tokenizer);
}

static void the_digest_is_that_of_the_file(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = bundled_tokenizer();
    struct assay_digest wanted, found = assay_tokenizer_digest(tokenizer);
    assert_int_equal(assay_digest_file(BUNDLED "/tokenizer.json", &wanted, NULL), ASSAY_OK);
    assert_true(assay_digest_equal(&wanted, &found));
    assay_tokenizer_close(tokenizer);
}

static void invalid_bytes_become_replacement_characters_as_in_python(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = bundled_tokenizer();
    static const struct {
        const char *bytes, *replaced;
    } cases[] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xe2\x82", "\xef\xbf\xbd"},
        {"\xe2\x82x", "\xef\xbf\xbdx"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        assert_int_equal(
            assay_tokenizer_encode(tokenizer, cases[i].replaced, strlen(cases[i].replaced), false, &ids, &count, NULL),
            ASSAY_OK);
        expect_ids(tokenizer, cases[i].bytes, false, ids, count);
        free(ids);
    }
    assay_tokenizer_close(tokenizer);
}

static void decoding_gives_the_text_back_bytes_of_zero_included(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = bundled_tokenizer();
    static const char text[] = "One \xc3\xa9\xf0\x9f\x98\x80 two\0three\n";
    int32_t *ids = NULL;
    char *back = NULL;
    size_t count = 0, len = 0;
    assert_int_equal(assay_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count, NULL), ASSAY_OK);
    assert_int_equal(assay_tokenizer_decode(tokenizer, ids, count, false, &back, &len, NULL), ASSAY_OK);
    assert_int_equal(len, sizeof text - 1);
    assert_memory_equal(back, text, sizeof text);
    free(ids);
    free(back);
    assert_int_equal(assay_tokenizer_decode(tokenizer, NULL, 0, false, &back, &len, NULL), ASSAY_OK);
    assert_string_equal(back, "");
    free(back);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_tokenizer_decode(tokenizer, (int32_t[]){-1}, 1, false, &back, &len, &err),
                     ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "-1 is negative"));
    assay_tokenizer_close(tokenizer);
}

static void what_is_no_tokenizer_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "{", "[]", "{}", "{\"model\":{\"type\":\"BPE\"}}", "\xff\xfe"};
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++) {
        struct assay_tokenizer *tokenizer = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_tokenizer_parse(texts[i], strlen(texts[i]), "some file", &tokenizer, &err),
                         ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "some file is not a tokenizer: "));
        assert_null(tokenizer);
    }
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_tokenizer_open("/nonexistent", &tokenizer, &err), ASSAY_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
    assay_tokenizer_close(NULL);
}

struct reader {
    const struct assay_tokenizer *tokenizer;
    int32_t ids[64];
    size_t count;
};

static void *read_along(void *arg)
{
    struct reader *reader = arg;
    for (int i = 0; i < 50; i++) {
        int32_t *ids = NULL;
        size_t count = 0;
        static const char text[] = "Threads share one tokenizer, and none waits for another.";
        if (assay_tokenizer_encode(reader->tokenizer, text, sizeof text - 1, true, &ids, &count, NULL) != ASSAY_OK)
            return NULL;
        reader->count = ASSAY_MIN(count, ASSAY_COUNT(reader->ids));
        memcpy(reader->ids, ids, reader->count * sizeof *ids);
        free(ids);
    }
    return NULL;
}

static void threads_may_share_one_tokenizer(void **state)
{
    (void)state;
    struct assay_tokenizer *tokenizer = bundled_tokenizer();
    struct reader readers[4] = {0};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        readers[i].tokenizer = tokenizer;
        assert_int_equal(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 4; i++) {
        assert_true(readers[i].count > 0);
        assert_int_equal(readers[i].count, readers[0].count);
        assert_memory_equal(readers[i].ids, readers[0].ids, sizeof readers[0].ids);
    }
    assay_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_come_only_when_asked_and_nothing_is_cut_or_padded),
        cmocka_unit_test(tokens_are_found_by_text),
        cmocka_unit_test(the_digest_is_that_of_the_file),
        cmocka_unit_test(invalid_bytes_become_replacement_characters_as_in_python),
        cmocka_unit_test(decoding_gives_the_text_back_bytes_of_zero_included),
        cmocka_unit_test(what_is_no_tokenizer_is_refused_by_name),
        cmocka_unit_test(threads_may_share_one_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
