/* Between gemm.c and decode.c. */
#pragma once

#include "common/kernels/kernels.h"

/* Whether decode.c takes so many rows: what the path does at once, and where a panel has to be unpacked as much again
 * while it is in the cache. For more it pays to unpack it to memory. */
static inline bool assay_gemm_is_rows(const struct assay_gemm_ops *ops, const struct assay_panels *w, size_t m,
                                      bool bf16)
{
    size_t most = w->type == ASSAY_WEIGHTS_F32 && !bf16 ? ops->decode_rows : 2 * ops->decode_rows;
    return m >= 1 && m <= most && w->n > 0 && (!bf16 || ops->decode_bf16);
}

/* assay_gemm_several for such m, which each of the products has; the same bits. */
void assay_gemm_rows(const struct assay_gemm_ops *ops, struct assay_pool *pool, size_t m, const float *a, size_t lda,
                     const struct assay_product *products, size_t count, bool bf16);
