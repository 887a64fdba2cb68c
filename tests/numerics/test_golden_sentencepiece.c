/* A directory with tokenizer.model alone gives the ids that its tokenizer.json gives, on the public vectors' texts and
 * on the bundled corpus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/fs.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define CORPUS_BYTES 200000

/* Directories under ../shared whose configuration says whether BOS is put, or leaves it to the default. */
static const char *const directories[] = {
    "golden/tokenizers/tok_llama2",
    "models/stories260K",
    "tokenizers/mistral-v0.1",
    "tokenizers/phi-3-mini",
};

static const char *const texts[] = {
    "",
    " ",
    "  lead and trail  ",
    "a <s> b</s><unk>",
    "\xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82 \xff\n\t12345  \xc3\xa9",
};

static void link_file(const char *dir, const char *from_dir, const char *name)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    snprintf(from, sizeof from, ASSAY_SHARED_DIR "/%s/%s", from_dir, name);
    snprintf(to, sizeof to, "%s/%s", dir, name);
    assert_int_equal(symlink(from, to), 0);
}

static void check_text(const struct assay_tokenizer *wanted, const struct assay_tokenizer *found, const char *text,
                       size_t len, bool special)
{
    int32_t *wanted_ids = NULL, *ids = NULL;
    size_t wanted_count = 0, count = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_tokenizer_encode(wanted, text, len, special, &wanted_ids, &wanted_count, &err), ASSAY_OK);
    assert_int_equal(assay_tokenizer_encode(found, text, len, special, &ids, &count, &err), ASSAY_OK);
    assert_int_equal(count, wanted_count);
    assert_memory_equal(ids, wanted_ids, count * sizeof *ids);
    free(wanted_ids);
    free(ids);
}

static void tokenizer_model_gives_the_ids_of_tokenizer_json(void **state)
{
    (void)state;
    need_shared();
    char *corpus = NULL;
    size_t len = 0;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_file_read(ASSAY_SHARED_DIR "/data/wikitext-2/wiki.test.raw", 1u << 24, &corpus, &len, &err),
                     ASSAY_OK);
    assert_true(len > CORPUS_BYTES);
    for (size_t i = 0; i < ASSAY_COUNT(directories); i++) {
        char dir[] = "/tmp/assay-spm-XXXXXX", whole[ASSAY_PATH_MAX];
        assert_non_null(mkdtemp(dir));
        link_file(dir, directories[i], "tokenizer.model");
        link_file(dir, directories[i], "tokenizer_config.json");
        snprintf(whole, sizeof whole, ASSAY_SHARED_DIR "/%s", directories[i]);
        struct assay_tokenizer *wanted = NULL, *found = NULL;
        if (assay_tokenizer_open(whole, &wanted, &err) != ASSAY_OK ||
            assay_tokenizer_open(dir, &found, &err) != ASSAY_OK)
            fail_msg("%s", err.text);
        assert_int_equal(assay_tokenizer_vocab(found), assay_tokenizer_vocab(wanted));
        check_text(wanted, found, corpus, CORPUS_BYTES, true);
        for (size_t t = 0; t < ASSAY_COUNT(texts); t++)
            check_text(wanted, found, texts[t], strlen(texts[t]), t % 2);
        assay_tokenizer_close(wanted);
        assay_tokenizer_close(found);
        assert_int_equal(assay_remove_tree(dir, &err), ASSAY_OK);
    }
    free(corpus);
}

static void refuses(const void *bytes, size_t len, const char *words)
{
    char dir[] = "/tmp/assay-spm-XXXXXX", path[ASSAY_PATH_MAX];
    assert_non_null(mkdtemp(dir));
    struct assay_err err = ASSAY_ERR_INIT, unused = ASSAY_ERR_INIT;
    struct assay_tokenizer *tokenizer = NULL;
    assert_int_equal(assay_path_join(path, dir, "tokenizer.model", &err), ASSAY_OK);
    assert_int_equal(assay_file_write(path, bytes, len, &err), ASSAY_OK);
    assert_int_equal(assay_tokenizer_open(dir, &tokenizer, &err), ASSAY_INVALID_ARGUMENT);
    assert_null(tokenizer);
    if (!strstr(err.text, words) || !strstr(err.text, "tokenizer.model"))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
    assert_int_equal(assay_remove_tree(dir, &unused), ASSAY_OK);
}

static void what_cannot_be_converted_is_refused_by_name(void **state)
{
    (void)state;
    static const uint8_t unigram[] = {0x0a, 3, 0x0a, 1, 'a', 0x12, 2, 0x18, 1};
    static const uint8_t fewer_spaces[] = {0x0a, 3, 0x0a, 1, 'a', 0x12, 2, 0x18, 2, 0x1a, 2, 0x20, 1};
    static const uint8_t twice[] = {0x0a, 3, 0x0a, 1, 'a', 0x0a, 3, 0x0a, 1, 'a', 0x12, 2, 0x18, 2, 0x1a, 2, 0x20, 0};
    static const uint8_t no_bos[] = {0x0a, 3, 0x0a, 1, 'a', 0x12, 2, 0x18, 2, 0x1a, 2, 0x20, 0};
    static const uint8_t long_field[] = {0x0a, 0xff, 0xff, 0x03, 'a'};
    refuses("", 0, "no pieces");
    refuses(unigram, sizeof unigram, "model type is 1");
    refuses(fewer_spaces, sizeof fewer_spaces, "remove_extra_whitespaces");
    refuses(twice, sizeof twice, "stands twice");
    refuses(no_bos, sizeof no_bos, "\"<s>\" is no piece");
    refuses(long_field, sizeof long_field, "65535 bytes has 1 left");
    refuses("\x0f", 1, "wire type 7");
    refuses("\x08\x80", 2, "inside a number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_model_gives_the_ids_of_tokenizer_json),
        cmocka_unit_test(what_cannot_be_converted_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
