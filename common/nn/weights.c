/* Tensors of a checkpoint as weights. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static bool is_plain(enum assay_dtype dtype)
{
    return dtype == ASSAY_F32 || dtype == ASSAY_F16 || dtype == ASSAY_BF16;
}

static enum assay_status find_floats(const struct assay_checkpoint *checkpoint, const char *name, const char *part,
                                     size_t rows, size_t columns, const struct assay_tensor **ret,
                                     struct assay_err *err)
{
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.%s", name, part);
    enum assay_status status = assay_tensor_get(checkpoint, full, rows, columns, ret, err);
    if (status == ASSAY_OK && !is_plain((*ret)->dtype))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is %s, wanted F32, BF16 or F16",
                             assay_checkpoint_dir(checkpoint), full, assay_dtype_name((*ret)->dtype));
    return status;
}

enum assay_status assay_tensor_floats(const struct assay_checkpoint *checkpoint, const char *name, const char *part,
                                      size_t rows, size_t columns, float **ret, struct assay_err *err)
{
    const struct assay_tensor *tensor = NULL;
    enum assay_status status = find_floats(checkpoint, name, part, rows, columns, &tensor, err);
    if (status != ASSAY_OK)
        return status;
    size_t count = rows * (columns ? columns : 1);
    float *floats = malloc(count * sizeof *floats);
    if (!floats || !assay_dtype_to_f32(tensor->dtype, tensor->data, count, floats)) {
        free(floats);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", tensor->name);
    }
    *ret = floats;
    return ASSAY_OK;
}

enum assay_status assay_tensor_floats_check(const struct assay_checkpoint *checkpoint, const char *name,
                                            const char *part, size_t rows, size_t columns, struct assay_err *err)
{
    const struct assay_tensor *tensor = NULL;
    return find_floats(checkpoint, name, part, rows, columns, &tensor, err);
}

/* Tensors that would change what the weights mean. */
static enum assay_status refuse_parts(const struct assay_checkpoint *checkpoint, const char *name,
                                      const struct assay_quantization *quantization, struct assay_err *err)
{
    static const char *const unknown[] = {"weight_g_idx", "weight.quant_state.bitsandbytes__fp4", "SCB", "qweight",
                                          "weight_zero_point"};
    bool zeros = quantization->kind == ASSAY_QUANTIZATION_INT4 && !quantization->symmetric;
    for (size_t i = 0; i < ASSAY_COUNT(unknown) - (zeros ? 1 : 0); i++) {
        char full[NAME_MAX_BYTES];
        snprintf(full, sizeof full, "%s.%s", name, unknown[i]);
        if (assay_checkpoint_find(checkpoint, full))
            return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: weights with %s are not implemented",
                                 assay_checkpoint_dir(checkpoint), full);
    }
    return ASSAY_OK;
}

/* [k, n] to [n, k] by squares that stay in the cache; elements of `size` bytes. *ret is to be freed. */
static enum assay_status transpose(const struct assay_tensor *tensor, size_t n, size_t k, unsigned char **ret,
                                   struct assay_err *err)
{
    enum { SQUARE = 32 };
    size_t size = assay_dtype_bytes(tensor->dtype);
    const unsigned char *from = tensor->data;
    unsigned char *to = malloc(tensor->bytes);
    if (!to)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s, %zu bytes", tensor->name,
                             tensor->bytes);
    for (size_t row = 0; row < k; row += SQUARE)
        for (size_t column = 0; column < n; column += SQUARE)
            for (size_t i = row; i < ASSAY_MIN(row + SQUARE, k); i++)
                for (size_t j = column; j < ASSAY_MIN(column + SQUARE, n); j++)
                    memcpy(to + (j * k + i) * size, from + (i * n + j) * size, size);
    *ret = to;
    return ASSAY_OK;
}

static enum assay_status load_plain(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
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
        if (quantization->kind != ASSAY_QUANTIZATION_INT8)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: %s is I8, but config.json has no quantization_config of int8",
                                 assay_checkpoint_dir(checkpoint), full);
        status = assay_tensor_floats(checkpoint, name, "weight_scale", n, 1, &scales, err);
        if (status != ASSAY_OK)
            return status;
    }
    status = assay_panels_pack(pool, tensor->dtype, tensor->data, scales, n, k, ret, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "%s: %s", assay_checkpoint_dir(checkpoint), full);
    return status;
}

static enum assay_status load_transposed(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                         const struct assay_tensor *tensor, size_t n, size_t k,
                                         struct assay_panels *ret, struct assay_err *err)
{
    enum assay_status status = assay_tensor_get(checkpoint, tensor->name, k, n, &tensor, err);
    assay_auto(assay_free_ptr) unsigned char *turned = NULL;
    if (status == ASSAY_OK)
        status = transpose(tensor, n, k, &turned, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_panels_pack(pool, tensor->dtype, turned, NULL, n, k, ret, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "%s: %s", assay_checkpoint_dir(checkpoint), tensor->name);
    return status;
}

enum assay_status assay_panels_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                    const char *name, size_t n, size_t k, bool transposed,
                                    const struct assay_quantization *quantization, struct assay_panels *ret,
                                    struct assay_err *err)
{
    enum assay_status status = refuse_parts(checkpoint, name, quantization, err);
    if (status != ASSAY_OK)
        return status;
    char full[NAME_MAX_BYTES];
    snprintf(full, sizeof full, "%s.weight_packed", name);
    if (assay_checkpoint_find(checkpoint, full)) {
        if (quantization->kind == ASSAY_QUANTIZATION_INT4)
            return assay_panels_load_int4(checkpoint, pool, name, n, k, quantization, ret, err);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %s is there, but config.json has no quantization_config of pack-quantized weights",
                             assay_checkpoint_dir(checkpoint), full);
    }
    snprintf(full, sizeof full, "%s.weight", name);
    const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, full);
    if (tensor && tensor->dtype == ASSAY_U8) {
        if (quantization->kind == ASSAY_QUANTIZATION_NF4)
            return assay_panels_load_nf4(checkpoint, pool, name, n, k, ret, err);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %s is U8, but config.json has no quantization_config of bitsandbytes",
                             assay_checkpoint_dir(checkpoint), full);
    }
    if (transposed && tensor && is_plain(tensor->dtype))
        return load_transposed(checkpoint, pool, tensor, n, k, ret, err);
    return load_plain(checkpoint, pool, name, n, k, quantization, ret, err);
}

size_t assay_panels_plain_bytes(enum assay_dtype dtype, size_t n, size_t k)
{
    size_t rows = (n / ASSAY_PANEL + (n % ASSAY_PANEL != 0)) * ASSAY_PANEL;
    return rows * k * assay_dtype_bytes(dtype) + (dtype == ASSAY_I8 ? rows * sizeof(float) : 0);
}

enum assay_status assay_panels_check(const struct assay_checkpoint *checkpoint, const char *name, size_t n, size_t k,
                                     bool transposed, const struct assay_quantization *quantization, size_t *ret_bytes,
                                     struct assay_err *err)
{
    char full[NAME_MAX_BYTES];
    enum assay_status status = refuse_parts(checkpoint, name, quantization, err);
    if (status != ASSAY_OK)
        return status;
    snprintf(full, sizeof full, "%s.weight_packed", name);
    if (assay_checkpoint_find(checkpoint, full)) {
        *ret_bytes = assay_panels_int4_bytes(n, k, quantization);
        return ASSAY_OK;
    }
    snprintf(full, sizeof full, "%s.weight", name);
    const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, full);
    bool plain = !tensor || is_plain(tensor->dtype), turned = transposed && plain;
    if (tensor && tensor->dtype == ASSAY_U8) /* codes whose shape stands elsewhere */
        return assay_panels_measure_nf4(checkpoint, name, n, k, ret_bytes, err);
    if (!plain && tensor->dtype != ASSAY_I8)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: %s is %s; weights are F32, BF16, F16, or codes",
                             assay_checkpoint_dir(checkpoint), full, assay_dtype_name(tensor->dtype));
    status = assay_tensor_get(checkpoint, full, turned ? k : n, turned ? n : k, &tensor, err);
    if (status == ASSAY_OK)
        *ret_bytes = assay_panels_plain_bytes(tensor->dtype, n, k);
    return status;
}
