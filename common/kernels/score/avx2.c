#define OPS assay_score_ops__avx2
#include "common/kernels/score/body.h"
