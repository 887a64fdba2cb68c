#include "common/formats/gguf_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_impl.h"
#include "common/formats/gguf_text.h"

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

struct vocabulary {
    struct assay_gguf_text *tokens;
    int64_t *types; /* NULL: all normal */
    struct assay_gguf_text *merges;
    size_t tokens_count, types_count, merges_count;
    const struct pre_tokenizer *pre;
    bool add_bos, add_eos;
    int64_t bos, eos, unknown, padding; /* -1: none */
};

#define SPLIT(pattern)                                                                                                 \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define GPT2_WORDS "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}"
#define WORDS(digits)                                                                                                  \
    SPLIT("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                               \
          "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+")
/* What readers of GGUF do where the converter knew no name: punctuation, GPT-2's words, numbers by three digits. */
#define UNKNOWN_WORDS                                                                                                   \
    SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+")                                                                        \
    "," SPLIT("'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)") "," SPLIT( \
        "\\\\p{N}+") "," SPLIT("[0-9][0-9][0-9]")

static const struct pre_tokenizer {
    const char *name;
    const char *json;
    bool nfc;           /* texts are normalized first */
    bool whole_words;   /* a word that is a token is that token, whatever the merges say */
    bool bos_otherwise; /* add_bos_token where the file does not say */
} pre_tokenizers[] = {
    {"gpt-2", GPT2_WORDS, false, false, false},
    {"smollm",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," GPT2_WORDS "]}",
     false, false, false},
    {"llama-bpe", "{\"type\":\"Sequence\",\"pretokenizers\":[" WORDS("\\\\p{N}{1,3}") "," BYTES "]}", false, true,
     true},
    {"qwen2", "{\"type\":\"Sequence\",\"pretokenizers\":[" WORDS("\\\\p{N}") "," BYTES "]}", true, false, false},
    {"deepseek-r1-qwen", "{\"type\":\"Sequence\",\"pretokenizers\":[" WORDS("\\\\p{N}") "," BYTES "]}", false, false,
     false},
    {"default", "{\"type\":\"Sequence\",\"pretokenizers\":[" UNKNOWN_WORDS "," BYTES "]}", false, false, false},
};

static void vocabulary_release(struct vocabulary *v)
{
    free(v->tokens);
    free(v->types);
    free(v->merges);
}

static enum assay_status find_pre_tokenizer(const struct assay_gguf *file, const struct pre_tokenizer **ret,
                                            struct assay_err *err)
{
    static const struct {
        const char *name, *same_as;
    } aliases[] = {{"llama3", "llama-bpe"}, {"llama-v3", "llama-bpe"}};
    struct assay_gguf_text model = {"", 0}, pre = {"default", 7};
    char room[104];
    enum assay_status status = assay_gguf_get_text(file, "tokenizer.ggml.model", true, &model, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_text(file, "tokenizer.ggml.pre", false, &pre, err);
    if (status != ASSAY_OK)
        return status;
    if (!assay_gguf_text_is(model, "gpt2"))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                             "%s: a vocabulary of the kind '%s' is not implemented; byte-level BPE ('gpt2') is",
                             assay_gguf_what(file), assay_gguf_cut(model, room));
    for (size_t i = 0; i < ASSAY_COUNT(aliases); i++)
        if (assay_gguf_text_is(pre, aliases[i].name))
            pre = (struct assay_gguf_text){aliases[i].same_as, strlen(aliases[i].same_as)};
    for (size_t i = 0; i < ASSAY_COUNT(pre_tokenizers); i++) {
        if (assay_gguf_text_is(pre, pre_tokenizers[i].name)) {
            *ret = &pre_tokenizers[i];
            return ASSAY_OK;
        }
    }
    return assay_err_set(err, ASSAY_UNIMPLEMENTED,
                         "%s: the pre-tokenizer '%s' is not implemented; these are: gpt-2, smollm, llama-bpe, qwen2, "
                         "deepseek-r1-qwen, default",
                         assay_gguf_what(file), assay_gguf_cut(pre, room));
}

static enum assay_status read_specials(const struct assay_gguf *file, struct vocabulary *v, struct assay_err *err)
{
    const struct {
        const char *key;
        int64_t *id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", &v->bos},
               {"tokenizer.ggml.eos_token_id", &v->eos},
               {"tokenizer.ggml.unknown_token_id", &v->unknown},
               {"tokenizer.ggml.padding_token_id", &v->padding}};
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(ids) && status == ASSAY_OK; i++) {
        *ids[i].id = -1;
        status = assay_gguf_get_int(file, ids[i].key, false, 0, (int64_t)v->tokens_count - 1, ids[i].id, err);
    }
    v->add_bos = v->pre->bos_otherwise;
    if (status == ASSAY_OK)
        status = assay_gguf_get_bool(file, "tokenizer.ggml.add_bos_token", false, &v->add_bos, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_bool(file, "tokenizer.ggml.add_eos_token", false, &v->add_eos, err);
    if (status == ASSAY_OK && ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0)))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: the vocabulary adds a token at the %s of a text and does not say which",
                             assay_gguf_what(file), v->add_bos && v->bos < 0 ? "begin" : "end");
    return status;
}

static int compare_tokens(const void *a, const void *b)
{
    return assay_gguf_text_compare(*(const struct assay_gguf_text *)a, *(const struct assay_gguf_text *)b);
}

static enum assay_status refuse_twice(const struct assay_gguf *file, const struct vocabulary *v, struct assay_err *err)
{
    char room[104];
    assay_auto(assay_free_ptr) struct assay_gguf_text *sorted = calloc(v->tokens_count, sizeof *sorted);
    if (!sorted)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", assay_gguf_what(file));
    memcpy(sorted, v->tokens, v->tokens_count * sizeof *sorted);
    qsort(sorted, v->tokens_count, sizeof *sorted, compare_tokens);
    for (size_t i = 1; i < v->tokens_count; i++)
        if (compare_tokens(&sorted[i - 1], &sorted[i]) == 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the token '%s' stands twice in the vocabulary",
                                 assay_gguf_what(file), assay_gguf_cut(sorted[i], room));
    return ASSAY_OK;
}

static enum assay_status check_merges(const struct assay_gguf *file, const struct vocabulary *v, struct assay_err *err)
{
    char room[104];
    for (size_t i = 0; i < v->merges_count; i++) {
        struct assay_gguf_text merge = v->merges[i];
        const char *space = memchr(merge.bytes, ' ', merge.len);
        size_t before = space ? (size_t)(space - merge.bytes) : 0;
        size_t after = space ? merge.len - before - 1 : 0;
        if (before == 0 || after == 0 || memchr(space + 1, ' ', after))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: merge %zu is '%s', wanted two parts and a space",
                                 assay_gguf_what(file), i, assay_gguf_cut(merge, room));
    }
    return ASSAY_OK;
}

static enum assay_status read_vocabulary(const struct assay_gguf *file, uint64_t vocab_max, struct vocabulary *v,
                                         struct assay_err *err)
{
    enum assay_status status = find_pre_tokenizer(file, &v->pre, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_texts(file, "tokenizer.ggml.tokens", true, &v->tokens, &v->tokens_count, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_ints(file, "tokenizer.ggml.token_type", false, &v->types, &v->types_count, err);
    if (status == ASSAY_OK)
        status = assay_gguf_get_texts(file, "tokenizer.ggml.merges", true, &v->merges, &v->merges_count, err);
    if (status != ASSAY_OK)
        return status;
    if (v->tokens_count == 0 || v->tokens_count > vocab_max)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %zu tokens for %llu rows of the embedding, wanted at least one and no more than rows",
                             assay_gguf_what(file), v->tokens_count, (unsigned long long)vocab_max);
    if (v->types && v->types_count != v->tokens_count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu token types for %zu tokens", assay_gguf_what(file),
                             v->types_count, v->tokens_count);
    status = read_specials(file, v, err);
    if (status == ASSAY_OK)
        status = refuse_twice(file, v, err);
    return status == ASSAY_OK ? check_merges(file, v, err) : status;
}

static bool is_special(const struct vocabulary *v, size_t id)
{
    return v->types && (v->types[id] == TYPE_CONTROL || v->types[id] == TYPE_UNKNOWN);
}

static bool is_added(const struct vocabulary *v, size_t id)
{
    return is_special(v, id) || (v->types && v->types[id] == TYPE_USER_DEFINED);
}

static void append_added(struct assay_buf *out, const struct vocabulary *v)
{
    const char *comma = "";
    assay_buf_str(out, "\"added_tokens\":[");
    for (size_t i = 0; i < v->tokens_count; i++) {
        if (!is_added(v, i) || v->tokens[i].len == 0)
            continue;
        assay_buf_printf(out, "%s{\"id\":%zu,\"content\":", comma, i);
        assay_gguf_quote(out, v->tokens[i]);
        assay_buf_printf(
            out, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
            is_special(v, i) ? "true" : "false");
        comma = ",";
    }
    assay_buf_str(out, "],");
}

static void append_template_token(struct assay_buf *out, struct assay_gguf_text token, int text)
{
    assay_buf_str(out, "{\"SpecialToken\":{\"id\":");
    assay_gguf_quote(out, token);
    assay_buf_printf(out, ",\"type_id\":%d}}", text);
}

/* BOS text EOS, or BOS A EOS BOS B EOS for a pair. */
static void append_template(struct assay_buf *out, const struct vocabulary *v, const char *key, const char *texts)
{
    assay_buf_printf(out, "\"%s\":[", key);
    for (const char *text = texts; *text; text++) {
        if (text != texts)
            assay_buf_str(out, ",");
        if (v->add_bos) {
            append_template_token(out, v->tokens[v->bos], *text - 'A');
            assay_buf_str(out, ",");
        }
        assay_buf_printf(out, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":%d}}", *text, *text - 'A');
        if (v->add_eos) {
            assay_buf_str(out, ",");
            append_template_token(out, v->tokens[v->eos], *text - 'A');
        }
    }
    assay_buf_str(out, "],");
}

static void append_template_id(struct assay_buf *out, const struct vocabulary *v, int64_t id)
{
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_str(out, ":{\"id\":");
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_printf(out, ",\"ids\":[%lld],\"tokens\":[", (long long)id);
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_str(out, "]}");
}

static void append_post_processor(struct assay_buf *out, const struct vocabulary *v)
{
    if (!v->add_bos && !v->add_eos) {
        assay_buf_str(out, "\"post_processor\":null,");
        return;
    }
    assay_buf_str(out, "\"post_processor\":{\"type\":\"TemplateProcessing\",");
    append_template(out, v, "single", "A");
    append_template(out, v, "pair", "AB");
    assay_buf_str(out, "\"special_tokens\":{");
    if (v->add_bos)
        append_template_id(out, v, v->bos);
    if (v->add_eos && !(v->add_bos && v->bos == v->eos)) {
        assay_buf_str(out, v->add_bos ? "," : "");
        append_template_id(out, v, v->eos);
    }
    assay_buf_str(out, "}},");
}

static void append_model(struct assay_buf *out, const struct vocabulary *v)
{
    assay_buf_printf(out,
                     "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                     "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                     "\"byte_fallback\":false,\"ignore_merges\":%s,\"vocab\":{",
                     v->pre->whole_words ? "true" : "false");
    for (size_t i = 0; i < v->tokens_count; i++) {
        assay_buf_str(out, i ? "," : "");
        assay_gguf_quote(out, v->tokens[i]);
        assay_buf_printf(out, ":%zu", i);
    }
    assay_buf_str(out, "},\"merges\":[");
    for (size_t i = 0; i < v->merges_count; i++) {
        assay_buf_str(out, i ? "," : "");
        assay_gguf_quote(out, v->merges[i]);
    }
    assay_buf_str(out, "]}");
}

static void append_json(struct assay_buf *out, const struct vocabulary *v)
{
    assay_buf_str(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    append_added(out, v);
    assay_buf_printf(out, "\"normalizer\":%s,", v->pre->nfc ? "{\"type\":\"NFC\"}" : "null");
    assay_buf_printf(out, "\"pre_tokenizer\":%s,", v->pre->json);
    append_post_processor(out, v);
    assay_buf_str(out, "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                       "\"use_regex\":true},");
    append_model(out, v);
    assay_buf_str(out, "}\n");
}

static enum assay_status append_config(const struct assay_gguf *file, const struct vocabulary *v, struct assay_buf *out,
                                       struct assay_err *err)
{
    const struct {
        const char *key;
        int64_t id;
    } names[] = {{"bos_token", v->bos}, {"eos_token", v->eos}, {"unk_token", v->unknown}, {"pad_token", v->padding}};
    struct assay_gguf_text chat = {"", 0};
    enum assay_status status = assay_gguf_get_text(file, "tokenizer.chat_template", false, &chat, err);
    if (status != ASSAY_OK)
        return status;
    assay_buf_printf(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"add_bos_token\": %s,\n",
                     v->add_bos ? "true" : "false");
    assay_buf_printf(out, "  \"add_eos_token\": %s,\n", v->add_eos ? "true" : "false");
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        if (names[i].id < 0)
            continue;
        assay_buf_printf(out, "  \"%s\": ", names[i].key);
        assay_gguf_quote(out, v->tokens[names[i].id]);
        assay_buf_str(out, ",\n");
    }
    if (chat.len) {
        assay_buf_str(out, "  \"chat_template\": ");
        assay_gguf_quote(out, chat);
        assay_buf_str(out, ",\n");
    }
    assay_buf_str(out, "  \"clean_up_tokenization_spaces\": false\n}\n");
    return ASSAY_OK;
}

enum assay_status assay_gguf_tokenizer(const struct assay_gguf *file, uint64_t vocab_max, struct assay_buf *ret_json,
                                       struct assay_buf *ret_config, struct assay_err *err)
{
    assay_auto(vocabulary_release) struct vocabulary v = {0};
    enum assay_status status = read_vocabulary(file, vocab_max, &v, err);
    if (status != ASSAY_OK)
        return status;
    append_json(ret_json, &v);
    status = append_config(file, &v, ret_config, err);
    if (status == ASSAY_OK)
        status = assay_buf_check(ret_json, err);
    return status == ASSAY_OK ? assay_buf_check(ret_config, err) : status;
}
