/* Tensors of a checkpoint as weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/nn/model_impl.h"

#define NAME_MAX_BYTES 256

enum assay_status assay_tensor_get(const struct assay_checkpoint *checkpoint, const char *name, size_t rows,
                                   size_t columns, const struct assay_tensor **ret, struct assay_err *err)
{
    const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, name);
    if (!tensor)
        return assay_err_set(err, ASSAY_NOT_FOUND, "%s: the tensor %s is missing", assay_checkpoint_dir(checkpoint),
                             name);
    size_t rank = columns ? 2 : 1;
    if (tensor->rank == rank && tensor->shape[0] == rows && (rank == 1 || tensor->shape[1] == columns)) {
        *ret = tensor;
        return ASSAY_OK;
    }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                         "%s: %s has rank %zu and begins with %llu x %llu, wanted %zu x %zu",
                         assay_checkpoint_dir(checkpoint), name, tensor->rank,
                         (unsigned long long)(tensor->rank > 0 ? tensor->shape[0] : 1),
                         (unsigned long long)(tensor->rank > 1 ? tensor->shape[1] : 1), rows, columns ? columns : 1);
}

/* The scales of an int8 tensor as f32; *ret is to be freed. */
static enum assay_status load_scales(const struct assay_checkpoint *checkpoint, const char *name, size_t n, float **ret,
                                     struct assay_err *err)
{
    char full[NAME_MAX_BYTES];
    static const char *const unknown[] = {"weight_zero_point", "weight_g_idx"};
    for (size_t i = 0; i < ASSAY_COUNT(unknown); i++) {
        snprintf(full, sizeof full, "%s.%s", name, unknown[i]);
        if (assay_checkpoint_find(checkpoint, full))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: int8 weights with %s are not implemented",
                                 assay_checkpoint_dir(checkpoint), full);
    }
    snprintf(full, sizeof full, "%s.weight_scale", name);
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(checkpoint, full, n, 1, &tensor, err);
    if (status != ASSAY_OK)
        return status;
    float *scales = malloc(n * sizeof *scales);
    if (!scales)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", full);
    if (!assay_dtype_to_f32(tensor->dtype, tensor->data, n, scales)) {
        free(scales);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is %s, wanted F32, BF16 or F16",
                             assay_checkpoint_dir(checkpoint), full, assay_dtype_name(tensor->dtype));
    }
    *ret = scales;
    return ASSAY_OK;
}

enum assay_status assay_panels_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                    const char *name, size_t n, size_t k, const struct assay_quantization *quantization,
                                    struct assay_panels *ret, struct assay_err *err)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.weight", name);
    const struct assay_tensor *tensor;
    enum assay_status status = assay_tensor_get(checkpoint, full, n, k, &tensor, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_free_ptr) float *scales = NULL;
    if (tensor->dtype == ASSAY_I8) {
        if (!quantization->int8)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: %s is I8, but config.json has no quantization_config",
                                 assay_checkpoint_dir(checkpoint), full);
        status = load_scales(checkpoint, name, n, &scales, err);
        if (status != ASSAY_OK)
            return status;
    }
    status = assay_panels_pack(pool, tensor->dtype, tensor->data, scales, n, k, ret, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "%s: %s", assay_checkpoint_dir(checkpoint), full);
    return status;
}
