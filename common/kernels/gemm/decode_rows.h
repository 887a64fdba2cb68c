/* Between gemm.c and decode.c. */
#pragma once

#include "common/kernels/kernels.h"

/* Most rows that decode.c takes. */
#define ASSAY_DECODE_ROWS_MAX 2

/* assay_gemm, or assay_gemm_bf16 where the path has a decode_bf16, for 1 <= m <= ASSAY_DECODE_ROWS_MAX; the same bits.
 */
void assay_gemm_rows(const struct assay_gemm_ops *ops, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_panels *w, const float *bias, float *c, size_t ldc, bool bf16);
