#define ASSAY_LANES_AVX512
#define OPS assay_score_ops__avx512
#include "common/kernels/score/part.h"
