/* Many texts at once, on all threads of a pool. */
#pragma once

#include "common/base/pool.h"
#include "common/tokenizer/tokenizer.h"

struct assay_text {
    const char *text;
    size_t len;
};

struct assay_encoded {
    int32_t *ids, *types; /* [tokens], malloc */
    size_t tokens;
};

/* encoded[i] is what assay_tokenizer_encode_within gives for texts[i], or for that and pairs[i] (`pairs` may be NULL):
 * the same for any number of threads. On failure nothing is left, and the error is that of the first text that cannot
 * be encoded, with its index. */
enum assay_status assay_tokenizer_encode_all(const struct assay_tokenizer *tokenizer, const struct assay_text *texts,
                                             const struct assay_text *pairs, size_t count, size_t tokens_max,
                                             struct assay_pool *pool, struct assay_encoded *encoded,
                                             struct assay_err *err) ASSAY_MUST_USE;
/* Frees ids and types and leaves them empty. */
void assay_encoded_release(struct assay_encoded *encoded, size_t count);
