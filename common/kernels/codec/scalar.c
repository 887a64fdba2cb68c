#define OPS assay_codec_ops__scalar
#include "common/kernels/codec/body.h"
