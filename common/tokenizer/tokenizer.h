/* Tokenizers by the library of Hugging Face (Rust `tokenizers`), behind a few functions. A tokenizer is immutable: any
 * thread. */
#pragma once

#include "common/base/digest.h"

struct assay_tokenizer;

/* Reads DIR/tokenizer.json; its truncation and padding are switched off. Where only DIR/tokenizer.model is, that
 * (sentencepiece BPE) becomes what transformers makes of it, with BOS, EOS and added tokens as tokenizer_config.json
 * says. Errors name the file; what cannot be converted is refused by name. */
enum assay_status assay_tokenizer_open(const char *dir, struct assay_tokenizer **ret,
                                       struct assay_err *err) ASSAY_MUST_USE;
/* The same over the bytes of a tokenizer.json; its tokenizer is named by their digest. */
enum assay_status assay_tokenizer_parse(const void *json, size_t len, const char *what, struct assay_tokenizer **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_tokenizer_close(struct assay_tokenizer *tokenizer); /* NULL is fine */

/* Digest of tokenizer.json's bytes, or of those made of tokenizer.model. */
struct assay_digest assay_tokenizer_digest(const struct assay_tokenizer *tokenizer);
/* Size of the vocabulary with added tokens. */
size_t assay_tokenizer_vocab(const struct assay_tokenizer *tokenizer);
/* Id of a token by its text; false when there is none. */
bool assay_tokenizer_id(const struct assay_tokenizer *tokenizer, const char *token, int32_t *ret);

/* The token is one byte of a character ("<0xE2>"): its text depends on the bytes around it. */
bool assay_tokenizer_is_byte(const struct assay_tokenizer *tokenizer, int32_t id);

/* Ids of text (malloc; caller frees). Invalid UTF-8 is replaced by U+FFFD as Python's errors="replace" does.
 * `special` adds what the post-processor adds (BOS, [CLS], ...). The whole text is encoded at once, as that alone gives
 * the ids of the Python package; it takes about 120 bytes of memory for each byte of text. */
enum assay_status assay_tokenizer_encode(const struct assay_tokenizer *tokenizer, const char *text, size_t len,
                                         bool special, int32_t **ret, size_t *ret_count,
                                         struct assay_err *err) ASSAY_MUST_USE;
/* Ids of a text (`pair` NULL) or of a pair of texts as the post-processor joins them, with special tokens, and the type
 * of each token (0, or 1 where the post-processor says so); both malloc, caller frees. At most tokens_max: of a text
 * that is too long the last tokens go, of a pair those of the longer text until both are alike, as transformers'
 * `longest_first` does. INVALID_ARGUMENT where tokens_max has no room beside special tokens. */
enum assay_status assay_tokenizer_encode_within(const struct assay_tokenizer *tokenizer, const char *text, size_t len,
                                                const char *pair, size_t pair_len, size_t tokens_max, int32_t **ret,
                                                int32_t **ret_types, size_t *ret_count,
                                                struct assay_err *err) ASSAY_MUST_USE;
/* Text of ids (malloc, NUL-terminated). */
enum assay_status assay_tokenizer_decode(const struct assay_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                         bool skip_special, char **ret, size_t *ret_len,
                                         struct assay_err *err) ASSAY_MUST_USE;
