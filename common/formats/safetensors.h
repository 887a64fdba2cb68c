/* safetensors files, read through a mapping and written in one pass. All input is hostile.
 * Source: safetensors README, "Format": 8 bytes little-endian header length, JSON header, then the tensor bytes. */
#pragma once

#include "common/base/dtype.h"
#include "common/base/fs.h"

#define ASSAY_TENSOR_RANK_MAX 8

struct assay_tensor {
    const char *name;
    enum assay_dtype dtype;
    size_t rank;
    uint64_t shape[ASSAY_TENSOR_RANK_MAX];
    const void *data; /* row-major, little-endian; aligned to 1 byte only */
    size_t bytes;
};

/* Product of the shape; 1 for rank 0. Cannot overflow for a tensor that was read here. */
uint64_t assay_tensor_elements(const struct assay_tensor *tensor);

struct assay_safetensors;

/* Refused, each with its own sentence: file shorter than 8 bytes; header longer than the file or than the ceiling;
 * header that is not a JSON object; unknown dtype; rank above 8; product of shape and size that overflows or differs
 * from the offsets; offsets reversed, beyond the file (a truncated file), overlapping, or leaving holes; a name that
 * stands twice. */
enum assay_status assay_safetensors_open(const char *path, struct assay_safetensors **ret,
                                         struct assay_err *err) ASSAY_MUST_USE;
/* The same over bytes that the caller keeps alive (for fuzzing); `what` names them in errors. */
enum assay_status assay_safetensors_parse(const void *bytes, size_t len, const char *what,
                                          struct assay_safetensors **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_safetensors_close(struct assay_safetensors *file); /* NULL is fine; tensors become invalid */

size_t assay_safetensors_count(const struct assay_safetensors *file);
const struct assay_tensor *assay_safetensors_at(const struct assay_safetensors *file, size_t index); /* in file order */
/* NULL when absent. O(log n). */
const struct assay_tensor *assay_safetensors_find(const struct assay_safetensors *file, const char *name);
/* All bytes of the file, as mapped. */
const void *assay_safetensors_bytes(const struct assay_safetensors *file, size_t *ret_bytes);
/* Of the mapped file; zeros where the caller keeps the bytes. */
const struct assay_file_identity *assay_safetensors_identity(const struct assay_safetensors *file);
/* The tensor's bytes are not needed for now: where they lie in a mapped file, its pages leave the process's memory and
 * come back when they are read again. Does nothing for a tensor of another file. */
void assay_safetensors_forget(const struct assay_safetensors *file, const struct assay_tensor *tensor);
/* A string of __metadata__, or NULL. */
const char *assay_safetensors_metadata(const struct assay_safetensors *file, const char *key);

/* Writer: declare all tensors (data ignored), then append each one's bytes in the declared order, in pieces of any
 * size. Tensors are laid out in the declared order, the data begin at a multiple of 8: declared from wide to narrow
 * dtypes, each is aligned to its own size, which PyTorch wants. The metadata are {"format": "pt"}. Same input, same
 * bytes. */
struct assay_safetensors_writer;
enum assay_status assay_safetensors_create(const char *path, const struct assay_tensor *tensors, size_t count,
                                           struct assay_safetensors_writer **ret, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_safetensors_append(struct assay_safetensors_writer *writer, const void *bytes, size_t len,
                                           struct assay_err *err) ASSAY_MUST_USE;
/* Checks that every declared byte came, syncs, closes. The writer is freed whatever the outcome. */
enum assay_status assay_safetensors_finish(struct assay_safetensors_writer *writer,
                                           struct assay_err *err) ASSAY_MUST_USE;
void assay_safetensors_abandon(struct assay_safetensors_writer *writer); /* closes; leaves the file; NULL is fine */
