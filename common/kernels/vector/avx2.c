#define ASSAY_LANES_AVX2
#include "common/kernels/paths.h"
#include "common/kernels/vector/body.h"

const struct assay_vector_ops assay_vector_ops__avx2 = VECTOR_OPS;
