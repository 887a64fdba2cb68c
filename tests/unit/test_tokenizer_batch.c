/* Many texts on all threads: the ids of one after the other, and the first failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/tokenizer/batch.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"
#define CLASSIFIER ASSAY_SOURCE_DIR "/tests/vectors/bert_classifier"

enum { TEXTS = 700 };

/* Texts of many lengths, the empty one and one that is no UTF-8 among them. */
static void make_texts(struct assay_text *texts, char *bytes, size_t room)
{
    static const char *const words[] = {"the",     " king", " of", " caf\xc3\xa9", "\n", " 1066", " \xf0\x9f\x90\xa6",
                                        "\xff\xfe"};
    size_t used = 0;
    for (size_t i = 0; i < TEXTS; i++) {
        size_t begin = used;
        for (size_t k = 0; k < i % 37; k++) {
            const char *word = words[(i * 7 + k * k) % ASSAY_COUNT(words)];
            size_t len = strlen(word);
            assert_true(used + len <= room);
            memcpy(bytes + used, word, len);
            used += len;
        }
        texts[i] = (struct assay_text){bytes + begin, used - begin};
    }
}

static void ids_are_those_of_one_after_the_other(void **state)
{
    static struct assay_text texts[TEXTS];
    static struct assay_encoded encoded[TEXTS];
    static char bytes[TEXTS * 37 * 8];
    static const char *const dirs[] = {MODEL, CLASSIFIER};
    (void)state;
    make_texts(texts, bytes, sizeof bytes);
    for (size_t d = 0; d < ASSAY_COUNT(dirs); d++) {
        struct assay_tokenizer *tokenizer;
        assert_int_equal(assay_tokenizer_open(dirs[d], &tokenizer, NULL), ASSAY_OK);
        for (size_t threads = 1; threads <= 5; threads += 2) {
            struct assay_pool *pool;
            size_t tokens = 0;
            assert_int_equal(assay_pool_new(threads, NULL, &pool, NULL), ASSAY_OK);
            assert_int_equal(assay_tokenizer_encode_all(tokenizer, texts, NULL, TEXTS, SIZE_MAX, pool, encoded, NULL),
                             ASSAY_OK);
            for (size_t i = 0; i < TEXTS; i++) {
                int32_t *ids;
                size_t count;
                assert_int_equal(
                    assay_tokenizer_encode(tokenizer, texts[i].text, texts[i].len, true, &ids, &count, NULL), ASSAY_OK);
                assert_int_equal(encoded[i].tokens, count);
                if (count > 0)
                    assert_memory_equal(encoded[i].ids, ids, count * sizeof *ids);
                tokens += count;
                free(ids);
            }
            assert_true(tokens > TEXTS);
            assay_encoded_release(encoded, TEXTS);
            assert_null(encoded[1].ids);
            assay_pool_free(pool);
        }
        assay_tokenizer_close(tokenizer);
    }
}

/* Unknown characters have no id here, so two texts fail. */
static void the_first_failure_is_told(void **state)
{
    static const char json[] = "{\"version\": \"1.0\", \"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0}, "
                               "\"unk_token\": \"[UNK]\"}}";
    struct assay_text texts[64];
    struct assay_encoded encoded[64];
    struct assay_tokenizer *tokenizer;
    struct assay_pool *pool;
    (void)state;
    assert_int_equal(assay_tokenizer_parse(json, sizeof json - 1, "test", &tokenizer, NULL), ASSAY_OK);
    assert_int_equal(assay_pool_new(4, NULL, &pool, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(texts); i++)
        texts[i] = (struct assay_text){i == 17 || i == 50 ? "b" : "a", 1};
    for (int round = 0; round < 50; round++) {
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_tokenizer_encode_all(tokenizer, texts, NULL, ASSAY_COUNT(texts), 8, pool, encoded, &err),
                         ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "text 17: "));
        for (size_t i = 0; i < ASSAY_COUNT(texts); i++)
            assert_null(encoded[i].ids);
    }
    assay_pool_free(pool);
    assay_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_one_after_the_other),
        cmocka_unit_test(the_first_failure_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
