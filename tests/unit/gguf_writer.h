/* Small GGUF files for tests, in memory. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

struct gguf_writer {
    struct assay_buf keys, descriptions, data;
    uint64_t keys_count, tensors_count;
    uint32_t version; /* 0: 3 */
};

void gguf_writer_release(struct gguf_writer *writer);

void gguf_put_raw(struct gguf_writer *writer, const char *key, uint32_t type, const void *value, size_t bytes);
void gguf_put_int(struct gguf_writer *writer, const char *key, uint32_t value); /* U32 */
void gguf_put_float(struct gguf_writer *writer, const char *key, float value);
void gguf_put_bool(struct gguf_writer *writer, const char *key, bool value);
void gguf_put_text(struct gguf_writer *writer, const char *key, const char *value);
void gguf_put_texts(struct gguf_writer *writer, const char *key, const char *const *values, size_t count);
void gguf_put_ints(struct gguf_writer *writer, const char *key, const int32_t *values, size_t count);
void gguf_put_floats(struct gguf_writer *writer, const char *key, const float *values, size_t count); /* F32 */

/* rows 0: one dimension. Its bytes begin at the next multiple of 32. */
void gguf_put_tensor(struct gguf_writer *writer, const char *name, uint64_t rows, uint64_t columns, uint32_t type,
                     const void *bytes, size_t len);
/* The same described as the caller says. */
void gguf_put_description(struct gguf_writer *writer, const char *name, uint32_t rank, const uint64_t *dimensions,
                          uint32_t type, uint64_t offset);

/* An allocation of exactly *ret_len bytes, for sanitizers; the caller's to free. */
unsigned char *gguf_image(struct gguf_writer *writer, size_t *ret_len);
void gguf_save(struct gguf_writer *writer, const char *path);

/* A Llama of 2 layers, 2 heads of 4 with one key-value head, hidden 8, intermediate 12, and 262 tokens: the 256 bytes
 * as byte-level BPE writes them, "ab", "abc", "<s>", "</s>", "<mine>", "<unused>". Weight (r, c) of its tensor number n
 * is a different multiple of 1/64 for each, exact in F16. */
void gguf_put_llama(struct gguf_writer *writer);
float gguf_llama_weight(size_t tensor, size_t index);
