/* What the Rust library exports. Internal to common/tokenizer; lib.rs has the other side and must agree.
 * Calls return 0, or 1 with a sentence in error[error_bytes]. Outputs are written only on success. A tokenizer does not
 * change once it is made: any thread. Memory that is handed out comes from malloc. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct assay_hf;

int assay_hf_new(const uint8_t *json, size_t len, struct assay_hf **ret, char *error, size_t error_bytes);
void assay_hf_free(struct assay_hf *hf); /* NULL is fine */

size_t assay_hf_vocab(const struct assay_hf *hf);
/* -1 when there is no such token. */
int64_t assay_hf_id(const struct assay_hf *hf, const uint8_t *token, size_t len);
/* 1 for a token of one byte ("<0xE2>"), whose text depends on the bytes around it. */
int assay_hf_is_byte(const struct assay_hf *hf, int32_t id);

int assay_hf_encode(const struct assay_hf *hf, const uint8_t *text, size_t len, int special, int32_t **ret,
                    size_t *ret_count, char *error, size_t error_bytes);
/* With special tokens, at most `most`; `pair` is NULL or the second text. *ret and *ret_types have *ret_count each. */
int assay_hf_encode_within(const struct assay_hf *hf, const uint8_t *text, size_t len, const uint8_t *pair,
                           size_t pair_len, size_t most, int32_t **ret, int32_t **ret_types, size_t *ret_count,
                           char *error, size_t error_bytes);
/* NUL-terminated; *ret_len does not count the NUL. */
int assay_hf_decode(const struct assay_hf *hf, const int32_t *ids, size_t count, int skip_special, char **ret,
                    size_t *ret_len, char *error, size_t error_bytes);

/* The text of a tokenizer.json for a tokenizer.model; `config` is tokenizer_config.json or empty. NUL-terminated;
 * *ret_len does not count the NUL. */
int assay_hf_from_sentencepiece(const uint8_t *model, size_t len, const uint8_t *config, size_t config_len, char **ret,
                                size_t *ret_len, char *error, size_t error_bytes);

struct assay_hf_chat;

int assay_hf_chat_new(const uint8_t *source, size_t len, struct assay_hf_chat **ret, char *error, size_t error_bytes);
void assay_hf_chat_free(struct assay_hf_chat *chat); /* NULL is fine */
/* `variables` is a JSON object. NUL-terminated; *ret_len does not count the NUL. */
int assay_hf_chat_render(const struct assay_hf_chat *chat, const uint8_t *variables, size_t len, int64_t now_s,
                         char **ret, size_t *ret_len, char *error, size_t error_bytes);
