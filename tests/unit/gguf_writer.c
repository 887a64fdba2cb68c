#include "tests/unit/gguf_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cmocka_all.h"

#define ALIGNMENT 32

void gguf_writer_release(struct gguf_writer *writer)
{
    assay_buf_release(&writer->keys);
    assay_buf_release(&writer->descriptions);
    assay_buf_release(&writer->data);
}

static void append_u32(struct assay_buf *buf, uint32_t value)
{
    assay_buf_append(buf, &value, sizeof value);
}

static void append_u64(struct assay_buf *buf, uint64_t value)
{
    assay_buf_append(buf, &value, sizeof value);
}

static void append_text(struct assay_buf *buf, const char *text)
{
    append_u64(buf, strlen(text));
    assay_buf_str(buf, text);
}

static void pad(struct assay_buf *buf)
{
    while (buf->len % ALIGNMENT)
        assay_buf_append(buf, "", 1);
}

void gguf_put_raw(struct gguf_writer *writer, const char *key, uint32_t type, const void *value, size_t bytes)
{
    append_text(&writer->keys, key);
    append_u32(&writer->keys, type);
    assay_buf_append(&writer->keys, value, bytes);
    writer->keys_count++;
}

void gguf_put_int(struct gguf_writer *writer, const char *key, uint32_t value)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_U32, &value, sizeof value);
}

void gguf_put_float(struct gguf_writer *writer, const char *key, float value)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_F32, &value, sizeof value);
}

void gguf_put_bool(struct gguf_writer *writer, const char *key, bool value)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_BOOL, value ? "\1" : "\0", 1);
}

void gguf_put_text(struct gguf_writer *writer, const char *key, const char *value)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_TEXT, NULL, 0);
    append_text(&writer->keys, value);
}

void gguf_put_texts(struct gguf_writer *writer, const char *key, const char *const *values, size_t count)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_ARRAY, NULL, 0);
    append_u32(&writer->keys, ASSAY_GGUF_TEXT);
    append_u64(&writer->keys, count);
    for (size_t i = 0; i < count; i++)
        append_text(&writer->keys, values[i]);
}

void gguf_put_ints(struct gguf_writer *writer, const char *key, const int32_t *values, size_t count)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_ARRAY, NULL, 0);
    append_u32(&writer->keys, ASSAY_GGUF_I32);
    append_u64(&writer->keys, count);
    assay_buf_append(&writer->keys, values, count * sizeof *values);
}

void gguf_put_floats(struct gguf_writer *writer, const char *key, const float *values, size_t count)
{
    gguf_put_raw(writer, key, ASSAY_GGUF_ARRAY, NULL, 0);
    append_u32(&writer->keys, ASSAY_GGUF_F32);
    append_u64(&writer->keys, count);
    assay_buf_append(&writer->keys, values, count * sizeof *values);
}

void gguf_put_description(struct gguf_writer *writer, const char *name, uint32_t rank, const uint64_t *dimensions,
                          uint32_t type, uint64_t offset)
{
    append_text(&writer->descriptions, name);
    append_u32(&writer->descriptions, rank);
    for (uint32_t i = 0; i < rank; i++)
        append_u64(&writer->descriptions, dimensions[i]);
    append_u32(&writer->descriptions, type);
    append_u64(&writer->descriptions, offset);
    writer->tensors_count++;
}

void gguf_put_tensor(struct gguf_writer *writer, const char *name, uint64_t rows, uint64_t columns, uint32_t type,
                     const void *bytes, size_t len)
{
    pad(&writer->data);
    gguf_put_description(writer, name, rows ? 2 : 1, (uint64_t[]){columns, rows}, type, writer->data.len);
    assay_buf_append(&writer->data, bytes, len);
}

unsigned char *gguf_image(struct gguf_writer *writer, size_t *ret_len)
{
    assay_auto(assay_buf_release) struct assay_buf image = ASSAY_BUF_INIT;
    assay_buf_str(&image, "GGUF");
    append_u32(&image, writer->version ? writer->version : 3);
    append_u64(&image, writer->tensors_count);
    append_u64(&image, writer->keys_count);
    assay_buf_append(&image, writer->keys.data, writer->keys.len);
    assay_buf_append(&image, writer->descriptions.data, writer->descriptions.len);
    pad(&image);
    assay_buf_append(&image, writer->data.data, writer->data.len);
    unsigned char *bytes = malloc(image.len);
    assert_non_null(bytes);
    memcpy(bytes, image.data, image.len);
    *ret_len = image.len;
    return bytes;
}

void gguf_save(struct gguf_writer *writer, const char *path)
{
    size_t len;
    unsigned char *bytes = gguf_image(writer, &len);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    free(bytes);
}

/* Byte b as the letter that byte-level BPE has for it, in UTF-8. */
static void byte_letter(unsigned b, char letter[4])
{
    unsigned shown = b, hidden = 0;
    if (!((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae)) {
        for (unsigned i = 0; i < b; i++)
            hidden += !((i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae);
        shown = 256 + hidden;
    }
    if (shown < 0x80)
        snprintf(letter, 4, "%c", (int)shown);
    else
        snprintf(letter, 4, "%c%c", (int)(0xc0 | shown >> 6), (int)(0x80 | (shown & 0x3f)));
}

static void put_vocabulary(struct gguf_writer *writer)
{
    static char letters[256][4];
    const char *tokens[262];
    int32_t types[262];
    for (unsigned b = 0; b < 256; b++) {
        byte_letter(b, letters[b]);
        tokens[b] = letters[b];
    }
    static const char *const further[] = {"ab", "abc", "<s>", "</s>", "<mine>", "<unused>"};
    static const int32_t further_types[] = {1, 1, 3, 3, 4, 5};
    for (size_t i = 0; i < 262; i++)
        types[i] = 1;
    for (size_t i = 0; i < ASSAY_COUNT(further); i++) {
        tokens[256 + i] = further[i];
        types[256 + i] = further_types[i];
    }
    gguf_put_text(writer, "tokenizer.ggml.model", "gpt2");
    gguf_put_text(writer, "tokenizer.ggml.pre", "gpt-2");
    gguf_put_texts(writer, "tokenizer.ggml.tokens", tokens, ASSAY_COUNT(tokens));
    gguf_put_ints(writer, "tokenizer.ggml.token_type", types, ASSAY_COUNT(types));
    gguf_put_texts(writer, "tokenizer.ggml.merges", (const char *const[]){"a b", "ab c"}, 2);
    gguf_put_int(writer, "tokenizer.ggml.bos_token_id", 258);
    gguf_put_int(writer, "tokenizer.ggml.eos_token_id", 259);
    gguf_put_text(writer, "tokenizer.chat_template", "{{ \"a\\\n\" }}");
}

float gguf_llama_weight(size_t tensor, size_t index)
{
    return (float)((int)((tensor * 131 + index) % 2047) - 1023) / 64;
}

static void put_weights(struct gguf_writer *writer, const char *name, uint64_t rows, uint64_t columns)
{
    size_t count = (size_t)(rows ? rows * columns : columns);
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = gguf_llama_weight((size_t)writer->tensors_count, i);
    gguf_put_tensor(writer, name, rows, columns, ASSAY_GGML_F32, values, count * sizeof *values);
    free(values);
}

void gguf_put_llama(struct gguf_writer *writer)
{
    gguf_put_text(writer, "general.architecture", "llama");
    gguf_put_int(writer, "llama.block_count", 2);
    gguf_put_int(writer, "llama.context_length", 128);
    gguf_put_int(writer, "llama.embedding_length", 8);
    gguf_put_int(writer, "llama.feed_forward_length", 12);
    gguf_put_int(writer, "llama.attention.head_count", 2);
    gguf_put_int(writer, "llama.attention.head_count_kv", 1);
    gguf_put_float(writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_put_float(writer, "llama.rope.freq_base", 10000);
    put_vocabulary(writer);
    put_weights(writer, "token_embd.weight", 262, 8);
    put_weights(writer, "output_norm.weight", 0, 8);
    static const struct {
        const char *name;
        uint64_t rows, columns;
    } rows[] = {{"attn_norm", 0, 8}, {"attn_q", 8, 8},    {"attn_k", 4, 8},  {"attn_v", 4, 8},   {"attn_output", 8, 8},
                {"ffn_norm", 0, 8},  {"ffn_gate", 12, 8}, {"ffn_up", 12, 8}, {"ffn_down", 8, 12}};
    for (int layer = 0; layer < 2; layer++) {
        for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, rows[i].name);
            put_weights(writer, name, rows[i].rows, rows[i].columns);
        }
    }
}
