/* Products with 4-bit weights, and products whose operands are rounded to bf16. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/check_support.h"

/* m, n, k, group. Groups that divide a row, that do not, and that are longer than one. */
static const size_t shapes[][4] = {
    {1, 1, 1, 64},      {3, 33, 64, 64},  {5, 64, 96, 64},    {15, 40, 172, 64}, {2, 31, 513, 32},   {7, 70, 1100, 64},
    {29, 32, 128, 128}, {4, 3, 33, 4096}, {16, 96, 576, 128}, {1, 300, 172, 64}, {2, 300, 192, 64},  {1, 131, 130, 128},
    {2, 97, 66, 6},     {1, 64, 7, 64},   {6, 97, 200, 64},   {8, 64, 131, 131}, {2, 20, 1026, 2048}};

static size_t random_below(size_t n)
{
    return (size_t)((double)(noise() + 1.0f) * 0.5 * (double)n) % n;
}

/* Blocks of the flat tensor with a table, the first code in the high half. */
static struct weights table_new(size_t n, size_t k, size_t group)
{
    struct weights w = {.values = malloc(n * k * sizeof(float))};
    size_t groups = (n * k + group - 1) / group;
    uint8_t *codes = calloc(1, (n * k + 1) / 2);
    float *scales = malloc(groups * sizeof *scales), table[16];
    assert_true(w.values && codes && scales);
    for (size_t i = 0; i < 16; i++)
        table[i] = noise();
    for (size_t i = 0; i < groups; i++)
        scales[i] = fabsf(noise());
    for (size_t i = 0; i < n * k; i++) {
        size_t code = random_below(16);
        codes[i / 2] |= (uint8_t)(i % 2 ? code : code << 4);
        w.values[i] = table[code] * scales[i / group];
    }
    struct assay_codes src = {.codes = codes,
                              .high_first = true,
                              .row_codes = k,
                              .group = group,
                              .row_span = k,
                              .groups = groups,
                              .scales = scales,
                              .table = table};
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_panels_pack_codes(pool_of(2), &src, n, k, &w.panels, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    /* Codes stay codes, and there is one scale for each group. */
    size_t panels = (n + ASSAY_PANEL - 1) / ASSAY_PANEL;
    bool even = k % group == 0 && (k == group || group % 4 == 0);
    size_t kept = even ? panels * ASSAY_PANEL * (k / group) : groups;
    assert_int_equal(w.panels.bytes, panels * ((k + 3) / 4) * 64 + kept * sizeof(float));
    free(codes);
    free(scales);
    return w;
}

/* Groups within rows with zero points, rows in whole words of eight codes, the first code in the low half. */
static struct weights int4_new(size_t n, size_t k, size_t group)
{
    struct weights w = {.values = malloc(n * k * sizeof(float))};
    size_t per_row = (k + group - 1) / group, row_codes = (k + 7) / 8 * 8;
    uint8_t *codes = calloc(1, n * row_codes / 2), *zeros = malloc(n * per_row);
    float *scales = malloc(n * per_row * sizeof *scales);
    assert_true(w.values && codes && scales && zeros);
    for (size_t i = 0; i < n * per_row; i++) {
        scales[i] = 0.01f + 0.1f * fabsf(noise());
        zeros[i] = (uint8_t)random_below(16);
    }
    for (size_t r = 0; r < n; r++)
        for (size_t kk = 0; kk < k; kk++) {
            size_t code = random_below(16), at = r * row_codes + kk, g = r * per_row + kk / group;
            codes[at / 2] |= (uint8_t)(at % 2 ? code << 4 : code);
            w.values[r * k + kk] = (float)((int)code - (int)zeros[g]) * scales[g];
        }
    struct assay_codes src = {.codes = codes,
                              .row_codes = row_codes,
                              .group = group,
                              .row_span = per_row * group,
                              .groups = n * per_row,
                              .scales = scales,
                              .zeros = zeros};
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_panels_pack_codes(pool_of(2), &src, n, k, &w.panels, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    free(codes);
    free(scales);
    free(zeros);
    return w;
}

void weights_of_4_bits_multiply_as_their_decoded_values(void **state)
{
    (void)state;
    const struct assay_kernels *kernels;
    for (size_t s = 0; s < 2 * ASSAY_COUNT(shapes); s++) {
        const size_t *shape = shapes[s / 2];
        size_t m = shape[0], n = shape[1], k = shape[2];
        struct weights w = s % 2 ? int4_new(n, k, shape[3]) : table_new(n, k, shape[3]);
        struct guarded a = guarded_noise(m * k), want = guarded_new(m * n);
        chain(m, a.x, &w, NULL, want.x);
        for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
            struct guarded got = guarded_new(m * n);
            assay_gemm(kernels, pool_of(1 + path % 3), m, a.x, k, &w.panels, NULL, got.x, n);
            want_same_bits(got.x, want.x, m * n, kernels->name, s % 2 ? "int4" : "table", s / 2);
            guarded_free(&got);
        }
        guarded_free(&a);
        guarded_free(&want);
        weights_free(&w);
    }
}

static float flushed(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

static float rounded(float x)
{
    return assay_bf16_to_f32(assay_f32_to_bf16(flushed(x)));
}

/* One step. Tininess is seen after rounding to 24 bits of any exponent; the sum is exact in long double near there. */
static float step(float a, float b, float c)
{
    float r = fmaf(a, b, c);
    long double exact = (long double)a * (long double)b + (long double)c;
    if (fabsl(exact) < 0x1p-120L && fabsf((float)(exact * 0x1p100L)) < 0x1p-26f)
        return copysignf(0.0f, r);
    return r;
}

/* An odd k ends with a product of zeros. */
static void chain_bf16(size_t m, const float *a, const struct weights *w, const float *bias, float *c)
{
    size_t n = w->panels.n, k = w->panels.k;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t kk = 0; kk < k; kk++)
                sum = step(rounded(a[i * k + kk]), rounded(w->values[j * k + kk]), sum);
            sum = k % 2 ? step(0.0f, 0.0f, sum) : sum;
            c[i * n + j] = bias ? sum + bias[j] : sum;
        }
}

static void check_bf16(size_t m, const float *a, const struct weights *w, const float *bias, const char *what,
                       size_t size)
{
    const struct assay_kernels *kernels;
    struct guarded want = guarded_new(m * w->panels.n);
    chain_bf16(m, a, w, bias, want.x);
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        struct guarded got = guarded_new(m * w->panels.n);
        assay_gemm_bf16(kernels, pool_of(1 + path % 3), m, a, w->panels.k, &w->panels, bias, got.x, w->panels.n);
        want_same_bits(got.x, want.x, m * w->panels.n, kernels->name, what, size);
        guarded_free(&got);
    }
    guarded_free(&want);
}

/* Noise as F32 or BF16 panels. */
static struct weights plain_new(enum assay_dtype dtype, size_t n, size_t k, float scale)
{
    struct weights w = {.values = malloc(n * k * sizeof(float))};
    uint16_t *halves = malloc(n * k * sizeof *halves);
    assert_true(w.values && halves);
    for (size_t i = 0; i < n * k; i++) {
        float x = noise() * scale;
        halves[i] = assay_f32_to_bf16(x);
        w.values[i] = dtype == ASSAY_BF16 ? assay_bf16_to_f32(halves[i]) : x;
    }
    const void *src = dtype == ASSAY_BF16 ? (const void *)halves : w.values;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_panels_pack(pool_of(2), dtype, src, NULL, n, k, &w.panels, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    free(halves);
    return w;
}

static struct weights kind_new(size_t kind, size_t n, size_t k, size_t group)
{
    static const enum assay_dtype dtypes[] = {ASSAY_F32, ASSAY_BF16, ASSAY_F16, ASSAY_I8};
    if (kind < ASSAY_COUNT(dtypes))
        return weights_new(dtypes[kind], n, k);
    return kind == ASSAY_COUNT(dtypes) ? table_new(n, k, group) : int4_new(n, k, group);
}

void products_of_bf16_are_one_chain_that_flushes_subnormals(void **state)
{
    (void)state;
    for (size_t s = 0; s < 6 * ASSAY_COUNT(shapes); s++) {
        const size_t *shape = shapes[s / 6];
        size_t m = shape[0], n = shape[1], k = shape[2];
        struct weights w = kind_new(s % 6, n, k, shape[3]);
        struct guarded a = guarded_noise(m * k), bias = guarded_noise(n);
        check_bf16(m, a.x, &w, s % 5 ? NULL : bias.x, "bf16", s);
        guarded_free(&a);
        guarded_free(&bias);
        weights_free(&w);
    }
}

/* Products and sums around 2^-126, subnormal operands, exact cancellation. */
void products_of_bf16_flush_at_the_border_as_the_hardware_does(void **state)
{
    (void)state;
    enum { M = 17, N = 40, K = 9 };
    size_t zeros = 0, others = 0;
    for (int round = 0; round < 40; round++) {
        enum assay_dtype dtype = round % 2 ? ASSAY_BF16 : ASSAY_F32;
        struct weights w = plain_new(dtype, N, K, round % 10 == 9 ? 0x1p-125f : ldexpf(1.0f, -62 - round % 5));
        struct guarded a = guarded_noise(M * K), c = guarded_new(M * N);
        for (size_t i = 0; i < M * K; i++)
            a.x[i] = i % 11 == 0 ? noise() * 0x1p-126f : a.x[i] * (round % 10 == 9 ? 1.0f : 0x1p-63f);
        for (size_t m = 1; m <= M; m += m < 2 ? 1 : M - 2)
            check_bf16(m, a.x, &w, NULL, "border", (size_t)round);
        chain_bf16(M, a.x, &w, NULL, c.x);
        for (size_t i = 0; i < M * N; i++)
            *(c.x[i] == 0.0f ? &zeros : &others) += 1;
        guarded_free(&a);
        guarded_free(&c);
        weights_free(&w);
    }
    assert_true(zeros > 100 && others > 100);
}
