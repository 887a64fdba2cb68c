/* Ids and texts of the Python package tokenizers, and llama.cpp's public test vectors, over real and made-up
 * tokenizers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/formats/json.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/cmocka_all.h"
#include "tests/shared.h"

#define GOLDEN ASSAY_SHARED_DIR "/golden/tokenizers/"
#define REAL ASSAY_SHARED_DIR "/tokenizers/"

struct kind {
    const char *dir;     /* of tokenizer.json */
    const char *vectors; /* vectors.json, or path of .inp and .out without the suffix */
};

struct tally {
    const char *what;
    size_t checked, wrong;
};

static void close_tokenizer(struct assay_tokenizer **tokenizer)
{
    assay_tokenizer_close(*tokenizer);
}

static void tell(struct tally *tally, bool right, size_t index)
{
    tally->checked++;
    if (right)
        return;
    tally->wrong++;
    print_message("%s: vector %zu differs\n", tally->what, index);
}

static void expect_all_right(const struct tally *tally)
{
    print_message("%s: %zu of %zu agree\n", tally->what, tally->checked - tally->wrong, tally->checked);
    assert_true(tally->checked > 0);
    assert_int_equal(tally->wrong, 0);
}

/* Bytes of hexadecimal text; caller frees. */
static char *bytes_of_hex(const char *hex, size_t *ret_len)
{
    size_t len = strlen(hex) / 2;
    char *bytes = malloc(len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        unsigned value;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
        bytes[i] = (char)value;
    }
    *ret_len = len;
    return bytes;
}

static bool ids_equal(const cJSON *wanted, const int32_t *ids, size_t count)
{
    assert_true(cJSON_IsArray(wanted));
    if ((size_t)cJSON_GetArraySize(wanted) != count)
        return false;
    size_t i = 0;
    for (const cJSON *id = wanted->child; id; id = id->next) {
        if (id->valuedouble != (double)ids[i++])
            return false;
    }
    return true;
}

static bool encodes_to(const struct assay_tokenizer *tokenizer, const char *hex, bool special, const cJSON *wanted)
{
    size_t len, count = 0;
    int32_t *ids = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    char *text = bytes_of_hex(hex, &len);
    if (assay_tokenizer_encode(tokenizer, text, len, special, &ids, &count, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    bool equal = ids_equal(wanted, ids, count);
    free(text);
    free(ids);
    return equal;
}

/* cJSON's strings end at a NUL, so the vectors are parsed with U+E000 in its place; this is the way back. */
static const char nul_in_json[] = "\\u0000", stand_in_json[] = "\\ue000", stand_in_utf8[] = "\xee\x80\x80";

static bool text_equals(const cJSON *wanted, const char *text, size_t len)
{
    assert_true(cJSON_IsString(wanted));
    const char *rest = wanted->valuestring;
    for (size_t i = 0; i < len; i++) {
        if (strncmp(rest, stand_in_utf8, 3) == 0 && text[i] == '\0')
            rest += 3;
        else if (*rest++ != text[i])
            return false;
    }
    return *rest == '\0';
}

static bool decodes_to(const struct assay_tokenizer *tokenizer, const cJSON *wanted_ids, bool skip_special,
                       const cJSON *wanted)
{
    size_t count = (size_t)cJSON_GetArraySize(wanted_ids), i = 0, len = 0;
    int32_t *ids = malloc((count + 1) * sizeof *ids);
    char *text = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_non_null(ids);
    for (const cJSON *id = wanted_ids->child; id; id = id->next)
        ids[i++] = (int32_t)id->valuedouble;
    if (assay_tokenizer_decode(tokenizer, ids, count, skip_special, &text, &len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    bool equal = text_equals(wanted, text, len);
    free(ids);
    free(text);
    return equal;
}

static cJSON *load_vectors(const char *path)
{
    char *text = NULL;
    size_t len = 0;
    cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_file_read(path, ASSAY_JSON_FILE_BYTES_MAX, &text, &len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    for (char *at = text; (at = strstr(at, nul_in_json)); at += strlen(stand_in_json))
        memcpy(at, stand_in_json, strlen(stand_in_json));
    if (assay_json_parse(text, len, path, &json, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    free(text);
    return json;
}

static struct assay_tokenizer *open_tokenizer(const char *dir)
{
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_open(dir, &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return tokenizer;
}

#define MEMBER(object, key) cJSON_GetObjectItemCaseSensitive(object, key)

static void ids_and_texts_are_those_of_the_python_package(void **state)
{
    need_shared();
    const struct kind *kind = *state;
    assay_auto(close_tokenizer) struct assay_tokenizer *tokenizer = open_tokenizer(kind->dir);
    assay_auto(assay_json_delete) cJSON *vectors = load_vectors(kind->vectors);
    struct tally encode = {"encode", 0, 0}, invalid = {"invalid UTF-8", 0, 0}, decode = {"decode", 0, 0};
    const cJSON *row;
    size_t i = 0;
    cJSON_ArrayForEach(row, MEMBER(vectors, "encode"))
    {
        const char *hex = cJSON_GetStringValue(MEMBER(row, "utf8_hex"));
        const cJSON *ids = MEMBER(row, "ids");
        tell(&encode, encodes_to(tokenizer, hex, true, ids), i);
        tell(&encode, encodes_to(tokenizer, hex, false, MEMBER(row, "ids_no_special")), i);
        tell(&decode, decodes_to(tokenizer, ids, true, MEMBER(row, "decode_skip_special")), i);
        tell(&decode, decodes_to(tokenizer, ids, false, MEMBER(row, "decode_keep_special")), i++);
    }
    i = 0;
    cJSON_ArrayForEach(row, MEMBER(vectors, "invalid_utf8"))
    {
        const char *hex = cJSON_GetStringValue(MEMBER(row, "bytes_hex"));
        tell(&invalid, encodes_to(tokenizer, hex, false, MEMBER(row, "ids_no_special")), i++);
    }
    i = 0;
    cJSON_ArrayForEach(row, MEMBER(vectors, "decode"))
    {
        const cJSON *ids = MEMBER(row, "ids");
        tell(&decode, decodes_to(tokenizer, ids, true, MEMBER(row, "text_skip_special")), i);
        tell(&decode, decodes_to(tokenizer, ids, false, MEMBER(row, "text_keep_special")), i++);
    }
    expect_all_right(&encode);
    expect_all_right(&invalid);
    expect_all_right(&decode);
}

static char *read_text(const char *stem, const char *suffix)
{
    char path[ASSAY_PATH_MAX];
    char *text = NULL;
    size_t len;
    struct assay_err err = ASSAY_ERR_INIT;
    snprintf(path, sizeof path, "%s%s", stem, suffix);
    if (assay_file_read(path, ASSAY_JSON_FILE_BYTES_MAX, &text, &len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return text;
}

static bool encodes_to_line(const struct assay_tokenizer *tokenizer, const char *text, size_t len, const char *line)
{
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(assay_tokenizer_encode(tokenizer, text, len, false, &ids, &count, NULL), ASSAY_OK);
    bool equal = true;
    for (size_t i = 0; i < count && equal; i++) {
        char *end;
        equal = strtol(line, &end, 10) == ids[i] && end != line;
        line = end;
    }
    free(ids);
    return equal && line[strspn(line, " ")] == '\0';
}

static void ids_are_those_of_the_public_vectors(void **state)
{
    need_shared();
    const struct kind *kind = *state;
    assay_auto(close_tokenizer) struct assay_tokenizer *tokenizer = open_tokenizer(kind->dir);
    assay_auto(assay_free_ptr) char *cases = read_text(kind->vectors, ".inp"),
                                    *answers = read_text(kind->vectors, ".out");
    static const char separator[] = "\n__ggml_vocab_test__\n";
    struct tally encode = {"encode", 0, 0};
    const char *text = cases;
    char *lines = answers;
    for (const char *end; (end = strstr(text, separator)); text = end + sizeof separator - 1) {
        const char *line = strsep(&lines, "\n");
        assert_non_null(line);
        tell(&encode, encodes_to_line(tokenizer, text, (size_t)(end - text), line), encode.checked);
    }
    expect_all_right(&encode);
}

/* Rows of kinds[]; the tests are made from them. */
static struct kind kinds[] = {
    {GOLDEN "tok_bert", GOLDEN "tok_bert/vectors.json"},
    {GOLDEN "tok_gpt2", GOLDEN "tok_gpt2/vectors.json"},
    {GOLDEN "tok_gptneox", GOLDEN "tok_gptneox/vectors.json"},
    {GOLDEN "tok_llama2", GOLDEN "tok_llama2/vectors.json"},
    {GOLDEN "tok_llama2_metaspace", GOLDEN "tok_llama2_metaspace/vectors.json"},
    {GOLDEN "tok_llama3", GOLDEN "tok_llama3/vectors.json"},
    {GOLDEN "tok_phi3", GOLDEN "tok_phi3/vectors.json"},
    {GOLDEN "tok_qwen2", GOLDEN "tok_qwen2/vectors.json"},
    {GOLDEN "tok_r1qwen", GOLDEN "tok_r1qwen/vectors.json"},
    {GOLDEN "tok_smollm", GOLDEN "tok_smollm/vectors.json"},
    {REAL "minilm", GOLDEN "minilm_real/vectors.json"},
    {REAL "minilm", REAL "vectors/ggml-vocab-bert-bge.gguf"},
    {REAL "gpt2", REAL "vectors/ggml-vocab-gpt-2.gguf"},
    {REAL "llama-3.1", REAL "vectors/ggml-vocab-llama-bpe.gguf"},
    {REAL "phi-3-mini", REAL "vectors/ggml-vocab-phi-3.gguf"},
    {REAL "qwen2.5", REAL "vectors/ggml-vocab-qwen2.gguf"},
};

int main(void)
{
    struct CMUnitTest tests[ASSAY_COUNT(kinds)];
    char names[ASSAY_COUNT(kinds)][128];
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++) {
        bool python = strstr(kinds[i].vectors, "vectors.json");
        snprintf(names[i], sizeof names[i], "ids_are_those_of_%s: %s",
                 python ? "the_python_package" : "the_public_vectors", strrchr(kinds[i].dir, '/') + 1);
        tests[i] = (struct CMUnitTest){
            .name = names[i],
            .test_func = python ? ids_and_texts_are_those_of_the_python_package : ids_are_those_of_the_public_vectors,
            .initial_state = &kinds[i],
        };
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
