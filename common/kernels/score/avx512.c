#define OPS assay_score_ops__avx512
#include "common/kernels/score/body.h"
