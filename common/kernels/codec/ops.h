/* The tables that select.c chooses from. */
#pragma once

#include "common/kernels/codec/codec.h"

extern const struct assay_codec_ops assay_codec_ops__scalar;
#ifdef ASSAY_KERNELS_X86
extern const struct assay_codec_ops assay_codec_ops__avx2, assay_codec_ops__avx512;
#endif
