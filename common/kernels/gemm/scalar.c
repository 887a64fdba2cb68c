#define TILE_ROWS 4
#define TILE_LANES 1
#include "common/kernels/gemm/body.h"
#include "common/kernels/paths.h"

const struct assay_gemm_ops assay_gemm_ops__scalar = GEMM_OPS;
