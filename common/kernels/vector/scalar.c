#include "common/kernels/paths.h"
#include "common/kernels/vector/body.h"

const struct assay_vector_ops assay_vector_ops__scalar = VECTOR_OPS;
