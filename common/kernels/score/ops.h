/* The tables that select.c chooses from. */
#pragma once

#include "common/kernels/score/score.h"

extern const struct assay_score_ops assay_score_ops__scalar;
#ifdef ASSAY_KERNELS_X86
extern const struct assay_score_ops assay_score_ops__avx2, assay_score_ops__avx512;
#endif
