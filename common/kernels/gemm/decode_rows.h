/* Between gemm.c and decode.c. */
#pragma once

#include "common/kernels/kernels.h"

/* Whether decode.c takes so many rows: what the path does at once, and where a panel has to be unpacked as much again
 * while it is in the cache. For more it pays to unpack it to memory. */
static inline bool assay_gemm_is_rows(const struct assay_gemm_ops *ops, const struct assay_panels *w, size_t m,
                                      bool bf16)
{
    size_t most = w->type == ASSAY_WEIGHTS_F32 && !bf16 ? ops->decode_rows : 2 * ops->decode_rows;
    return m >= 1 && m <= most && (!bf16 || ops->decode_bf16);
}

/* assay_gemm, or assay_gemm_bf16, for such m; the same bits. */
void assay_gemm_rows(const struct assay_gemm_ops *ops, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_panels *w, const float *bias, float *c, size_t ldc, bool bf16);
