/* Element types, by the names safetensors uses, and exact conversions to f32. Any thread. */
#pragma once

#include "common/base/status.h"

#define ASSAY_DTYPE_MAP(X)                                                                                             \
    X(BOOL, 1)                                                                                                         \
    X(U8, 1)                                                                                                           \
    X(I8, 1)                                                                                                           \
    X(I16, 2)                                                                                                          \
    X(U16, 2)                                                                                                          \
    X(F16, 2)                                                                                                          \
    X(BF16, 2)                                                                                                         \
    X(I32, 4)                                                                                                          \
    X(U32, 4)                                                                                                          \
    X(F32, 4)                                                                                                          \
    X(F64, 8)                                                                                                          \
    X(I64, 8)                                                                                                          \
    X(U64, 8)

enum assay_dtype {
#define ASSAY_DTYPE_ENUM(name, bytes) ASSAY_##name,
    ASSAY_DTYPE_MAP(ASSAY_DTYPE_ENUM)
#undef ASSAY_DTYPE_ENUM
};

const char *assay_dtype_name(enum assay_dtype dtype);
size_t assay_dtype_bytes(enum assay_dtype dtype);
/* False for a name that is not in the map. */
bool assay_dtype_parse(const char *name, enum assay_dtype *ret);

float assay_f16_to_f32(uint16_t half);    /* exact, subnormals and NaN included */
float assay_bf16_to_f32(uint16_t bfloat); /* exact */
uint16_t assay_f32_to_f16(float value);   /* round to nearest even; overflow to infinity */
uint16_t assay_f32_to_bf16(float value);  /* round to nearest even; NaN stays NaN */

/* n elements of an F32, F16 or BF16 array to f32, exactly. False for another dtype. No alignment is assumed of `src`.
 */
bool assay_dtype_to_f32(enum assay_dtype dtype, const void *src, size_t n, float *dst);
