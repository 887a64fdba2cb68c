/* The vocabulary of a GGUF file, checked. Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

/* tokenizer.ggml.token_type; the same numbers as in sentencepiece's own files. */
enum assay_gguf_token_type {
    ASSAY_GGUF_TOKEN_NORMAL = 1,
    ASSAY_GGUF_TOKEN_UNKNOWN = 2,
    ASSAY_GGUF_TOKEN_CONTROL = 3,
    ASSAY_GGUF_TOKEN_USER_DEFINED = 4,
    ASSAY_GGUF_TOKEN_UNUSED = 5,
    ASSAY_GGUF_TOKEN_BYTE = 6,
};

/* How texts are cut into words before byte-level BPE. */
struct assay_gguf_pre {
    const char *name;   /* tokenizer.ggml.pre */
    const char *json;   /* "pre_tokenizer" of a tokenizer.json */
    bool nfc;           /* texts are normalized first */
    bool whole_words;   /* a word that is a token is that token, whatever the merges say */
    bool bos_otherwise; /* add_bos_token where the file does not say */
};

struct assay_gguf_vocabulary {
    struct assay_gguf_text *tokens;
    int64_t *types; /* NULL: all normal */
    struct assay_gguf_text *merges;
    float *scores; /* of sentencepiece */
    size_t tokens_count, types_count, merges_count, scores_count;
    const struct assay_gguf_pre *pre; /* NULL: sentencepiece */
    bool add_bos, add_eos, add_space;
    bool right_stripped;                /* spaces behind special tokens belong to them: Phi-3 */
    int64_t bos, eos, unknown, padding; /* -1: none */
};

/* NULL for one that is not known; names of those that are, for sentences. */
const struct assay_gguf_pre *assay_gguf_pre_find(struct assay_gguf_text name);
const char *assay_gguf_pre_names(void);

/* See assay_gguf_tokenizer for what is refused. */
enum assay_status assay_gguf_vocabulary_read(const struct assay_gguf *file, uint64_t vocab_max,
                                             struct assay_gguf_vocabulary *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_gguf_vocabulary_release(struct assay_gguf_vocabulary *v);

enum assay_gguf_token_type assay_gguf_token_type_of(const struct assay_gguf_vocabulary *v, size_t id);
/* Never part of a text's words; or a word of its own wherever it stands. */
bool assay_gguf_token_is_special(const struct assay_gguf_vocabulary *v, size_t id);
bool assay_gguf_token_is_added(const struct assay_gguf_vocabulary *v, size_t id);

/* Texts of tokenizer.json (byte-level BPE) and of tokenizer.model (sentencepiece). */
void assay_gguf_append_bpe(const struct assay_gguf_vocabulary *v, struct assay_buf *out);
void assay_gguf_append_sentencepiece(const struct assay_gguf_vocabulary *v, struct assay_buf *out);
