/* Attention of sequences that grow against attention over the whole: the same bits with f32, and those of the rounded
 * keys and values with what is kept smaller. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/check_support.h"

#define ROWS 101

static const struct assay_attention_shape shapes[] = {
    {.heads = 4, .kv_heads = 4, .head_dim = 16, .scale = 0.25f},
    {.heads = 6, .kv_heads = 2, .head_dim = 40, .scale = 0.158f},
    {.heads = 14, .kv_heads = 2, .head_dim = 64, .scale = 0.125f},
    {.heads = 8, .kv_heads = 1, .head_dim = 32, .scale = 0.18f, .window = 33},
    {.heads = 2, .kv_heads = 2, .head_dim = 16, .scale = 0.25f, .window = 1},
    {.heads = 3, .kv_heads = 3, .head_dim = 24, .scale = 0.3f, .soft_cap = 3, .value_dim = 16},
    {.heads = 4, .kv_heads = 2, .head_dim = 24, .scale = 0.3f, .window = 100, .soft_cap = 5, .value_dim = 40},
};

static struct assay_err err = ASSAY_ERR_INIT;

struct sequence {
    struct guarded q, k, v, out;
    size_t query, key, value; /* floats of one row */
};

static struct sequence sequence_new(const struct assay_attention_shape *shape, uint32_t seed)
{
    size_t wide = shape->value_dim ? shape->value_dim : shape->head_dim;
    struct sequence s = {.query = shape->heads * shape->head_dim,
                         .key = shape->kv_heads * shape->head_dim,
                         .value = shape->kv_heads * wide};
    noise_seed(seed);
    s.q = guarded_noise(ROWS * s.query);
    s.k = guarded_noise(ROWS * s.key);
    s.v = guarded_noise(ROWS * s.value);
    s.out = guarded_new(ROWS * shape->heads * wide);
    for (size_t i = 0; i < s.q.n; i++)
        s.q.x[i] *= 4;
    return s;
}

static void sequence_free(struct sequence *s)
{
    guarded_free(&s->q);
    guarded_free(&s->k);
    guarded_free(&s->v);
    guarded_free(&s->out);
}

static float *workspace_new(size_t floats)
{
    assert_true(floats > 0);
    float *workspace = aligned_alloc(64, (floats * sizeof *workspace + 63) / 64 * 64);
    assert_non_null(workspace);
    memset(workspace, 0xff, floats * sizeof *workspace);
    return workspace;
}

static void attend_whole(const struct assay_kernels *kernels, const struct assay_attention_shape *shape,
                         struct sequence *s)
{
    const struct assay_attention_span span = {0, ROWS};
    float *workspace = workspace_new(assay_attention_workspace(shape, &span, 1, 1));
    assay_attention(kernels, pool_of(1), shape, &span, 1, s->q.x, s->k.x, s->v.x, s->out.x, workspace);
    free(workspace);
}

/* Both sequences by turns of their own: the first begins with many rows, the second row by row. */
static void attend_growing(const struct assay_kernels *kernels, size_t threads, enum assay_dtype dtype,
                           const struct assay_attention_shape *shape, struct sequence two[2])
{
    static const size_t steps[2][6] = {{57, 1, 1, 31, 5, 2}, {1, 1, 33, 1, 5, 1}};
    struct assay_kv kv[2];
    size_t past[2] = {0, 0}, wide = shape->value_dim ? shape->value_dim : shape->head_dim;
    size_t out_width = shape->heads * wide;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(assay_kv_new(shape, dtype, ROWS, &kv[i], &err), ASSAY_OK);
    float *q = calloc(2 * ROWS * two[0].query, sizeof *q), *out = calloc(2 * ROWS * out_width, sizeof *out);
    for (size_t turn = 0; past[0] < ROWS || past[1] < ROWS; turn++) {
        struct assay_attention_growth growths[2];
        size_t rows = 0, count = 0;
        for (size_t i = 0; i < 2; i++) {
            size_t tokens = ASSAY_MIN(steps[i][turn % 6], ROWS - past[i]);
            if (tokens == 0)
                continue;
            assay_kv_put(shape, &kv[i], past[i], tokens, two[i].k.x + past[i] * two[i].key,
                         two[i].v.x + past[i] * two[i].value);
            memcpy(q + rows * two[i].query, two[i].q.x + past[i] * two[i].query, tokens * two[i].query * sizeof *q);
            growths[count++] = (struct assay_attention_growth){rows, tokens, past[i], &kv[i]};
            rows += tokens;
        }
        float *workspace = workspace_new(assay_attention_growth_workspace(shape, growths, count, threads));
        assay_attention_grow(kernels, pool_of(threads), shape, growths, count, q, out, workspace);
        free(workspace);
        for (size_t g = 0; g < count; g++) {
            size_t i = growths[g].kv == &kv[0] ? 0 : 1;
            memcpy(two[i].out.x + past[i] * out_width, out + growths[g].first * out_width,
                   growths[g].tokens * out_width * sizeof *out);
            past[i] += growths[g].tokens;
        }
    }
    free(q);
    free(out);
    for (size_t i = 0; i < 2; i++) {
        assert_true(assay_kv_bytes(shape, &kv[i]) > 0);
        assay_kv_release(&kv[i]);
    }
}

/* The values that a dtype keeps, by their definition. */
static void round_rows(enum assay_dtype dtype, size_t width, struct guarded *x)
{
    for (size_t at = 0; at < x->n; at += width) {
        float largest = 0;
        for (size_t i = 0; i < width; i++)
            largest = fmaxf(largest, fabsf(x->x[at + i]));
        for (size_t i = 0; i < width; i++) {
            float *value = &x->x[at + i];
            if (dtype == ASSAY_F16)
                *value = assay_f16_to_f32(assay_f32_to_f16(*value));
            else if (dtype == ASSAY_BF16)
                *value = assay_bf16_to_f32(assay_f32_to_bf16(*value));
            else if (dtype == ASSAY_I8)
                *value = rintf(*value / (largest / 127)) * (largest / 127);
        }
    }
}

static void want_growth_like_whole(enum assay_dtype dtype, const struct assay_attention_shape *shape, size_t index)
{
    const struct assay_kernels *kernels;
    size_t wide = shape->value_dim ? shape->value_dim : shape->head_dim;
    struct sequence whole[2] = {sequence_new(shape, 3), sequence_new(shape, 4)};
    for (size_t i = 0; i < 2; i++) {
        round_rows(dtype, shape->head_dim, &whole[i].k);
        round_rows(dtype, wide, &whole[i].v);
        attend_whole(assay_kernels_at(0), shape, &whole[i]);
    }
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        struct sequence grown[2] = {sequence_new(shape, 3), sequence_new(shape, 4)};
        attend_growing(kernels, 1 + path % 3, dtype, shape, grown);
        for (size_t i = 0; i < 2; i++) {
            want_same_bits(grown[i].out.x, whole[i].out.x, whole[i].out.n, kernels->name, assay_dtype_name(dtype),
                           index);
            sequence_free(&grown[i]);
        }
    }
    sequence_free(&whole[0]);
    sequence_free(&whole[1]);
}

static void sequences_that_grow_get_the_bits_of_the_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(shapes); i++)
        want_growth_like_whole(ASSAY_F32, &shapes[i], i);
}

static void what_is_kept_smaller_is_used_exactly_as_kept(void **state)
{
    (void)state;
    static const enum assay_dtype dtypes[] = {ASSAY_F16, ASSAY_BF16, ASSAY_I8};
    for (size_t d = 0; d < ASSAY_COUNT(dtypes); d++) {
        want_growth_like_whole(dtypes[d], &shapes[2], 2);
        want_growth_like_whole(dtypes[d], &shapes[6], 6);
    }
}

static void other_dtypes_and_sizes_are_refused(void **state)
{
    (void)state;
    struct assay_kv kv = {0};
    assert_int_equal(assay_kv_new(&shapes[0], ASSAY_F64, 1, &kv, &err), ASSAY_UNIMPLEMENTED);
    assert_int_equal(assay_kv_new(&shapes[0], ASSAY_F32, SIZE_MAX / 4, &kv, &err), ASSAY_RESOURCE_EXHAUSTED);
    assert_int_equal(assay_kv_new(&shapes[0], ASSAY_I8, SIZE_MAX, &kv, &err), ASSAY_RESOURCE_EXHAUSTED);
    assert_null(kv.keys);
}

static void zeros_and_the_smallest_numbers_are_kept_as_codes(void **state)
{
    (void)state;
    const struct assay_attention_shape *shape = &shapes[4];
    struct assay_kv kv;
    float k[32] = {0}, v[32] = {0};
    v[0] = 2.66e-43f; /* 190 times the smallest number: its scale is rounded to one */
    assert_int_equal(assay_kv_new(shape, ASSAY_I8, 1, &kv, &err), ASSAY_OK);
    assay_kv_put(shape, &kv, 0, 1, k, v);
    assert_true(kv.scales[0] == 0 && ((int8_t *)kv.keys)[0] == 0);
    assert_int_equal(((int8_t *)kv.values)[0], 127);
    assay_kv_release(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_that_grow_get_the_bits_of_the_whole),
        cmocka_unit_test(what_is_kept_smaller_is_used_exactly_as_kept),
        cmocka_unit_test(other_dtypes_and_sizes_are_refused),
        cmocka_unit_test(zeros_and_the_smallest_numbers_are_kept_as_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
