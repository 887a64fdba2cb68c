/* The byte-level BPE vocabulary of a GGUF file as the files of Hugging Face's tokenizers. Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

/* tokenizer.json and tokenizer_config.json. `vocab_max` is the number of rows of the embedding. UNIMPLEMENTED: another
 * kind of vocabulary than byte-level BPE, a pre-tokenizer that is not known (names those that are). INVALID_ARGUMENT:
 * no tokens, more than vocab_max, one that stands twice, token types that do not match, a merge that is not two parts,
 * ids of special tokens outside the vocabulary. */
enum assay_status assay_gguf_tokenizer(const struct assay_gguf *file, uint64_t vocab_max, struct assay_buf *ret_json,
                                       struct assay_buf *ret_config, struct assay_err *err) ASSAY_MUST_USE;
