/* Cuts a text into chunks by a perplexity convention, by name. Pure apart from the tokenizer. */
#pragma once

#include "common/base/digest.h"
#include "common/tokenizer/tokenizer.h"

/* How chunk results become one perplexity. */
enum assay_average {
    ASSAY_AVERAGE_TOKENS, /* exp(mean over all scored tokens) */
};

struct assay_protocol {
    const char *name;   /* "llamacpp-512" */
    size_t window;      /* tokens of a chunk: 512 */
    size_t score_begin; /* rows [begin, end) of a chunk are scored: 256..510 predict 257..511 */
    size_t score_end;
    size_t tokens_min;   /* a shorter corpus is refused: 1024 */
    bool bos_each_chunk; /* the first token of a chunk becomes BOS when the vocabulary adds one */
    enum assay_average average;
};

/* NULL when there is none by that name. */
const struct assay_protocol *assay_protocol_find(const char *name);
/* "llamacpp-512, ..." for messages. Static. */
const char *assay_protocol_names(void);

struct assay_chunk {
    struct assay_chunk_key key;
    const int32_t *ids; /* into the owner's array */
    uint32_t tokens;
    uint32_t score_begin, score_end;
};

struct assay_chunks {
    struct assay_chunk *at;
    size_t count;
    int32_t *ids; /* all chunks' ids, one after the other; tokens of the text that fill no chunk lie behind them */
    size_t corpus_tokens; /* of the whole text, with BOS, without a trailing EOS or [SEP] */
    bool adds_bos;        /* the tokenizer puts one before a text */
};

/* INVALID_ARGUMENT unless the text is UTF-8: names the first byte that is not. The tokenizer would take U+FFFD for it,
 * and figures about a file of another kind or encoding would mean nothing. */
enum assay_status assay_corpus_check(const char *text, size_t len, struct assay_err *err) ASSAY_MUST_USE;

/* chunks_max 0 = all. The text is encoded with the special tokens that the tokenizer itself adds; those behind the text
 * are dropped. OUT_OF_RANGE when there are fewer tokens than the protocol needs: says how many it has and needs.
 * INVALID_ARGUMENT when it cannot be told which tokens the tokenizer adds. */
enum assay_status assay_chunks_cut(const struct assay_protocol *protocol, const struct assay_tokenizer *tokenizer,
                                   const char *text, size_t len, size_t chunks_max, struct assay_chunks *ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_chunks_release(struct assay_chunks *chunks);

/* digest(tokenizer, ids, scored range); generation parameters: none. */
struct assay_chunk_key assay_chunk_key_of(const struct assay_digest *tokenizer, const int32_t *ids, size_t tokens,
                                          size_t score_begin, size_t score_end);
