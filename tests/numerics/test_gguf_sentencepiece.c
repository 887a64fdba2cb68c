/* Sentencepiece vocabularies, put into a GGUF file as its converter does (pieces, scores, types, and added tokens over
 * them), give the tokenizer that they came from; and the ids that llama.cpp has for its own texts. */
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

#define SEPARATOR "\n__ggml_vocab_test__\n"
#define PIECES_MAX 40000

static const struct origin {
    const char *dir, *arch;
    bool bos;
    bool beyond_scores; /* the vocabulary is filled up, as converters do */
} origins[] = {
    {"golden/tokenizers/tok_llama2", "llama", true, false},
    {"models/stories260K", "llama", true, false},
    {"tokenizers/mistral-v0.1", "llama", true, false},
    {"tokenizers/phi-3-mini", "phi3", false, true},
};

struct pieces {
    char *texts[PIECES_MAX];
    float scores[PIECES_MAX];
    int32_t types[PIECES_MAX];
    size_t count;
};

static char *read_file(const char *dir, const char *name, size_t *ret_len)
{
    char path[ASSAY_PATH_MAX], *text = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    snprintf(path, sizeof path, ASSAY_SHARED_DIR "/%s/%s", dir, name);
    if (assay_file_read(path, ASSAY_TOKENIZER_FILE_BYTES_MAX, &text, ret_len, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return text;
}

static uint64_t varint(const unsigned char **at)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        unsigned char byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
}

/* One SentencePiece message: text (1), score (2), type (3). */
static void read_piece(const unsigned char *at, const unsigned char *end, struct pieces *p)
{
    assert_true(p->count < PIECES_MAX);
    p->types[p->count] = 1;
    while (at < end) {
        uint64_t tag = varint(&at);
        if (tag == (1 << 3 | 2)) {
            size_t len = (size_t)varint(&at);
            p->texts[p->count] = strndup((const char *)at, len);
            at += len;
        } else if (tag == (2 << 3 | 5)) {
            memcpy(&p->scores[p->count], at, 4);
            at += 4;
        } else {
            assert_int_equal(tag, 3 << 3);
            p->types[p->count] = (int32_t)varint(&at);
        }
    }
    p->count++;
}

static void read_pieces(const char *dir, struct pieces *p)
{
    size_t len;
    char *bytes = read_file(dir, "tokenizer.model", &len);
    const unsigned char *at = (const unsigned char *)bytes, *end = at + len;
    while (at < end) {
        uint64_t tag = varint(&at);
        assert_int_equal(tag & 7, 2);
        size_t field = (size_t)varint(&at);
        if (tag >> 3 == 1)
            read_piece(at, at + field, p);
        at += field;
    }
    free(bytes);
}

/* What tokenizer.json adds goes over the pieces, with a type by whether it is special. */
static void add_tokens(const char *dir, struct pieces *p)
{
    size_t len;
    cJSON *json = NULL;
    const cJSON *token;
    struct assay_err err = ASSAY_ERR_INIT;
    char *text = read_file(dir, "tokenizer.json", &len);
    assert_int_equal(assay_json_parse(text, len, dir, &json, &err), ASSAY_OK);
    cJSON_ArrayForEach(token, cJSON_GetObjectItemCaseSensitive(json, "added_tokens"))
    {
        size_t id = (size_t)cJSON_GetObjectItemCaseSensitive(token, "id")->valueint;
        bool special = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(token, "special"));
        assert_true(id <= p->count && id < PIECES_MAX);
        if (id < p->count && p->types[id] == 2)
            continue;
        free(p->texts[id]);
        p->texts[id] = strdup(cJSON_GetObjectItemCaseSensitive(token, "content")->valuestring);
        p->scores[id] = -1000;
        p->types[id] = special ? 3 : 4;
        if (id == p->count)
            p->count++;
    }
    cJSON_Delete(json);
    free(text);
}

static void fill_up(struct pieces *p, size_t count)
{
    for (; p->count < count; p->count++) {
        assert_true(asprintf(&p->texts[p->count], "[PAD%zu]", p->count) > 0);
        p->scores[p->count] = -10000;
        p->types[p->count] = 5;
    }
}

static unsigned char *write_gguf(const struct origin *origin, const struct pieces *p, size_t *ret_len)
{
    struct gguf_writer writer = {0};
    gguf_put_text(&writer, "general.architecture", origin->arch);
    gguf_put_text(&writer, "tokenizer.ggml.model", "llama");
    gguf_put_text(&writer, "tokenizer.ggml.pre", "default");
    gguf_put_texts(&writer, "tokenizer.ggml.tokens", (const char *const *)p->texts, p->count);
    gguf_put_floats(&writer, "tokenizer.ggml.scores", p->scores, p->count);
    gguf_put_ints(&writer, "tokenizer.ggml.token_type", p->types, p->count);
    if (!origin->bos)
        gguf_put_bool(&writer, "tokenizer.ggml.add_bos_token", false);
    unsigned char *bytes = gguf_image(&writer, ret_len);
    gguf_writer_release(&writer);
    return bytes;
}

static void write_text(const char *dir, const char *name, const struct assay_buf *text)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_path_join(path, dir, name, &err), ASSAY_OK);
    assert_int_equal(assay_file_write(path, text->data, text->len, &err), ASSAY_OK);
}

static struct assay_tokenizer *through_gguf(const struct origin *origin)
{
    static struct pieces pieces;
    char dir[] = "/tmp/assay-gguf-spm-XXXXXX";
    size_t len, wanted;
    assert_non_null(mkdtemp(dir));
    pieces.count = 0;
    read_pieces(origin->dir, &pieces);
    add_tokens(origin->dir, &pieces);
    wanted = pieces.count;
    if (origin->beyond_scores)
        fill_up(&pieces, wanted + 53);
    unsigned char *bytes = write_gguf(origin, &pieces, &len);
    struct assay_gguf *file = NULL;
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    const char *name = NULL;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT, config = ASSAY_BUF_INIT;
    if (assay_gguf_parse(bytes, len, origin->dir, &file, &err) != ASSAY_OK ||
        assay_gguf_tokenizer(file, pieces.count, &name, &text, &config, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_string_equal(name, "tokenizer.model");
    write_text(dir, name, &text);
    write_text(dir, "tokenizer_config.json", &config);
    if (assay_tokenizer_open(dir, &tokenizer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(assay_tokenizer_vocab(tokenizer), wanted);
    assert_int_equal(assay_remove_tree(dir, &err), ASSAY_OK);
    assay_gguf_close(file);
    free(bytes);
    for (size_t i = 0; i < pieces.count; i++) {
        free(pieces.texts[i]);
        pieces.texts[i] = NULL;
    }
    return tokenizer;
}

static void agree(const struct assay_tokenizer *one, const struct assay_tokenizer *two, const char *text, size_t len)
{
    for (int special = 0; special < 2; special++) {
        const struct assay_tokenizer *tokenizers[2] = {one, two};
        int32_t *ids[2] = {NULL, NULL};
        char *texts[2] = {NULL, NULL};
        size_t counts[2], lens[2];
        for (int i = 0; i < 2; i++) {
            assert_int_equal(assay_tokenizer_encode(tokenizers[i], text, len, special, &ids[i], &counts[i], NULL),
                             ASSAY_OK);
            assert_int_equal(
                assay_tokenizer_decode(tokenizers[i], ids[i], counts[i], special, &texts[i], &lens[i], NULL), ASSAY_OK);
        }
        assert_int_equal(counts[0], counts[1]);
        assert_memory_equal(ids[0], ids[1], counts[0] * sizeof **ids);
        assert_int_equal(lens[0], lens[1]);
        assert_memory_equal(texts[0], texts[1], lens[0]);
        for (int i = 0; i < 2; i++) {
            free(ids[i]);
            free(texts[i]);
        }
    }
}

static void pieces_survive_the_way_through_gguf(void **state)
{
    (void)state;
    need_shared();
    static const char *const files[] = {"gpt-2", "llama-bpe", "qwen2", "phi-3", "bert-bge"};
    static const char special[] = " a<s> b </s>  c<|user|>  \n d<|end|>\n<unk><|endoftext|> e<0x41>[PAD32020]";
    for (size_t o = 0; o < ASSAY_COUNT(origins); o++) {
        char whole[ASSAY_PATH_MAX];
        struct assay_tokenizer *imported = through_gguf(&origins[o]), *wanted = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        snprintf(whole, sizeof whole, ASSAY_SHARED_DIR "/%s", origins[o].dir);
        if (assay_tokenizer_open(whole, &wanted, &err) != ASSAY_OK)
            fail_msg("%s", err.text);
        assert_int_equal(assay_tokenizer_vocab(imported), assay_tokenizer_vocab(wanted));
        agree(imported, wanted, special, strlen(special));
        for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
            char name[64];
            size_t len;
            snprintf(name, sizeof name, "ggml-vocab-%s.gguf.inp", files[i]);
            char *texts = read_file("tokenizers/vectors", name, &len), *text = texts;
            agree(imported, wanted, texts, len);
            for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR))
                agree(imported, wanted, text, (size_t)(end - text));
            free(texts);
        }
        assay_tokenizer_close(imported);
        assay_tokenizer_close(wanted);
    }
}

/* One line of ids a text. */
static void ids_are_those_of_llama_cpp(void **state)
{
    (void)state;
    need_shared();
    size_t len, checked = 0;
    struct assay_tokenizer *tokenizer = through_gguf(&origins[ASSAY_COUNT(origins) - 1]);
    char *texts = read_file("tokenizers/vectors", "ggml-vocab-phi-3.gguf.inp", &len), *text = texts;
    char *lines = read_file("tokenizers/vectors", "ggml-vocab-phi-3.gguf.out", &len), *line = lines;
    for (char *end; (end = strstr(text, SEPARATOR)); text = end + strlen(SEPARATOR), checked++) {
        int32_t *ids = NULL;
        size_t count = 0;
        assert_int_equal(assay_tokenizer_encode(tokenizer, text, (size_t)(end - text), false, &ids, &count, NULL),
                         ASSAY_OK);
        char *line_end = strchr(line, '\n');
        assert_non_null(line_end);
        *line_end = '\0';
        for (size_t i = 0; i < count; i++) {
            char *after;
            long wanted = strtol(line, &after, 10);
            if (after == line || wanted != ids[i])
                fail_msg("text %zu: id %zu is %d, wanted %s", checked, i, ids[i], line);
            line = after;
        }
        assert_int_equal(strspn(line, " "), strlen(line));
        line = line_end + 1;
        free(ids);
    }
    assert_true(checked > 40);
    free(texts);
    free(lines);
    assay_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_survive_the_way_through_gguf),
        cmocka_unit_test(ids_are_those_of_llama_cpp),
    };
    return cmocka_run_group_tests_name("gguf sentencepiece", tests, NULL, NULL);
}
