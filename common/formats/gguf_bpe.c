/* A byte-level BPE vocabulary as a tokenizer.json. */
#include "common/formats/gguf_text.h"
#include "common/formats/gguf_vocabulary.h"

static void append_added(struct assay_buf *out, const struct assay_gguf_vocabulary *v)
{
    const char *comma = "";
    assay_buf_str(out, "\"added_tokens\":[");
    for (size_t i = 0; i < v->tokens_count; i++) {
        if (!assay_gguf_token_is_added(v, i) || v->tokens[i].len == 0)
            continue;
        assay_buf_printf(out, "%s{\"id\":%zu,\"content\":", comma, i);
        assay_gguf_quote(out, v->tokens[i]);
        assay_buf_printf(
            out, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
            assay_gguf_token_is_special(v, i) ? "true" : "false");
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
static void append_template(struct assay_buf *out, const struct assay_gguf_vocabulary *v, const char *key,
                            const char *texts)
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

static void append_template_id(struct assay_buf *out, const struct assay_gguf_vocabulary *v, int64_t id)
{
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_str(out, ":{\"id\":");
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_printf(out, ",\"ids\":[%lld],\"tokens\":[", (long long)id);
    assay_gguf_quote(out, v->tokens[id]);
    assay_buf_str(out, "]}");
}

static void append_post_processor(struct assay_buf *out, const struct assay_gguf_vocabulary *v)
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

static void append_model(struct assay_buf *out, const struct assay_gguf_vocabulary *v)
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

void assay_gguf_append_bpe(const struct assay_gguf_vocabulary *v, struct assay_buf *out)
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
