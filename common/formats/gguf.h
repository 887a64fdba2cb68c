/* GGUF files, versions 2 and 3, little-endian, read through a mapping. All input is hostile.
 * Layout: magic, version, counts, key-value metadata, tensor descriptions, padding to `general.alignment`, tensor
 * bytes.
 */
#pragma once

#include "common/base/fs.h"

#define ASSAY_GGUF_RANK_MAX 4

/* Value types of the metadata, by the file's numbers. */
enum assay_gguf_type {
    ASSAY_GGUF_U8,
    ASSAY_GGUF_I8,
    ASSAY_GGUF_U16,
    ASSAY_GGUF_I16,
    ASSAY_GGUF_U32,
    ASSAY_GGUF_I32,
    ASSAY_GGUF_F32,
    ASSAY_GGUF_BOOL,
    ASSAY_GGUF_TEXT,
    ASSAY_GGUF_ARRAY,
    ASSAY_GGUF_U64,
    ASSAY_GGUF_I64,
    ASSAY_GGUF_F64,
};

/* Tensor types that are read, by the file's numbers. */
enum assay_ggml_type {
    ASSAY_GGML_F32 = 0,
    ASSAY_GGML_F16 = 1,
    ASSAY_GGML_Q4_0 = 2,
    ASSAY_GGML_Q4_1 = 3,
    ASSAY_GGML_Q5_0 = 6,
    ASSAY_GGML_Q5_1 = 7,
    ASSAY_GGML_Q8_0 = 8,
    ASSAY_GGML_Q2_K = 10,
    ASSAY_GGML_Q3_K = 11,
    ASSAY_GGML_Q4_K = 12,
    ASSAY_GGML_Q5_K = 13,
    ASSAY_GGML_Q6_K = 14,
    ASSAY_GGML_IQ4_NL = 20,
    ASSAY_GGML_IQ4_XS = 23,
    ASSAY_GGML_BF16 = 30,
};

/* UTF-8 without NUL, not terminated; points into the file. */
struct assay_gguf_text {
    const char *bytes;
    size_t len;
};

struct assay_gguf_tensor {
    const char *name;
    enum assay_ggml_type type;
    size_t rank;
    uint64_t shape[ASSAY_GGUF_RANK_MAX]; /* outermost first, as elsewhere here; the file has it the other way round */
    const void *data;                    /* not aligned */
    size_t bytes;
    uint64_t elements;
};

struct assay_gguf;

/* Refused, each with its own sentence: no GGUF, another version, big-endian; counts, texts and arrays beyond their
 * ceilings or the file; unknown value types, arrays of arrays; text that is not UTF-8 or holds NUL; a key or tensor
 * that stands twice; an alignment that is no power of two; tensors without dimensions, with more than 4, with a row
 * that is no whole number of blocks; offsets that are not aligned, lie beyond the file or overlap.
 * UNIMPLEMENTED: a tensor type outside enum assay_ggml_type, by its name. */
enum assay_status assay_gguf_open(const char *path, struct assay_gguf **ret, struct assay_err *err) ASSAY_MUST_USE;
/* The same over bytes that the caller keeps alive; `what` names them in errors. */
enum assay_status assay_gguf_parse(const void *bytes, size_t len, const char *what, struct assay_gguf **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_gguf_close(struct assay_gguf *file); /* NULL is fine; what points into the file becomes invalid */

const char *assay_gguf_what(const struct assay_gguf *file); /* its path */
size_t assay_gguf_count(const struct assay_gguf *file);
const struct assay_gguf_tensor *assay_gguf_at(const struct assay_gguf *file, size_t index);       /* by name order */
const struct assay_gguf_tensor *assay_gguf_find(const struct assay_gguf *file, const char *name); /* NULL: absent */

/* Elements [first, first + n) as f32, bit for bit what ggml's definition of the type gives (src/ggml-quants.c, one
 * rounding to f32 an operation): (q - zero)*d, q*d + m, table[q]*d, or d*scale*q - d_min*minimum. The range lies in the
 * tensor and both ends at whole blocks: multiples of 32, or of 256 for the K kinds and IQ4_XS. Cannot fail. Any thread.
 */
void assay_gguf_to_f32(const struct assay_gguf_tensor *tensor, uint64_t first, size_t n, float *dst);

/* Metadata. Absent keys leave *ret as it is when `required` is false and are INVALID_ARGUMENT when it is true; another
 * type or a value out of range always is. Integers of every width and sign are taken where they fit. */
bool assay_gguf_has(const struct assay_gguf *file, const char *key);
enum assay_status assay_gguf_get_int(const struct assay_gguf *file, const char *key, bool required, int64_t min,
                                     int64_t max, int64_t *ret, struct assay_err *err) ASSAY_MUST_USE;
/* F32 or F64. *ret of an F32 is the shortest decimal that rounds to it (1e-05 rather than 9.99999974737875e-06). */
enum assay_status assay_gguf_get_double(const struct assay_gguf *file, const char *key, bool required, double *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_gguf_get_bool(const struct assay_gguf *file, const char *key, bool required, bool *ret,
                                      struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_gguf_get_text(const struct assay_gguf *file, const char *key, bool required,
                                      struct assay_gguf_text *ret, struct assay_err *err) ASSAY_MUST_USE;
/* Arrays into *ret (malloc, caller frees) and *ret_count. */
enum assay_status assay_gguf_get_texts(const struct assay_gguf *file, const char *key, bool required,
                                       struct assay_gguf_text **ret, size_t *ret_count,
                                       struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_gguf_get_ints(const struct assay_gguf *file, const char *key, bool required, int64_t **ret,
                                      size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_gguf_get_floats(const struct assay_gguf *file, const char *key, bool required, float **ret,
                                        size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE; /* F32 alone */

bool assay_gguf_text_is(struct assay_gguf_text text, const char *word);
