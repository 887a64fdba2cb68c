#define ASSAY_LANES_AVX2
#define OPS assay_score_ops__avx2
#include "common/kernels/score/part.h"
