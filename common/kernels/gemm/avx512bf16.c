#define ASSAY_LANES_AVX512
#define ASSAY_GEMM_DPBF16
#define TILE_ROWS 14
#define TILE_LANES 2
#include "common/kernels/gemm/body.h"
#include "common/kernels/paths.h"

const struct assay_gemm_ops assay_gemm_ops__avx512bf16 = GEMM_OPS;
