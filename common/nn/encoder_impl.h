/* The inside of an encoder, for the files of this folder. */
#pragma once

#include "common/nn/encoder.h"
#include "common/nn/model_impl.h"

enum assay_encoder_linear {
    ASSAY_ENCODER_Q,
    ASSAY_ENCODER_K,
    ASSAY_ENCODER_V,
    ASSAY_ENCODER_O,
    ASSAY_ENCODER_UP,
    ASSAY_ENCODER_DOWN,
    ASSAY_ENCODER_LINEARS
};

struct assay_encoder_layer {
    struct assay_linear_weights linears[ASSAY_ENCODER_LINEARS];
    struct assay_norm_weights attention_norm, output_norm;
};

struct assay_encoder {
    struct assay_encoder_config config;
    const struct assay_kernels *kernels;
    void (*activation)(size_t n, float *x);
    float *words, *positions, *type; /* [vocab, hidden], [positions, hidden], [hidden]: that of type 0 */
    struct assay_norm_weights embedding_norm;
    struct assay_encoder_layer *layers;
    struct assay_linear_weights pooler, classifier; /* empty where the checkpoint has none */
    size_t bytes;
};
