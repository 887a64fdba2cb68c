/* Products and attention. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/check_support.h"

static const enum assay_dtype dtypes[] = {ASSAY_F32, ASSAY_BF16, ASSAY_F16, ASSAY_I8};

/* m, n, k: whole and ragged tiles, panels and blocks of k (512), and the sizes of tiny models. */
static const size_t shapes[][3] = {{1, 1, 1},     {1, 32, 16},  {2, 33, 31},   {5, 64, 64},   {12, 32, 512},
                                   {13, 31, 513}, {7, 172, 96}, {25, 96, 172}, {24, 64, 520}, {193, 40, 33},
                                   {4, 5, 1100},  {1, 300, 70}, {2, 300, 70}};

/* At an odd address. */
struct weights weights_new(enum assay_dtype dtype, size_t n, size_t k)
{
    struct weights w = {.values = malloc(n * k * sizeof(float))};
    size_t bytes = assay_dtype_bytes(dtype);
    unsigned char *raw = malloc(n * k * bytes + 1);
    float *scales = malloc(n * sizeof *scales);
    assert_true(w.values && raw && scales);
    for (size_t r = 0; r < n; r++) {
        scales[r] = 0.01f + 0.01f * fabsf(noise());
        for (size_t kk = 0; kk < k; kk++) {
            size_t i = r * k + kk;
            float x = noise();
            uint16_t half = dtype == ASSAY_BF16 ? assay_f32_to_bf16(x) : assay_f32_to_f16(x);
            int8_t code = (int8_t)(i < 2 ? (i ? -128 : 127) : (int)(x * 127));
            const void *element = dtype == ASSAY_F32  ? (const void *)&x
                                  : dtype == ASSAY_I8 ? (const void *)&code
                                                      : &half;
            memcpy(raw + 1 + i * bytes, element, bytes);
            w.values[i] = dtype == ASSAY_F32    ? x
                          : dtype == ASSAY_BF16 ? assay_bf16_to_f32(half)
                          : dtype == ASSAY_F16  ? assay_f16_to_f32(half)
                                                : (float)code * scales[r];
        }
    }
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_panels_pack(pool_of(2), dtype, raw + 1, scales, n, k, &w.panels, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    free(raw);
    free(scales);
    return w;
}

void weights_free(struct weights *w)
{
    assay_panels_release(&w->panels);
    free(w->values);
}

void chain(size_t m, const float *a, const struct weights *w, const float *bias, float *c)
{
    size_t n = w->panels.n, k = w->panels.k;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t kk = 0; kk < k; kk++)
                sum = fmaf(a[i * k + kk], w->values[j * k + kk], sum);
            c[i * n + j] = bias ? sum + bias[j] : sum;
        }
}

void products_are_one_chain_of_fused_multiply_adds_on_every_path(void **state)
{
    (void)state;
    const struct assay_kernels *kernels;
    for (size_t s = 0; s < ASSAY_COUNT(shapes); s++) {
        size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        for (size_t d = 0; d < ASSAY_COUNT(dtypes); d++) {
            struct weights w = weights_new(dtypes[d], n, k);
            struct guarded a = guarded_noise(m * k), bias = guarded_noise(n), want = guarded_new(m * n);
            const float *b = s % 2 ? bias.x : NULL;
            chain(m, a.x, &w, b, want.x);
            for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
                for (size_t threads = 1; threads <= 3; threads++) {
                    struct guarded got = guarded_new(m * n);
                    assay_gemm(kernels, pool_of(threads), m, a.x, k, &w.panels, b, got.x, n);
                    want_same_bits(got.x, want.x, m * n, kernels->name, assay_dtype_name(dtypes[d]), s);
                    guarded_free(&got);
                }
            }
            guarded_free(&a);
            guarded_free(&bias);
            guarded_free(&want);
            weights_free(&w);
        }
    }
}

void products_lie_within_the_bound_of_float64(void **state)
{
    (void)state;
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    size_t m = 17, n = 45, k = 1500;
    struct weights w = weights_new(ASSAY_F32, n, k);
    struct guarded a = guarded_noise(m * k), got = guarded_new(m * n);
    assay_gemm(kernels, pool_of(2), m, a.x, k, &w.panels, NULL, got.x, n);
    double unit = FLT_EPSILON / 2, gamma = (double)k * unit / (1 - (double)k * unit);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, magnitude = 0;
            for (size_t kk = 0; kk < k; kk++) {
                double term = (double)a.x[i * k + kk] * (double)w.values[j * k + kk];
                sum += term;
                magnitude += fabs(term);
            }
            assert_true(fabs((double)got.x[i * n + j] - sum) <= gamma * magnitude);
        }
    guarded_free(&a);
    guarded_free(&got);
    weights_free(&w);
}

void rows_do_not_depend_on_their_company_or_the_threads(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 6, 7, 12, 16, 191, 193, 256};
    enum { ROWS = 400, N = 100, K = 700 };
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    for (size_t d = 0; d < ASSAY_COUNT(dtypes); d++) {
        struct weights w = weights_new(dtypes[d], N, K);
        struct guarded a = guarded_noise(ROWS * K), want = guarded_new(ROWS * N), got = guarded_new(ROWS * N);
        assay_gemm(kernels, pool_of(1), ROWS, a.x, K, &w.panels, NULL, want.x, N);
        for (size_t i = 0; i < ASSAY_COUNT(counts); i++) {
            size_t m = counts[i], first = ROWS - m;
            assay_gemm(kernels, pool_of(1 + i % 3), m, a.x + first * K, K, &w.panels, NULL, got.x, N);
            want_same_bits(got.x, want.x + first * N, m * N, kernels->name, "rows", m);
        }
        guarded_free(&a);
        guarded_free(&want);
        guarded_free(&got);
        weights_free(&w);
    }
}

void several_products_of_the_same_rows_are_as_each_alone(void **state)
{
    (void)state;
    enum { K = 75, PRODUCTS = 4 };
    static const size_t rows[] = {1, 3, 7, 20}, columns[PRODUCTS] = {100, 32, 7, 300};
    static const enum assay_dtype types[PRODUCTS] = {ASSAY_BF16, ASSAY_I8, ASSAY_F32, ASSAY_BF16};
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    struct weights w[PRODUCTS];
    for (size_t i = 0; i < PRODUCTS; i++)
        w[i] = weights_new(types[i], columns[i], K);
    for (size_t run = 0; run < 2 * ASSAY_COUNT(rows); run++) {
        size_t m = rows[run / 2];
        bool bf16 = run % 2;
        struct guarded a = guarded_noise(m * K), bias = guarded_noise(columns[0]), got[PRODUCTS], want[PRODUCTS];
        struct assay_product products[PRODUCTS];
        for (size_t i = 0; i < PRODUCTS; i++) {
            const float *b = i == 0 ? bias.x : NULL;
            got[i] = guarded_new(m * columns[i]);
            want[i] = guarded_new(m * columns[i]);
            products[i] = (struct assay_product){&w[i].panels, b, got[i].x, columns[i]};
            (bf16 ? assay_gemm_bf16 : assay_gemm)(kernels, pool_of(1), m, a.x, K, &w[i].panels, b, want[i].x,
                                                  columns[i]);
        }
        for (size_t threads = 1; threads <= 3; threads++) {
            assay_gemm_several(kernels, pool_of(threads), m, a.x, K, products, PRODUCTS, bf16);
            for (size_t i = 0; i < PRODUCTS; i++) {
                want_same_bits(got[i].x, want[i].x, m * columns[i], kernels->name, "several", m);
                memset(got[i].x, 0xff, m * columns[i] * sizeof *got[i].x);
            }
        }
        for (size_t i = 0; i < PRODUCTS; i++) {
            guarded_free(&got[i]);
            guarded_free(&want[i]);
        }
        guarded_free(&a);
        guarded_free(&bias);
    }
    for (size_t i = 0; i < PRODUCTS; i++)
        weights_free(&w[i]);
}

void panels_unpack_to_the_exact_values(void **state)
{
    (void)state;
    enum { DEPTH = 65536 / ASSAY_PANEL };
    const struct assay_kernels *kernels;
    uint16_t *halves = malloc(65536 * sizeof *halves);
    float *got = malloc(65536 * sizeof *got), want;
    assert_true(halves && got);
    for (size_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        kernels->gemm->unpack_bf16(DEPTH, halves, got);
        for (size_t i = 0; i < 65536; i++) {
            want = assay_bf16_to_f32((uint16_t)i);
            if (!isnan(want))
                want_same_bits(&got[i], &want, 1, kernels->name, "bf16", i);
        }
        kernels->gemm->unpack_f16(DEPTH, halves, got);
        for (size_t i = 0; i < 65536; i++) {
            want = assay_f16_to_f32((uint16_t)i);
            assert_int_equal(isnan(got[i]), isnan(want));
            if (!isnan(want))
                want_same_bits(&got[i], &want, 1, kernels->name, "f16", i);
        }
        int8_t codes[256 * ASSAY_PANEL];
        float scales[ASSAY_PANEL];
        for (size_t i = 0; i < sizeof codes; i++)
            codes[i] = (int8_t)(i / ASSAY_PANEL);
        for (size_t j = 0; j < ASSAY_PANEL; j++)
            scales[j] = noise() * 0.1f;
        kernels->gemm->unpack_i8(256, codes, scales, got);
        for (size_t i = 0; i < sizeof codes; i++) {
            want = (float)codes[i] * scales[i % ASSAY_PANEL];
            want_same_bits(&got[i], &want, 1, kernels->name, "i8", i);
        }
    }
    free(halves);
    free(got);
}

void products_write_between_the_rows_of_c_nothing(void **state)
{
    (void)state;
    enum { M = 15, N = 45, K = 600, LDA = 603, LDC = 50 };
    const struct assay_kernels *kernels;
    struct weights w = weights_new(ASSAY_BF16, N, K);
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        /* The last row ends with its own elements. */
        struct guarded a = guarded_noise((M - 1) * LDA + K), fresh = guarded_new((M - 1) * LDC + N);
        struct guarded c = guarded_new(fresh.n), tight = guarded_new(M * N), packed = guarded_new(M * K);
        for (size_t r = 0; r < M; r++)
            memcpy(packed.x + r * K, a.x + r * LDA, K * sizeof(float));
        assay_gemm(kernels, pool_of(2), M, a.x, LDA, &w.panels, NULL, c.x, LDC);
        assay_gemm(kernels, pool_of(2), M, packed.x, K, &w.panels, NULL, tight.x, N);
        for (size_t r = 0; r < M; r++) {
            want_same_bits(c.x + r * LDC, tight.x + r * N, N, kernels->name, "row of c", r);
            if (r + 1 < M)
                want_same_bits(c.x + r * LDC + N, fresh.x + r * LDC + N, LDC - N, kernels->name, "gap", r);
        }
        guarded_free(&a);
        guarded_free(&fresh);
        guarded_free(&c);
        guarded_free(&tight);
        guarded_free(&packed);
    }
    weights_free(&w);
}

void weights_of_other_dtypes_are_refused(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_panels panels = {0};
    int64_t value = 0;
    assert_int_equal(assay_panels_pack(pool_of(1), ASSAY_I64, &value, NULL, 1, 1, &panels, &err), ASSAY_UNIMPLEMENTED);
    assert_non_null(strstr(err.text, "I64"));
    assert_int_equal(assay_panels_pack(pool_of(1), ASSAY_F32, &value, NULL, SIZE_MAX / 2, SIZE_MAX / 2, &panels, &err),
                     ASSAY_RESOURCE_EXHAUSTED);
    assert_null(panels.data);
    assay_panels_release(&panels);
}

/* Sequences of a batch, heads and head sizes that are whole and ragged; windows of one key, of a panel and around it;
 * scores under a cap; values that are narrower or wider than keys; rows that see what follows, and have a bias. */
static const struct assay_attention_span spans[] = {{0, 1}, {1, 33}, {34, 48}, {82, 49}, {131, 130}};
#define ATTENTION_ROWS 261
static float biases[6 * (2 * ATTENTION_ROWS - 1)]; /* what operands_new fills */
static const struct assay_attention_shape attention_shapes[] = {
    {4, 4, 16, 0.25f, 0, 0, 0, false, NULL, 0},    {6, 2, 40, 0.158f, 0, 0, 0, false, NULL, 0},
    {2, 1, 64, 0.125f, 0, 0, 0, false, NULL, 0},   {3, 3, 2, 0.7f, 0, 0, 0, false, NULL, 0},
    {8, 1, 32, 0.18f, 0, 0, 0, false, NULL, 0},    {4, 2, 16, 0.25f, 1, 0, 0, false, NULL, 0},
    {4, 2, 16, 0.25f, 31, 0, 0, false, NULL, 0},   {2, 2, 40, 0.2f, 32, 0, 0, false, NULL, 0},
    {2, 2, 40, 0.2f, 33, 0, 0, false, NULL, 0},    {4, 2, 16, 0.25f, 100, 0, 0, false, NULL, 0},
    {2, 1, 24, 0.3f, 0, 3, 0, false, NULL, 0},     {2, 1, 24, 0.3f, 48, 5, 0, false, NULL, 0},
    {3, 3, 24, 0.2f, 0, 0, 16, false, NULL, 0},    {2, 2, 16, 0.2f, 17, 0, 40, false, NULL, 0},
    {4, 4, 16, 0.25f, 0, 0, 0, true, NULL, 0},     {6, 2, 40, 0.158f, 0, 3, 24, true, NULL, 0},
    {4, 4, 16, 0.25f, 0, 0, 0, true, biases, 130}, {6, 2, 40, 0.158f, 0, 3, 24, true, biases, ATTENTION_ROWS},
};

struct operands {
    struct guarded q, k, v, out;
};

static size_t value_dim(const struct assay_attention_shape *shape)
{
    return shape->value_dim ? shape->value_dim : shape->head_dim;
}

static struct operands operands_new(const struct assay_attention_shape *shape)
{
    size_t queries = ATTENTION_ROWS * shape->heads * shape->head_dim;
    noise_seed(7);
    struct operands o = {.q = guarded_noise(queries)};
    o.k = guarded_noise(ATTENTION_ROWS * shape->kv_heads * shape->head_dim);
    o.v = guarded_noise(ATTENTION_ROWS * shape->kv_heads * value_dim(shape));
    o.out = guarded_new(ATTENTION_ROWS * shape->heads * value_dim(shape));
    for (size_t i = 0; i < queries; i++)
        o.q.x[i] *= 4;
    struct guarded bias = guarded_noise(ASSAY_COUNT(biases));
    memcpy(biases, bias.x, sizeof biases);
    guarded_free(&bias);
    return o;
}

static void operands_free(struct operands *o)
{
    guarded_free(&o->q);
    guarded_free(&o->k);
    guarded_free(&o->v);
    guarded_free(&o->out);
}

static void attend(const struct assay_kernels *kernels, size_t threads, const struct assay_attention_shape *shape,
                   const struct assay_attention_span *s, size_t count, struct operands *o)
{
    size_t floats = assay_attention_workspace(shape, s, count, threads);
    float *workspace = aligned_alloc(64, (floats * sizeof *workspace + 63) / 64 * 64);
    assert_non_null(workspace);
    memset(workspace, 0xff, floats * sizeof *workspace);
    assay_attention(kernels, pool_of(threads), shape, s, count, o->q.x, o->k.x, o->v.x, o->out.x, workspace);
    free(workspace);
}

void attention_gives_the_same_bits_on_every_path(void **state)
{
    (void)state;
    const struct assay_kernels *kernels;
    for (size_t i = 0; i < ASSAY_COUNT(attention_shapes); i++) {
        const struct assay_attention_shape *shape = &attention_shapes[i];
        struct operands want = operands_new(shape);
        attend(assay_kernels_at(0), 1, shape, spans, ASSAY_COUNT(spans), &want);
        for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
            struct operands got = operands_new(shape);
            attend(kernels, 1 + path % 3, shape, spans, ASSAY_COUNT(spans), &got);
            want_same_bits(got.out.x, want.out.x, want.out.n, kernels->name, "attention", i);
            operands_free(&got);
        }
        operands_free(&want);
    }
}

/* Row `row` of a sequence for one head, in float64. */
static void attend_f64(const struct assay_attention_shape *shape, const struct operands *o,
                       const struct assay_attention_span *span, size_t row, size_t head, double *out)
{
    size_t first = span->first, end = shape->bidirectional ? span->tokens : row + 1;
    size_t dim = shape->head_dim, kv = head / (shape->heads / shape->kv_heads), width = shape->kv_heads * dim;
    size_t wide = value_dim(shape), begin = shape->window && row + 1 > shape->window ? row + 1 - shape->window : 0;
    const float *q = o->q.x + ((first + row) * shape->heads + head) * dim;
    double weights[ATTENTION_ROWS], top = -INFINITY, sum = 0, cap = (double)shape->soft_cap;
    for (size_t t = begin; t < end; t++) {
        weights[t] = 0;
        for (size_t i = 0; i < dim; i++)
            weights[t] += (double)q[i] * (double)o->k.x[(first + t) * width + kv * dim + i];
        weights[t] *= (double)shape->scale;
        weights[t] = cap > 0 ? cap * tanh(weights[t] / cap) : weights[t];
        if (shape->bias)
            weights[t] += (double)shape->bias[(head * 2 + 1) * shape->bias_reach - head - 1 + t - row];
        top = fmax(top, weights[t]);
    }
    for (size_t t = begin; t < end; t++)
        sum += weights[t] = exp(weights[t] - top);
    for (size_t i = 0; i < wide; i++) {
        out[i] = 0;
        for (size_t t = begin; t < end; t++)
            out[i] += weights[t] / sum * (double)o->v.x[((first + t) * shape->kv_heads + kv) * wide + i];
    }
}

void attention_lies_near_float64(void **state)
{
    (void)state;
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(attention_shapes); i++) {
        const struct assay_attention_shape *shape = &attention_shapes[i];
        struct operands o = operands_new(shape);
        attend(kernels, 2, shape, spans, ASSAY_COUNT(spans), &o);
        for (size_t s = 0; s < ASSAY_COUNT(spans); s++)
            for (size_t row = 0; row < spans[s].tokens; row++)
                for (size_t head = 0; head < shape->heads; head++) {
                    double want[64];
                    attend_f64(shape, &o, &spans[s], row, head, want);
                    const float *got = o.out.x + ((spans[s].first + row) * shape->heads + head) * value_dim(shape);
                    /* Scores up to 30 are off by a few ulp, values are below 1. */
                    for (size_t j = 0; j < value_dim(shape); j++)
                        assert_true(fabs((double)got[j] - want[j]) <= 1e-5);
                }
        operands_free(&o);
    }
}

static void want_causal(const struct assay_attention_shape *shape)
{
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    struct operands whole = operands_new(shape);
    struct assay_attention_span all = {0, ATTENTION_ROWS};
    attend(kernels, 2, shape, &all, 1, &whole);
    for (size_t tokens = 1; tokens <= ATTENTION_ROWS; tokens += 13) {
        struct operands cut = operands_new(shape);
        struct assay_attention_span span = {0, tokens};
        attend(kernels, 2, shape, &span, 1, &cut);
        want_same_bits(cut.out.x, whole.out.x, tokens * shape->heads * value_dim(shape), kernels->name, "cut", tokens);
        operands_free(&cut);
    }
    operands_free(&whole);
}

void attention_of_a_row_depends_on_the_rows_before_it_alone(void **state)
{
    (void)state;
    want_causal(&attention_shapes[1]);
    want_causal(&attention_shapes[11]);
}

/* A window as wide as the sequence, a cap of 0 and values as wide as keys change nothing. */
void attention_without_a_limit_is_that_within_one_that_nothing_reaches(void **state)
{
    (void)state;
    struct assay_attention_shape shape = attention_shapes[1];
    const struct assay_kernels *kernels = NULL;
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    struct operands want = operands_new(&shape), got = operands_new(&shape);
    attend(kernels, 2, &shape, spans, ASSAY_COUNT(spans), &want);
    shape.window = 130;
    shape.value_dim = shape.head_dim;
    attend(kernels, 2, &shape, spans, ASSAY_COUNT(spans), &got);
    want_same_bits(got.out.x, want.out.x, want.out.n, kernels->name, "window of 130", 130);
    operands_free(&want);
    operands_free(&got);
}

/* Keys that lie outside of the window may hold anything finite. */
void keys_outside_of_the_window_leave_no_trace(void **state)
{
    (void)state;
    const struct assay_attention_shape *shape = &attention_shapes[8];
    const struct assay_kernels *kernels = NULL;
    const struct assay_attention_span span = {0, ATTENTION_ROWS};
    assert_int_equal(assay_kernels_select(&kernels, NULL), ASSAY_OK);
    struct operands want = operands_new(shape), got = operands_new(shape);
    attend(kernels, 2, shape, &span, 1, &want);
    const size_t row = 200, hidden = row + 1 - shape->window, each = shape->kv_heads * shape->head_dim;
    for (size_t i = 0; i < hidden * each; i++) {
        got.k.x[i] = -got.k.x[i];
        got.v.x[i] = 1e30f;
    }
    attend(kernels, 2, shape, &span, 1, &got);
    const size_t width = shape->heads * shape->head_dim;
    want_same_bits(got.out.x + row * width, want.out.x + row * width, (ATTENTION_ROWS - row) * width, kernels->name,
                   "row", row);
    assert_true(memcmp(got.out.x + (row - 1) * width, want.out.x + (row - 1) * width, width * sizeof(float)) != 0);
    operands_free(&want);
    operands_free(&got);
}
