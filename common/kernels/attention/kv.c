/* Keys and values of sequences that grow. */
#include <math.h>
#include <stdlib.h>

#include "common/kernels/attention/rows.h"

static size_t values_width(const struct assay_attention_shape *shape)
{
    return round_up(value_dim(shape), ASSAY_PANEL);
}

enum assay_status assay_kv_new(const struct assay_attention_shape *shape, enum assay_dtype dtype, size_t tokens,
                               struct assay_kv *ret, struct assay_err *err)
{
    if (dtype != ASSAY_F32 && dtype != ASSAY_F16 && dtype != ASSAY_BF16 && dtype != ASSAY_I8)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "keys and values as %s, wanted F32, F16, BF16 or I8",
                             assay_dtype_name(dtype));
    size_t room, keys, values, each = assay_dtype_bytes(dtype) * shape->kv_heads;
    struct assay_kv kv = {.dtype = dtype};
    bool overflow = __builtin_add_overflow(tokens, ASSAY_PANEL - 1, &room);
    kv.capacity = room / ASSAY_PANEL * ASSAY_PANEL;
    overflow |= __builtin_mul_overflow(kv.capacity, each * shape->head_dim, &keys) ||
                __builtin_mul_overflow(kv.capacity, each * values_width(shape), &values);
    if (!overflow && tokens > 0) {
        kv.keys = calloc(1, keys);
        kv.values = calloc(1, values);
        if (dtype == ASSAY_I8)
            kv.scales = calloc(2 * shape->kv_heads * kv.capacity, sizeof *kv.scales);
    }
    if (!kv.keys || !kv.values || (dtype == ASSAY_I8 && !kv.scales)) {
        assay_kv_release(&kv);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for keys and values of %zu tokens", tokens);
    }
    *ret = kv;
    return ASSAY_OK;
}

void assay_kv_release(struct assay_kv *kv)
{
    free(kv->keys);
    free(kv->values);
    free(kv->scales);
    *kv = (struct assay_kv){0};
}

size_t assay_kv_bytes(const struct assay_attention_shape *shape, const struct assay_kv *kv)
{
    size_t elements = kv->capacity * shape->kv_heads;
    return elements * (shape->head_dim + values_width(shape)) * assay_dtype_bytes(kv->dtype) +
           (kv->scales ? 2 * elements * sizeof *kv->scales : 0);
}

/* What a code of I8 is worth. */
static float scale_of(size_t n, const float *x)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    return largest / 127;
}

/* x[i] for i < n becomes element at + i * step. */
static void put_row(enum assay_dtype dtype, float scale, void *to, size_t at, size_t step, size_t n, const float *x)
{
    switch (dtype) {
    case ASSAY_F16:
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[at + i * step] = assay_f32_to_f16(x[i]);
        break;
    case ASSAY_BF16:
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[at + i * step] = assay_f32_to_bf16(x[i]);
        break;
    case ASSAY_I8:
        /* A scale below the normal numbers is rounded so much that a quotient could leave the range. */
        for (size_t i = 0; i < n; i++)
            ((int8_t *)to)[at + i * step] =
                scale > 0 ? (int8_t)fmaxf(-127, fminf(127, rintf(x[i] / scale))) : (int8_t)0;
        break;
    default:
        for (size_t i = 0; i < n; i++)
            ((float *)to)[at + i * step] = x[i];
        break;
    }
}

static void put_token(const struct assay_attention_shape *shape, struct assay_kv *kv, size_t head, size_t token,
                      const float *k, const float *v)
{
    size_t dim = shape->head_dim, wide = value_dim(shape), capacity = kv->capacity;
    size_t panel = token / ASSAY_PANEL * ASSAY_PANEL;
    float key_scale = kv->scales ? scale_of(dim, k) : 1, value_scale = kv->scales ? scale_of(wide, v) : 1;
    put_row(kv->dtype, key_scale, kv->keys, (head * capacity + panel) * dim + token % ASSAY_PANEL, ASSAY_PANEL, dim, k);
    for (size_t i = 0; i < wide; i += ASSAY_PANEL)
        put_row(kv->dtype, value_scale, kv->values,
                head * capacity * values_width(shape) + i * capacity + token * ASSAY_PANEL, 1,
                ASSAY_MIN(wide - i, (size_t)ASSAY_PANEL), v + i);
    if (kv->scales) {
        kv->scales[head * capacity + token] = key_scale;
        kv->scales[(shape->kv_heads + head) * capacity + token] = value_scale;
    }
}

void assay_kv_put(const struct assay_attention_shape *shape, struct assay_kv *kv, size_t past, size_t tokens,
                  const float *k, const float *v)
{
    size_t heads = shape->kv_heads;
    for (size_t t = 0; t < tokens; t++)
        for (size_t head = 0; head < heads; head++)
            put_token(shape, kv, head, past + t, k + (t * heads + head) * shape->head_dim,
                      v + (t * heads + head) * value_dim(shape));
}
