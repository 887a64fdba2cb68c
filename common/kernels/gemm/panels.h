/* Panels as they lie in memory, for the files of this folder. */
#pragma once

#include "common/kernels/kernels.h"

/* Bytes of a block of 4-bit codes: four values of k of a panel. */
#define ASSAY_BLOCK_BYTES ((size_t)64)
#define ASSAY_BLOCK_DEPTH ((size_t)4)

/* Aligned to 64 bytes, as vector loads like it; to be freed. NULL where there is no room. */
void *assay_panels_room(size_t bytes);

static inline size_t assay_panels_count(const struct assay_panels *w)
{
    return w->n / ASSAY_PANEL + (w->n % ASSAY_PANEL != 0);
}

/* Bytes from one block of a panel of 4-bit codes to its next one: another panel's lie between them, but for the last
 * of an odd number. */
static inline size_t assay_codes_stride(const struct assay_panels *w, size_t panel)
{
    return (panel | 1) < assay_panels_count(w) ? 2 * ASSAY_BLOCK_BYTES : ASSAY_BLOCK_BYTES;
}

/* The first block of a panel of 4-bit codes. */
static inline uint8_t *assay_codes_at(const struct assay_panels *w, size_t panel)
{
    size_t blocks = (w->k + ASSAY_BLOCK_DEPTH - 1) / ASSAY_BLOCK_DEPTH;
    return (uint8_t *)w->data + (panel / 2 * 2 * blocks + panel % 2) * ASSAY_BLOCK_BYTES;
}

/* What values [begin, begin + depth) of k of a panel of 4-bit codes are. `begin` is a multiple of ASSAY_BLOCK_DEPTH. */
void assay_codes_unpack(const struct assay_gemm_ops *ops, const struct assay_panels *w, size_t panel, size_t begin,
                        size_t depth, float *dst);
