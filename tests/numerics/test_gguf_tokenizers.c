/* Vocabularies of known tokenizers, put into a GGUF file as its converter does, give the tokenizer that they came from:
 * the same ids of every text of the public vectors, and the same text of those ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_tokenizer.h"
#include "common/formats/json.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"
#include "tests/unit/gguf_writer.h"

#define GOLDEN ASSAY_SHARED_DIR "/golden/tokenizers/"
#define REAL ASSAY_SHARED_DIR "/tokenizers/"
#define SEPARATOR "\n__ggml_vocab_test__\n"

struct origin {
    const char *dir, *pre;
    const char *bos;  /* NULL: none is added */
    bool bos_is_said; /* by add_bos_token, not by the pre-tokenizer alone */
};

static char *read_text(const char *path, size_t *ret_len)
{
    char *text = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_file_read(path, ASSAY_TOKENIZER_FILE_BYTES_MAX, &text, ret_len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return text;
}

static cJSON *read_tokenizer(const char *dir)
{
    char path[ASSAY_PATH_MAX];
    size_t len;
    cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    char *text = read_text(path, &len);
    if (assay_json_parse(text, len, path, &json, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    free(text);
    return json;
}

#define MEMBER(object, key) cJSON_GetObjectItemCaseSensitive(object, key)

static void put_tokens(struct gguf_writer *writer, const cJSON *json, const char *bos)
{
    const cJSON *vocab = MEMBER(MEMBER(json, "model"), "vocab"), *added = MEMBER(json, "added_tokens"), *row;
    size_t room = (size_t)cJSON_GetArraySize(vocab) + (size_t)cJSON_GetArraySize(added), count = 0;
    const char **tokens = calloc(room, sizeof *tokens);
    int32_t *types = calloc(room, sizeof *types);
    assert_non_null(tokens);
    assert_non_null(types);
    cJSON_ArrayForEach(row, vocab)
    {
        assert_true(row->valuedouble < (double)room);
        tokens[row->valueint] = row->string;
        types[row->valueint] = 1;
    }
    cJSON_ArrayForEach(row, added)
    {
        int id = MEMBER(row, "id")->valueint;
        assert_true(id >= 0 && (size_t)id < room);
        tokens[id] = MEMBER(row, "content")->valuestring;
        types[id] = cJSON_IsTrue(MEMBER(row, "special")) ? 3 : 4;
        if (bos && strcmp(bos, tokens[id]) == 0)
            gguf_put_int(writer, "tokenizer.ggml.bos_token_id", (uint32_t)id);
    }
    while (count < room && tokens[count])
        count++;
    for (size_t i = count; i < room; i++)
        assert_null(tokens[i]);
    gguf_put_texts(writer, "tokenizer.ggml.tokens", tokens, count);
    gguf_put_ints(writer, "tokenizer.ggml.token_type", types, count);
    free(tokens);
    free(types);
}

static void put_merges(struct gguf_writer *writer, const cJSON *json)
{
    const cJSON *merges = MEMBER(MEMBER(json, "model"), "merges"), *row;
    size_t count = (size_t)cJSON_GetArraySize(merges), i = 0;
    char **texts = calloc(count, sizeof *texts);
    assert_non_null(texts);
    cJSON_ArrayForEach(row, merges)
    {
        const char *first = cJSON_IsArray(row) ? row->child->valuestring : row->valuestring;
        int len = cJSON_IsArray(row) ? asprintf(&texts[i++], "%s %s", first, row->child->next->valuestring)
                                     : asprintf(&texts[i++], "%s", first);
        assert_true(len > 0);
    }
    gguf_put_texts(writer, "tokenizer.ggml.merges", (const char *const *)texts, count);
    while (i > 0)
        free(texts[--i]);
    free(texts);
}

/* The tokenizer of the file that the writer holds; releases the writer. */
static struct assay_tokenizer *read_back(struct gguf_writer *writer, const char *what)
{
    size_t len;
    unsigned char *bytes = gguf_image(writer, &len);
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT, config = ASSAY_BUF_INIT;
    struct assay_gguf *file = NULL;
    struct assay_tokenizer *tokenizer = NULL;
    const char *name = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_gguf_parse(bytes, len, what, &file, &err) != ASSAY_OK ||
        assay_gguf_tokenizer(file, 1u << 20, &name, &text, &config, &err) != ASSAY_OK ||
        assay_tokenizer_parse(text.data, text.len, what, &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assay_gguf_close(file);
    free(bytes);
    gguf_writer_release(writer);
    return tokenizer;
}

static struct assay_tokenizer *through_gguf(const struct origin *origin)
{
    struct gguf_writer writer = {0};
    assay_auto(assay_json_delete) cJSON *json = read_tokenizer(origin->dir);
    gguf_put_text(&writer, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(&writer, "tokenizer.ggml.pre", origin->pre);
    put_tokens(&writer, json, origin->bos);
    put_merges(&writer, json);
    if (origin->bos_is_said)
        gguf_put_bool(&writer, "tokenizer.ggml.add_bos_token", origin->bos != NULL);
    return read_back(&writer, origin->dir);
}

static bool agree(const struct assay_tokenizer *one, const struct assay_tokenizer *two, const char *text, size_t len,
                  bool special)
{
    int32_t *ids[2] = {NULL, NULL};
    char *texts[2] = {NULL, NULL};
    size_t counts[2], lens[2];
    const struct assay_tokenizer *tokenizers[2] = {one, two};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(assay_tokenizer_encode(tokenizers[i], text, len, special, &ids[i], &counts[i], NULL),
                         ASSAY_OK);
        assert_int_equal(assay_tokenizer_decode(tokenizers[i], ids[i], counts[i], true, &texts[i], &lens[i], NULL),
                         ASSAY_OK);
    }
    bool equal = counts[0] == counts[1] && memcmp(ids[0], ids[1], counts[0] * sizeof **ids) == 0 &&
                 lens[0] == lens[1] && memcmp(texts[0], texts[1], lens[0]) == 0;
    for (int i = 0; i < 2; i++) {
        free(ids[i]);
        free(texts[i]);
    }
    return equal;
}

static void a_vocabulary_survives_the_way_through_gguf(void **state)
{
    need_shared();
    const struct origin *origin = *state;
    struct assay_tokenizer *imported = through_gguf(origin), *wanted = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_open(origin->dir, &wanted, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(assay_tokenizer_vocab(imported), assay_tokenizer_vocab(wanted));
    static const char *const files[] = {"gpt-2", "llama-bpe", "qwen2", "phi-3", "bert-bge"};
    size_t checked = 0;
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char path[ASSAY_PATH_MAX];
        size_t len;
        snprintf(path, sizeof path, REAL "vectors/ggml-vocab-%s.gguf.inp", files[i]);
        char *texts = read_text(path, &len), *text = texts;
        assert_true(agree(imported, wanted, texts, len, true));
        for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR), checked++) {
            if (!agree(imported, wanted, text, (size_t)(end - text), false) ||
                !agree(imported, wanted, text, (size_t)(end - text), true))
                fail_msg("%s: text %zu of %s differs", origin->dir, checked, path);
        }
        free(texts);
    }
    assert_true(checked > 100);
    static const char special[] = "<|im_start|>a<|begin_of_text|> b <tool_call>c</think><|endoftext|>d";
    assert_true(agree(imported, wanted, special, strlen(special), true));
    assay_tokenizer_close(imported);
    assay_tokenizer_close(wanted);
}

/* How many tokens a text becomes tells where words end, as all that stands within a word is merged. */
static size_t count_tokens(const char *pre, const char *text)
{
    static const char *const tokens[] = {"1", "2", "3", "4", "a", "B", "!", "12", "123", "1234", "aB", "!a"};
    static const char *const merges[] = {"1 2", "12 3", "123 4", "a B", "! a"};
    struct gguf_writer writer = {0};
    gguf_put_text(&writer, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(&writer, "tokenizer.ggml.pre", pre);
    gguf_put_texts(&writer, "tokenizer.ggml.tokens", tokens, ASSAY_COUNT(tokens));
    gguf_put_texts(&writer, "tokenizer.ggml.merges", merges, ASSAY_COUNT(merges));
    gguf_put_bool(&writer, "tokenizer.ggml.add_bos_token", false);
    struct assay_tokenizer *tokenizer = read_back(&writer, pre);
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(assay_tokenizer_encode(tokenizer, text, strlen(text), false, &ids, &count, NULL), ASSAY_OK);
    free(ids);
    assay_tokenizer_close(tokenizer);
    return count;
}

static void pre_tokenizers_end_words_where_they_should(void **state)
{
    (void)state;
    static const struct {
        const char *pre;
        size_t numbers, cases, marks; /* tokens of "1234", "aB", "!a" */
    } rows[] = {{"gpt-2", 1, 1, 2},
                {"phi-2", 1, 1, 2},
                {"olmo", 1, 1, 2},
                {"mpt", 1, 1, 2},
                {"smollm", 4, 1, 2},
                {"starcoder", 4, 1, 2},
                {"refact", 4, 1, 2},
                {"llama-bpe", 2, 1, 1},
                {"llama3", 2, 1, 1},
                {"dbrx", 2, 1, 1},
                {"smaug-bpe", 2, 1, 1},
                {"qwen2", 4, 1, 1},
                {"deepseek-r1-qwen", 4, 1, 1},
                {"deepseek-v3", 2, 1, 1},
                {"deepseek-coder", 4, 1, 2},
                {"tekken", 4, 2, 1},
                {"gpt-4o", 2, 2, 1},
                {"default", 2, 1, 2}};
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        size_t numbers = count_tokens(rows[i].pre, "1234"), cases = count_tokens(rows[i].pre, "aB");
        size_t marks = count_tokens(rows[i].pre, "!a");
        if (numbers != rows[i].numbers || cases != rows[i].cases || marks != rows[i].marks)
            fail_msg("%s: %zu, %zu, %zu tokens; wanted %zu, %zu, %zu", rows[i].pre, numbers, cases, marks,
                     rows[i].numbers, rows[i].cases, rows[i].marks);
    }
}

static struct origin origins[] = {
    {GOLDEN "tok_gpt2", "gpt-2", NULL, true},
    {GOLDEN "tok_smollm", "smollm", NULL, true},
    {GOLDEN "tok_gptneox", "olmo", NULL, true},
    {GOLDEN "tok_llama3", "llama-bpe", "<|begin_of_text|>", false},
    {GOLDEN "tok_qwen2", "qwen2", NULL, false},
    {GOLDEN "tok_r1qwen", "deepseek-r1-qwen",
     "<\xef\xbd\x9c"
     "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     true},
    {REAL "gpt2", "gpt-2", NULL, false},
    {REAL "llama-3.1", "llama-bpe", "<|begin_of_text|>", true},
    {REAL "qwen2.5", "qwen2", NULL, true},
};

int main(void)
{
    struct CMUnitTest tests[ASSAY_COUNT(origins) + 1] = {cmocka_unit_test(pre_tokenizers_end_words_where_they_should)};
    char names[ASSAY_COUNT(origins)][96];
    for (size_t i = 0; i < ASSAY_COUNT(origins); i++) {
        snprintf(names[i], sizeof names[i], "a_vocabulary_survives_the_way_through_gguf: %s",
                 strrchr(origins[i].dir, '/') + 1);
        tests[i + 1] = (struct CMUnitTest){
            .name = names[i], .test_func = a_vocabulary_survives_the_way_through_gguf, .initial_state = &origins[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
