/* The vocabulary of a GGUF file as the files of Hugging Face's tokenizers. Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

/* *ret_text is the file *ret_name: "tokenizer.json" for byte-level BPE, "tokenizer.model" for sentencepiece;
 * *ret_config is tokenizer_config.json. `vocab_max` is the number of rows of the embedding. Placeholders that fill the
 * vocabulary up to it are left out. UNIMPLEMENTED: another kind of vocabulary, a pre-tokenizer that is not known (names
 * those that are), a character map of sentencepiece. INVALID_ARGUMENT: no tokens, more than vocab_max, one that stands
 * twice, token types or scores that do not match, a merge that is not two parts, ids of special tokens outside the
 * vocabulary. */
enum assay_status assay_gguf_tokenizer(const struct assay_gguf *file, uint64_t vocab_max, const char **ret_name,
                                       struct assay_buf *ret_text, struct assay_buf *ret_config,
                                       struct assay_err *err) ASSAY_MUST_USE;
