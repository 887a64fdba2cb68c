/* Weights as quantized checkpoints store them: the layouts of bitsandbytes (nf4, with or without quantized scales) and
 * of compressed-tensors (int-quantized, 8 bits; pack-quantized, 4 bits; by tensor, row or group; symmetric or not), and
 * plain F32, F16 and BF16. All input is hostile. Not thread-safe. */
#pragma once

#include "common/base/arena.h"
#include "common/formats/checkpoint.h"

/* A tensor as the model means it. */
struct assay_stored {
    const char *name; /* "model.layers.0.mlp.up_proj.weight", in the arena */
    enum assay_dtype dtype;
    size_t rank;
    uint64_t shape[ASSAY_TENSOR_RANK_MAX];
    const struct assay_tensor *source; /* what holds its values or codes */
    enum { ASSAY_STORED_PLAIN, ASSAY_STORED_INT8, ASSAY_STORED_INT4, ASSAY_STORED_NF4 } layout;
};

/* What the model's tensors are, in the order of the checkpoint; scales and their like are part of those that they
 * belong to. Floating ones, quantized ones among them, have the dtype F32. UNIMPLEMENTED: a quantization that is none
 * of the above; INVALID_ARGUMENT: tensors that do not fit together. */
enum assay_status assay_stored_list(const struct assay_checkpoint *checkpoint, struct assay_arena *arena,
                                    struct assay_stored **ret, size_t *ret_count, struct assay_err *err) ASSAY_MUST_USE;

/* Its values as f32, in the arena. The tensor is F32. */
enum assay_status assay_stored_read(const struct assay_checkpoint *checkpoint, const struct assay_stored *stored,
                                    struct assay_arena *arena, float **ret, struct assay_err *err) ASSAY_MUST_USE;
