/* Row operations, written once over lanes.h. */
#include "common/kernels/kernels.h"
#include "common/kernels/lanes.h"

static void vector_exp(size_t n, const float *x, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_exp(lanes_load(x + i)));
    if (i < n)
        lanes_store_n(y + i, lanes_exp(lanes_load_n(x + i, n - i)), n - i);
}

LANES_INLINE struct lanes square_add(struct lanes x, struct lanes sum)
{
    return lanes_fma(x, x, sum);
}

static void vector_rmsnorm(size_t n, const float *x, const float *weight, float eps, float *y)
{
    struct lanes sum = lanes_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = square_add(lanes_load(x + i), sum);
    if (i < n)
        sum = square_add(lanes_load_n(x + i, n - i), sum);
    struct lanes inverse = lanes_set(1.0f / sqrtf(lanes_sum(sum) / (float)n + eps));
    for (i = 0; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_mul(lanes_mul(lanes_load(x + i), inverse), lanes_load(weight + i)));
    if (i < n) {
        struct lanes scaled = lanes_mul(lanes_load_n(x + i, n - i), inverse);
        lanes_store_n(y + i, lanes_mul(scaled, lanes_load_n(weight + i, n - i)), n - i);
    }
}

static void vector_rope(size_t half, const float *cosine, const float *sine, float *x)
{
    size_t i = 0;
    for (; i + LANES <= half; i += LANES) {
        struct lanes a = lanes_load(x + i), b = lanes_load(x + half + i);
        struct lanes c = lanes_load(cosine + i), s = lanes_load(sine + i);
        lanes_store(x + i, lanes_sub(lanes_mul(a, c), lanes_mul(b, s)));
        lanes_store(x + half + i, lanes_add(lanes_mul(b, c), lanes_mul(a, s)));
    }
    if (i < half) {
        size_t rest = half - i;
        struct lanes a = lanes_load_n(x + i, rest), b = lanes_load_n(x + half + i, rest);
        struct lanes c = lanes_load_n(cosine + i, rest), s = lanes_load_n(sine + i, rest);
        lanes_store_n(x + i, lanes_sub(lanes_mul(a, c), lanes_mul(b, s)), rest);
        lanes_store_n(x + half + i, lanes_add(lanes_mul(b, c), lanes_mul(a, s)), rest);
    }
}

LANES_INLINE struct lanes silu_times(struct lanes gate, struct lanes up)
{
    struct lanes e = lanes_exp(lanes_sub(lanes_zero(), gate));
    return lanes_mul(lanes_div(gate, lanes_add(lanes_set(1.0f), e)), up);
}

static void vector_silu_gate(size_t n, float *gate, const float *up)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(gate + i, silu_times(lanes_load(gate + i), lanes_load(up + i)));
    if (i < n)
        lanes_store_n(gate + i, silu_times(lanes_load_n(gate + i, n - i), lanes_load_n(up + i, n - i)), n - i);
}

static void vector_add(size_t n, const float *x, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_add(lanes_load(y + i), lanes_load(x + i)));
    if (i < n)
        lanes_store_n(y + i, lanes_add(lanes_load_n(y + i, n - i), lanes_load_n(x + i, n - i)), n - i);
}

/* Scales the row in place and returns its largest element. */
LANES_INLINE float scale_row(size_t n, float scale, float *x)
{
    struct lanes top = lanes_set(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        struct lanes scaled = lanes_mul(lanes_load(x + i), lanes_set(scale));
        lanes_store(x + i, scaled);
        top = lanes_max(scaled, top);
    }
    float largest = lanes_largest(top);
    for (; i < n; i++) {
        x[i] *= scale;
        largest = x[i] > largest ? x[i] : largest;
    }
    return largest;
}

static void vector_softmax(size_t valid, size_t n, float scale, float *x)
{
    struct lanes largest = lanes_set(scale_row(valid, scale, x)), sum = lanes_zero();
    size_t i = 0;
    for (; i + LANES <= valid; i += LANES) {
        struct lanes e = lanes_exp(lanes_sub(lanes_load(x + i), largest));
        lanes_store(x + i, e);
        sum = lanes_add(sum, e);
    }
    if (i < valid) {
        lanes_store_n(x + i, lanes_exp(lanes_sub(lanes_load_n(x + i, valid - i), largest)), valid - i);
        sum = lanes_add(sum, lanes_load_n(x + i, valid - i));
    }
    struct lanes inverse = lanes_set(1.0f / lanes_sum(sum));
    for (i = 0; i + LANES <= valid; i += LANES)
        lanes_store(x + i, lanes_mul(lanes_load(x + i), inverse));
    if (i < valid)
        lanes_store_n(x + i, lanes_mul(lanes_load_n(x + i, valid - i), inverse), valid - i);
    memset(x + valid, 0, (n - valid) * sizeof *x);
}

#define VECTOR_OPS                                                                                                     \
    {                                                                                                                  \
        .exp = vector_exp, .rmsnorm = vector_rmsnorm, .rope = vector_rope, .silu_gate = vector_silu_gate,              \
        .add = vector_add, .softmax = vector_softmax                                                                   \
    }
