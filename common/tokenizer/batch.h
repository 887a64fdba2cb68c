/* Many texts at once, on all threads of a pool. */
#pragma once

#include "common/base/pool.h"
#include "common/tokenizer/tokenizer.h"

struct assay_text {
    const char *text;
    size_t len;
};

struct assay_encoded {
    int32_t *ids; /* malloc */
    size_t tokens;
};

/* encoded[i] is what assay_tokenizer_encode gives for texts[i]: the same for any number of threads. On failure nothing
 * is left, and the error is that of the first text that cannot be encoded, with its index. */
enum assay_status assay_tokenizer_encode_all(const struct assay_tokenizer *tokenizer, const struct assay_text *texts,
                                             size_t count, bool special, struct assay_pool *pool,
                                             struct assay_encoded *encoded, struct assay_err *err) ASSAY_MUST_USE;
/* Frees the ids and leaves them empty. */
void assay_encoded_release(struct assay_encoded *encoded, size_t count);
