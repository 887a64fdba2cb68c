/* Every kernel on every path that this machine has, against the portable path: the same bits, at ragged sizes, between
 * poison and a page without access. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/check_support.h"

#define SIZE_MAX_CHECKED 81

typedef void (*row_check)(const struct assay_vector_ops *ops, size_t n, struct guarded *out);

/* Runs `check` with the same noise on each path and compares its output. */
static void on_every_path(row_check check, const char *what)
{
    const struct assay_kernels *kernels;
    for (size_t n = 1; n <= SIZE_MAX_CHECKED; n++) {
        struct guarded want = {0};
        for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
            struct guarded got = {0};
            noise_seed((uint32_t)n);
            check(kernels->vector, n, &got);
            if (path == 0) {
                want = got;
                continue;
            }
            want_same_bits(got.x, want.x, want.n, kernels->name, what, n);
            guarded_free(&got);
        }
        guarded_free(&want);
    }
}

static void run_exp(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded x = guarded_noise(n);
    for (size_t i = 0; i < n; i++)
        x.x[i] *= 100;
    *out = guarded_new(n);
    ops->exp(n, x.x, out->x);
    guarded_free(&x);
}

static void run_rmsnorm(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded x = guarded_noise(n), weight = guarded_noise(n);
    *out = guarded_new(n);
    ops->rmsnorm(n, x.x, weight.x, 1e-5f, out->x);
    ops->rmsnorm(n, x.x, weight.x, 1e-5f, x.x);
    want_same_bits(x.x, out->x, n, "in place", "rmsnorm", n);
    guarded_free(&x);
    guarded_free(&weight);
}

static void run_rope(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded cosine = guarded_noise(n), sine = guarded_noise(n);
    *out = guarded_noise(2 * n);
    ops->rope(n, cosine.x, sine.x, out->x);
    guarded_free(&cosine);
    guarded_free(&sine);
}

static void run_silu_gate(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded up = guarded_noise(n);
    *out = guarded_noise(n);
    for (size_t i = 0; i < n; i++)
        out->x[i] *= 30;
    ops->silu_gate(n, out->x, up.x);
    guarded_free(&up);
}

static void run_add(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded x = guarded_noise(n);
    *out = guarded_noise(n);
    ops->add(n, x.x, out->x);
    guarded_free(&x);
}

static void run_softmax(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    *out = guarded_noise(n + 5);
    for (size_t i = 0; i < n; i++)
        out->x[i] *= 20;
    ops->softmax(n, n + 5, 0.7f, out->x);
    for (size_t i = n; i < n + 5; i++)
        assert_true(out->x[i] == 0.0f);
}

static void run_layernorm(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded x = guarded_noise(n), weight = guarded_noise(n), bias = guarded_noise(n);
    *out = guarded_new(n);
    ops->layernorm(n, x.x, weight.x, bias.x, 1e-5f, out->x);
    ops->layernorm(n, x.x, weight.x, bias.x, 1e-5f, x.x);
    want_same_bits(x.x, out->x, n, "in place", "layernorm", n);
    guarded_free(&x);
    guarded_free(&weight);
    guarded_free(&bias);
}

static void run_activations(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    *out = guarded_noise(4 * n);
    for (size_t i = 0; i < 4 * n; i++)
        out->x[i] *= 9;
    ops->silu(n, out->x);
    ops->gelu(n, out->x + n);
    ops->gelu_tanh(n, out->x + 2 * n);
    ops->relu(n, out->x + 3 * n);
}

static void run_soft_cap(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    *out = guarded_noise(n);
    ops->soft_cap(n, 90.0f, 30.0f, out->x);
}

static void run_arithmetic(const struct assay_vector_ops *ops, size_t n, struct guarded *out)
{
    struct guarded x = guarded_noise(n);
    *out = guarded_noise(n);
    ops->multiply(n, x.x, out->x);
    ops->add_scaled(n, 0.3f, x.x, out->x);
    ops->scale(n, 1.7f, out->x);
    guarded_free(&x);
}

static void row_operations_give_the_same_bits_on_every_path(void **state)
{
    (void)state;
    on_every_path(run_exp, "exp");
    on_every_path(run_rmsnorm, "rmsnorm");
    on_every_path(run_rope, "rope");
    on_every_path(run_silu_gate, "silu_gate");
    on_every_path(run_add, "add");
    on_every_path(run_softmax, "softmax");
    on_every_path(run_layernorm, "layernorm");
    on_every_path(run_activations, "activations");
    on_every_path(run_soft_cap, "soft_cap");
    on_every_path(run_arithmetic, "arithmetic");
}

#define SWEEP 200000

static void exp_is_within_its_bound_of_the_true_value(void **state)
{
    (void)state;
    float *x = malloc(SWEEP * sizeof *x), *y = malloc(SWEEP * sizeof *y), *other = malloc(SWEEP * sizeof *other);
    assert_non_null(x);
    assert_non_null(y);
    assert_non_null(other);
    for (size_t i = 0; i < SWEEP; i++)
        x[i] = -105.0f + 195.0f * (float)i / SWEEP;
    assay_kernels_at(0)->vector->exp(SWEEP, x, y);
    double worst = 0;
    for (size_t i = 0; i < SWEEP; i++) {
        double want = exp((double)x[i]);
        if (want > FLT_MAX) {
            assert_true(isinf(y[i]) || (double)y[i] / want > 1 - ASSAY_EXP_REL);
            continue;
        }
        /* Below the normal floats one step of the subnormals is allowed. */
        double off = fabs((double)y[i] - want), allowed = ASSAY_EXP_REL * want + (want < FLT_MIN ? 0x1p-149 : 0);
        if (!(off <= allowed))
            fail_msg("exp(%a) is %a, wanted %a", (double)x[i], (double)y[i], want);
        if (want >= FLT_MIN)
            worst = fmax(worst, off / want);
    }
    print_message("exp: largest relative error %.3g\n", worst);
    const struct assay_kernels *kernels;
    for (size_t path = 1; (kernels = assay_kernels_at(path)) != NULL; path++) {
        kernels->vector->exp(SWEEP, x, other);
        want_same_bits(other, y, SWEEP, kernels->name, "exp", SWEEP);
    }
    free(x);
    free(y);
    free(other);
}

/* Sweeps [-limit, limit] through f and compares with the definition in float64: |difference| <= bound * max(floor,
 * |wanted|). */
static void want_function(void (*f)(size_t n, float *x), double (*definition)(double), double limit, double bound,
                          double floor_of, const char *name)
{
    float *x = malloc(SWEEP * sizeof *x), *y = malloc(SWEEP * sizeof *y);
    assert_non_null(x);
    assert_non_null(y);
    double worst = 0;
    for (size_t i = 0; i < SWEEP; i++)
        y[i] = x[i] = (float)(limit * (2.0 * (double)i / SWEEP - 1));
    f(SWEEP, y);
    for (size_t i = 0; i < SWEEP; i++) {
        double want = definition((double)x[i]), off = fabs((double)y[i] - want) / fmax(floor_of, fabs(want));
        if (!(off <= bound))
            fail_msg("%s(%a) is %a, wanted %a", name, (double)x[i], (double)y[i], want);
        worst = fmax(worst, off);
    }
    print_message("%s: largest error %.3g\n", name, worst);
    free(x);
    free(y);
}

static double silu_f64(double x)
{
    return x / (1 + exp(-x));
}

static double gelu_f64(double x)
{
    return x * 0.5 * erfc(-x / sqrt(2.0));
}

static double gelu_tanh_f64(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
}

static double relu_f64(double x)
{
    return x > 0 ? x : 0;
}

static double soft_cap_f64(double x)
{
    return 30 * tanh(x / 30);
}

static void soft_cap_30(size_t n, float *x)
{
    assay_kernels_at(0)->vector->soft_cap(n, 1.0f, 30.0f, x);
}

static void activations_and_caps_are_near_their_definitions(void **state)
{
    (void)state;
    const struct assay_vector_ops *ops = assay_kernels_at(0)->vector;
    want_function(ops->silu, silu_f64, 40, 3e-7, 1, "silu");
    want_function(ops->gelu, gelu_f64, 20, 3e-7, 1, "gelu");
    want_function(ops->gelu_tanh, gelu_tanh_f64, 20, 3e-7, 1, "gelu_tanh");
    want_function(ops->relu, relu_f64, 20, 0, 1, "relu");
    want_function(soft_cap_30, soft_cap_f64, 400, 4 * 1.2e-7, 1e-30, "soft_cap");
    want_function(soft_cap_30, soft_cap_f64, 1e-3, 4 * 1.2e-7, 1e-30, "soft_cap of small scores");
}

static void a_layernorm_is_near_float64(void **state)
{
    (void)state;
    float x[100], weight[100], bias[100], y[100];
    double mean = 0, spread = 0;
    for (size_t i = 0; i < 100; i++) {
        x[i] = 7 + noise();
        weight[i] = noise();
        bias[i] = noise();
        mean += (double)x[i] / 100;
    }
    for (size_t i = 0; i < 100; i++)
        spread += ((double)x[i] - mean) * ((double)x[i] - mean) / 100;
    assay_kernels_at(0)->vector->layernorm(100, x, weight, bias, 1e-5f, y);
    for (size_t i = 0; i < 100; i++) {
        double want = ((double)x[i] - mean) / sqrt(spread + 1e-5) * (double)weight[i] + (double)bias[i];
        assert_true(fabs((double)y[i] - want) <= 3e-6);
    }
}

static void exp_holds_at_the_ends(void **state)
{
    (void)state;
    const struct assay_kernels *kernels;
    const float x[] = {-INFINITY, INFINITY, NAN, 0.0f, -0.0f, -1e30f, 1e30f, -104.0f, 88.0f, FLT_MIN, -FLT_MIN, 89.0f};
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        float y[ASSAY_COUNT(x)];
        kernels->vector->exp(ASSAY_COUNT(x), x, y);
        assert_true(y[0] == 0.0f);
        assert_true(isinf(y[1]) && y[1] > 0);
        assert_true(isnan(y[2]));
        assert_true(y[3] == 1.0f && y[4] == 1.0f);
        assert_true(y[5] == 0.0f);
        assert_true(isinf(y[6]) && y[6] > 0);
        assert_true(y[7] == 0.0f);
        assert_true(fabs((double)y[8] / exp(88.0) - 1) <= ASSAY_EXP_REL);
        assert_true(y[9] == 1.0f && y[10] == 1.0f);
        assert_true(isinf(y[11]));
    }
}

static void a_softmax_sums_to_one_and_survives_huge_scores(void **state)
{
    (void)state;
    const struct assay_kernels *kernels;
    for (size_t path = 0; (kernels = assay_kernels_at(path)) != NULL; path++) {
        float x[40];
        for (size_t i = 0; i < 40; i++)
            x[i] = i == 7 ? 3e38f : -3e38f;
        kernels->vector->softmax(40, 40, 1.0f, x);
        assert_true(x[7] == 1.0f && x[8] == 0.0f);
        double sum = 0;
        for (size_t i = 0; i < 40; i++)
            x[i] = noise() * 5;
        kernels->vector->softmax(33, 40, 1.0f, x);
        for (size_t i = 0; i < 40; i++)
            sum += (double)x[i];
        assert_true(fabs(sum - 1) <= 40 * FLT_EPSILON);
    }
}

static void the_mask_caps_the_path_and_a_wrong_one_is_refused(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_kernels *kernels = NULL, *best = NULL;
    for (size_t path = 0; assay_kernels_at(path); path++)
        best = assay_kernels_at(path);
    setenv("ASSAY_CPU_MASK", "scalar", 1);
    assert_int_equal(assay_kernels_select(&kernels, &err), ASSAY_OK);
    assert_string_equal(kernels->name, "scalar");
    setenv("ASSAY_CPU_MASK", "avx512bf16", 1);
    assert_int_equal(assay_kernels_select(&kernels, &err), ASSAY_OK);
    assert_ptr_equal(kernels, best);
    setenv("ASSAY_CPU_MASK", "avx1024", 1);
    assert_int_equal(assay_kernels_select(&kernels, &err), ASSAY_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "avx1024"));
    unsetenv("ASSAY_CPU_MASK");
    assert_int_equal(assay_kernels_select(&kernels, &err), ASSAY_OK);
    assert_ptr_equal(kernels, best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_operations_give_the_same_bits_on_every_path),
        cmocka_unit_test(exp_is_within_its_bound_of_the_true_value),
        cmocka_unit_test(exp_holds_at_the_ends),
        cmocka_unit_test(activations_and_caps_are_near_their_definitions),
        cmocka_unit_test(a_layernorm_is_near_float64),
        cmocka_unit_test(a_softmax_sums_to_one_and_survives_huge_scores),
        cmocka_unit_test(the_mask_caps_the_path_and_a_wrong_one_is_refused),
        cmocka_unit_test(weights_of_4_bits_multiply_as_their_decoded_values),
        cmocka_unit_test(products_of_bf16_are_one_chain_that_flushes_subnormals),
        cmocka_unit_test(products_of_bf16_flush_at_the_border_as_the_hardware_does),
        cmocka_unit_test(products_are_one_chain_of_fused_multiply_adds_on_every_path),
        cmocka_unit_test(products_lie_within_the_bound_of_float64),
        cmocka_unit_test(rows_do_not_depend_on_their_company_or_the_threads),
        cmocka_unit_test(several_products_of_the_same_rows_are_as_each_alone),
        cmocka_unit_test(panels_unpack_to_the_exact_values),
        cmocka_unit_test(products_write_between_the_rows_of_c_nothing),
        cmocka_unit_test(weights_of_other_dtypes_are_refused),
        cmocka_unit_test(attention_gives_the_same_bits_on_every_path),
        cmocka_unit_test(attention_lies_near_float64),
        cmocka_unit_test(attention_of_a_row_depends_on_the_rows_before_it_alone),
        cmocka_unit_test(attention_without_a_limit_is_that_within_one_that_nothing_reaches),
        cmocka_unit_test(keys_outside_of_the_window_leave_no_trace),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
