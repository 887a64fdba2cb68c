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

/* y[i] = f(x[i], y[i]) for a body written over lanes; an argument that a body does not need is ignored there. */
#define EACH_LANE(n, x, y, f)                                                                                          \
    do {                                                                                                               \
        size_t at = 0;                                                                                                 \
        for (; at + LANES <= (n); at += LANES)                                                                         \
            lanes_store((y) + at, f(lanes_load((x) + at), lanes_load((y) + at)));                                      \
        if (at < (n))                                                                                                  \
            lanes_store_n((y) + at, f(lanes_load_n((x) + at, (n)-at), lanes_load_n((y) + at, (n)-at)), (n)-at);        \
    } while (0)

static void vector_multiply(size_t n, const float *x, float *y)
{
    EACH_LANE(n, x, y, lanes_mul);
}

static void vector_scale(size_t n, float factor, float *x)
{
    const struct lanes by = lanes_set(factor);
#define SCALED(a, b) lanes_mul(a, ((void)(b), by))
    EACH_LANE(n, x, x, SCALED);
#undef SCALED
}

static void vector_add_scaled(size_t n, float factor, const float *x, float *y)
{
    const struct lanes by = lanes_set(factor);
#define ADD_SCALED(a, b) lanes_add(b, lanes_mul(a, by))
    EACH_LANE(n, x, y, ADD_SCALED);
#undef ADD_SCALED
}

LANES_INLINE struct lanes silu_of(struct lanes x, struct lanes unused)
{
    (void)unused;
    return lanes_div(x, lanes_add(lanes_set(1.0f), lanes_exp(lanes_sub(lanes_zero(), x))));
}

/* x Phi(x) = max(x, 0) - |x| Q(|x|), Q(a) = e^(-a^2 / 2) P(t), t = 1 / (1 + 0.4 a / sqrt 2); P of degree 9 fitted to
 * the tail of the normal distribution for equal relative errors (4.3e-8) over a in [0, 17]. */
LANES_INLINE struct lanes gelu_of(struct lanes x, struct lanes unused)
{
    (void)unused;
    struct lanes negative = lanes_sub(lanes_zero(), x), a = lanes_max(x, negative);
    struct lanes one = lanes_set(1.0f), t = lanes_div(one, lanes_fma(a, lanes_set(0x1.21a186p-2f), one));
    struct lanes p = lanes_set(0x1.17ade4p-6f);
    p = lanes_fma(p, t, lanes_set(-0x1.a7a254p-5f));
    p = lanes_fma(p, t, lanes_set(0x1.8cd29ep-11f));
    p = lanes_fma(p, t, lanes_set(0x1.8935e8p-4f));
    p = lanes_fma(p, t, lanes_set(-0x1.afe7fcp-11f));
    p = lanes_fma(p, t, lanes_set(0x1.dfcb5ap-4f));
    p = lanes_fma(p, t, lanes_set(0x1.8288b6p-4f));
    p = lanes_fma(p, t, lanes_set(0x1.d51926p-4f));
    p = lanes_fma(p, t, lanes_set(0x1.cd8198p-4f));
    p = lanes_fma(p, t, lanes_set(0x1.cb0a38p-18f));
    struct lanes tail = lanes_mul(lanes_exp(lanes_mul(lanes_mul(a, a), lanes_set(-0.5f))), p);
    return lanes_sub(lanes_max(lanes_zero(), x), lanes_mul(a, tail));
}

/* x / 2 (1 + tanh u) = x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
LANES_INLINE struct lanes gelu_tanh_of(struct lanes x, struct lanes unused)
{
    (void)unused;
    struct lanes cube = lanes_mul(lanes_mul(x, x), x), inner = lanes_fma(cube, lanes_set(0.044715f), x);
    struct lanes e = lanes_exp(lanes_mul(inner, lanes_set(-0x1.988454p+0f)));
    return lanes_div(x, lanes_add(lanes_set(1.0f), e));
}

LANES_INLINE struct lanes relu_of(struct lanes x, struct lanes unused)
{
    (void)unused;
    return lanes_max(lanes_zero(), x);
}

static void vector_silu(size_t n, float *x)
{
    EACH_LANE(n, x, x, silu_of);
}

static void vector_gelu(size_t n, float *x)
{
    EACH_LANE(n, x, x, gelu_of);
}

static void vector_gelu_tanh(size_t n, float *x)
{
    EACH_LANE(n, x, x, gelu_tanh_of);
}

static void vector_relu(size_t n, float *x)
{
    EACH_LANE(n, x, x, relu_of);
}

/* tanh y = -m / (2 + m), m = e^(-2 y) - 1: nothing cancels. */
LANES_INLINE struct lanes tanh_of(struct lanes y)
{
    struct lanes m = lanes_expm1(lanes_mul(y, lanes_set(-2.0f)));
    return lanes_div(lanes_sub(lanes_zero(), m), lanes_add(lanes_set(2.0f), m));
}

static void vector_soft_cap(size_t n, float scale, float cap, float *x)
{
    const struct lanes by = lanes_set(scale), limit = lanes_set(cap);
#define CAPPED(a, b) lanes_mul(limit, tanh_of(lanes_div(lanes_mul(a, ((void)(b), by)), limit)))
    EACH_LANE(n, x, x, CAPPED);
#undef CAPPED
}

/* Sum of (x - mean)^2; lanes beyond the last element add nothing. */
LANES_INLINE float spread_of(size_t n, const float *x, float mean)
{
    struct lanes sum = lanes_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = square_add(lanes_sub(lanes_load(x + i), lanes_set(mean)), sum);
    if (i < n) {
        float rest[LANES] = {0};
        for (size_t j = 0; i + j < n; j++)
            rest[j] = x[i + j] - mean;
        sum = square_add(lanes_load(rest), sum);
    }
    return lanes_sum(sum);
}

static void vector_layernorm(size_t n, const float *x, const float *weight, const float *bias, float eps, float *y)
{
    struct lanes sum = lanes_zero();
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = lanes_add(sum, lanes_load(x + i));
    if (i < n)
        sum = lanes_add(sum, lanes_load_n(x + i, n - i));
    float mean = lanes_sum(sum) / (float)n;
    const struct lanes centre = lanes_set(mean);
    const struct lanes inverse = lanes_set(1.0f / sqrtf(spread_of(n, x, mean) / (float)n + eps));
    for (i = 0; i + LANES <= n; i += LANES) {
        struct lanes scaled = lanes_mul(lanes_sub(lanes_load(x + i), centre), inverse);
        lanes_store(y + i, lanes_fma(scaled, lanes_load(weight + i), lanes_load(bias + i)));
    }
    if (i < n) {
        struct lanes scaled = lanes_mul(lanes_sub(lanes_load_n(x + i, n - i), centre), inverse);
        lanes_store_n(y + i, lanes_fma(scaled, lanes_load_n(weight + i, n - i), lanes_load_n(bias + i, n - i)), n - i);
    }
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
        .add = vector_add, .softmax = vector_softmax, .multiply = vector_multiply, .scale = vector_scale,              \
        .add_scaled = vector_add_scaled, .layernorm = vector_layernorm, .silu = vector_silu, .gelu = vector_gelu,      \
        .gelu_tanh = vector_gelu_tanh, .relu = vector_relu, .soft_cap = vector_soft_cap                                \
    }
