#define OPS assay_codec_ops__avx2
#include "common/kernels/codec/body.h"
