#define ASSAY_LANES_AVX2
#define TILE_ROWS 6
#define TILE_LANES 1
#include "common/kernels/gemm/body.h"
#include "common/kernels/paths.h"

const struct assay_gemm_ops assay_gemm_ops__avx2 = GEMM_OPS;
