/* The inside of a cache, for the files of this folder. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/nn/cache.h"

struct assay_cache {
    struct assay_attention_shape shape;
    size_t tokens, tokens_max, layers;
    struct assay_kv *kv; /* [layers] */
};
