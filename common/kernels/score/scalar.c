#define OPS assay_score_ops__scalar
#include "common/kernels/score/part.h"
