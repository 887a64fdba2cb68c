#include "common/formats/gguf_tokenizer.h"

#include <string.h>

#include "common/formats/gguf_text.h"
#include "common/formats/gguf_vocabulary.h"

/* Spaces behind Phi-3's special tokens are part of them, but for those that every sentencepiece model has. */
static bool strips_right(const struct assay_gguf_vocabulary *v, size_t id)
{
    static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (size_t i = 0; i < ASSAY_COUNT(plain); i++)
        if (assay_gguf_text_is(v->tokens[id], plain[i]))
            return false;
    return v->right_stripped;
}

/* Beside a tokenizer.model: which tokens are found in texts as they are. */
static void append_added_tokens(struct assay_buf *out, const struct assay_gguf_vocabulary *v)
{
    const char *comma = "";
    assay_buf_str(out, "  \"legacy\": true,\n  \"added_tokens_decoder\": {");
    for (size_t i = 0; i < v->tokens_count; i++) {
        if (!assay_gguf_token_is_added(v, i) || v->tokens[i].len == 0)
            continue;
        assay_buf_printf(out, "%s\n    \"%zu\": {\"content\": ", comma, i);
        assay_gguf_quote(out, v->tokens[i]);
        assay_buf_printf(out,
                         ", \"single_word\": false, \"lstrip\": false, \"rstrip\": %s, \"normalized\": false, "
                         "\"special\": %s}",
                         strips_right(v, i) ? "true" : "false", assay_gguf_token_is_special(v, i) ? "true" : "false");
        comma = ",";
    }
    assay_buf_str(out, "\n  },\n");
}

static enum assay_status append_config(const struct assay_gguf *file, const struct assay_gguf_vocabulary *v,
                                       struct assay_buf *out, struct assay_err *err)
{
    const struct {
        const char *key;
        int64_t id;
    } names[] = {{"bos_token", v->bos}, {"eos_token", v->eos}, {"unk_token", v->unknown}, {"pad_token", v->padding}};
    struct assay_gguf_text chat = {"", 0};
    enum assay_status status = assay_gguf_get_text(file, "tokenizer.chat_template", false, &chat, err);
    if (status != ASSAY_OK)
        return status;
    const char *class_name = v->pre ? "PreTrainedTokenizerFast" : v->add_space ? "LlamaTokenizer" : "GemmaTokenizer";
    assay_buf_printf(out, "{\n  \"tokenizer_class\": \"%s\",\n  \"add_bos_token\": %s,\n", class_name,
                     v->add_bos ? "true" : "false");
    if (!v->pre)
        append_added_tokens(out, v);
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

enum assay_status assay_gguf_tokenizer(const struct assay_gguf *file, uint64_t vocab_max, const char **ret_name,
                                       struct assay_buf *ret_text, struct assay_buf *ret_config, struct assay_err *err)
{
    assay_auto(assay_gguf_vocabulary_release) struct assay_gguf_vocabulary v = {0};
    enum assay_status status = assay_gguf_vocabulary_read(file, vocab_max, &v, err);
    if (status != ASSAY_OK)
        return status;
    if (v.pre)
        assay_gguf_append_bpe(&v, ret_text);
    else
        assay_gguf_append_sentencepiece(&v, ret_text);
    status = append_config(file, &v, ret_config, err);
    if (status == ASSAY_OK)
        status = assay_buf_check(ret_text, err);
    if (status == ASSAY_OK)
        status = assay_buf_check(ret_config, err);
    if (status == ASSAY_OK)
        *ret_name = v.pre ? "tokenizer.json" : "tokenizer.model";
    return status;
}
