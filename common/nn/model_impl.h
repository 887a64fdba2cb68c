/* The inside of a model, for the files of this folder. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/nn/family.h"
#include "common/nn/model.h"

struct assay_linear_weights {
    struct assay_panels panels;
    float *bias; /* [n] or NULL */
};

struct assay_layer {
    float *attention_norm, *mlp_norm; /* [hidden] */
    struct assay_linear_weights linears[ASSAY_LINEARS];
};

struct assay_model {
    struct assay_model_config config;
    const struct assay_kernels *kernels;
    struct assay_layer *layers;
    float *final_norm; /* [hidden] */
    enum assay_dtype embedding_dtype;
    void *embedding; /* [vocab, hidden] */
    size_t bytes;
};

/* What a checkpoint's quantization_config says, as far as we read it. */
struct assay_quantization {
    bool int8; /* compressed-tensors int-quantized, 8 bits, symmetric, by channel */
};

/* UNIMPLEMENTED names the value that we do not have. No quantization_config: all false. */
enum assay_status assay_quantization_read(const cJSON *config, const char *what, struct assay_quantization *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

/* NAME.weight [n, k], and NAME.weight_scale [n, 1] when it is int8, as panels. */
enum assay_status assay_panels_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                    const char *name, size_t n, size_t k, const struct assay_quantization *quantization,
                                    struct assay_panels *ret, struct assay_err *err) ASSAY_MUST_USE;

/* A tensor of exactly this name, rank and shape; NOT_FOUND or INVALID_ARGUMENT names it. `columns` 0 means rank 1. */
enum assay_status assay_tensor_get(const struct assay_checkpoint *checkpoint, const char *name, size_t rows,
                                   size_t columns, const struct assay_tensor **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;
