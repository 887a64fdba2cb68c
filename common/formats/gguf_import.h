/* A GGUF file made into a checkpoint directory in the Hugging Face layout. docs/FAMILIES.md says which. */
#pragma once

#include "common/formats/gguf.h"

/* After each of `total` tensors. False: stop with CANCELLED. */
typedef bool (*assay_gguf_progress_fn)(void *arg, size_t done, size_t total);

struct assay_gguf_summary {
    size_t tensors, f32, f16, bf16; /* how many were stored in what */
    uint64_t source_bytes;          /* of the tensors in the file */
    uint64_t bytes;                 /* of the tensors as stored */
};

/* Writes config.json, tokenizer.json or tokenizer.model, tokenizer_config.json and model.safetensors into `dir`, which
 * exists. Each tensor is stored in F16, else BF16, where that holds all of its values exactly, else in F32: the
 * checkpoint's values are the file's, bit for bit (norms of Gemma, which a file has with the 1 that the family adds:
 * less 1, rounded to f32). What is refused says so before a byte of weights is written; after a failure `dir` holds an
 * unknown part. `progress` may be NULL. */
enum assay_status assay_gguf_import(const struct assay_gguf *file, const char *dir, assay_gguf_progress_fn progress,
                                    void *arg, struct assay_gguf_summary *ret, struct assay_err *err) ASSAY_MUST_USE;
