/* Every path encodes, decodes and sums as common/quant and plain loops do, to the bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/kernels/codec/codec.h"
#include "common/quant/int8.h"
#include "common/quant/nf4.h"
#include "tests/kernels/check_support.h"

#define ROWS_MAX ((size_t)9)
#define COLS_MAX ((size_t)300)
#define COUNT_MAX (ROWS_MAX * COLS_MAX)

static const size_t columns[] = {1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 120, 128, 129, 200, 256, 300};

/* Values of many magnitudes, zeros, whole rows of zeros, and numbers that divide to the middle between codes. */
static void weights_of(struct guarded *weights, size_t n, uint32_t seed)
{
    noise_seed(seed);
    *weights = guarded_noise(n);
    for (size_t i = 0; i < n; i++) {
        if (i % 11 == 3)
            weights->x[i] *= 1e-39f;
        if (i % 13 == 5)
            weights->x[i] = 0;
        if (i % 17 == 7)
            weights->x[i] = (float)(i % 31) * 0.5f - 7.75f;
    }
    for (size_t i = n / 2; seed % 3 == 0 && i < n; i++)
        weights->x[i] = 0;
}

static void int8_is_the_same(const struct assay_codec_ops *ops, const float *w, size_t rows, size_t cols)
{
    static int8_t want[COUNT_MAX], got[COUNT_MAX + 1];
    float want_scales[ROWS_MAX], got_scales[ROWS_MAX];
    struct guarded decoded = guarded_new(rows * cols), reference = guarded_new(rows * cols);
    got[rows * cols] = 99;
    assert_int_equal(assay_int8_encode(w, rows, cols, want, want_scales, NULL), ASSAY_OK);
    assert_int_equal(ops->int8_encode(w, rows, cols, got, got_scales, NULL), ASSAY_OK);
    assert_memory_equal(got, want, rows * cols);
    assert_memory_equal(got_scales, want_scales, rows * sizeof *want_scales);
    assert_int_equal(got[rows * cols], 99);
    assay_int8_decode(want, want_scales, rows, cols, reference.x);
    ops->int8_decode(want, want_scales, rows, cols, decoded.x);
    want_same_bits(decoded.x, reference.x, rows * cols, "codec", "int8", cols);
    guarded_free(&decoded);
    guarded_free(&reference);
}

static void int4_is_the_same(const struct assay_codec_ops *ops, const float *w, size_t rows, size_t cols, size_t group)
{
    static uint32_t want[COUNT_MAX], got[COUNT_MAX], want_zeros[COUNT_MAX], got_zeros[COUNT_MAX];
    static float want_scales[COUNT_MAX], got_scales[COUNT_MAX];
    const struct assay_int4_shape shape = {rows, cols, group};
    size_t codes = rows * assay_int4_words(&shape), zeros = assay_int4_zero_words(&shape);
    struct guarded decoded = guarded_new(rows * cols), reference = guarded_new(rows * cols);
    assert_int_equal(assay_int4_encode(w, &shape, want, want_scales, want_zeros, NULL), ASSAY_OK);
    assert_int_equal(ops->int4_encode(w, &shape, got, got_scales, got_zeros, NULL), ASSAY_OK);
    assert_memory_equal(got, want, codes * sizeof *want);
    assert_memory_equal(got_zeros, want_zeros, zeros * sizeof *want_zeros);
    assert_memory_equal(got_scales, want_scales, rows * assay_int4_groups(&shape) * sizeof *want_scales);
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        assay_int4_decode(want, want_scales, symmetric ? NULL : want_zeros, &shape, reference.x);
        ops->int4_decode(want, want_scales, symmetric ? NULL : want_zeros, &shape, decoded.x);
        want_same_bits(decoded.x, reference.x, rows * cols, "codec", "int4", cols);
    }
    guarded_free(&decoded);
    guarded_free(&reference);
}

static void nf4_is_the_same(const struct assay_codec_ops *ops, const float *w, size_t count)
{
    static uint8_t want[COUNT_MAX], got[COUNT_MAX];
    static float want_absmax[COUNT_MAX], got_absmax[COUNT_MAX];
    struct guarded decoded = guarded_new(count), reference = guarded_new(count);
    assert_int_equal(assay_nf4_encode(w, count, 64, want, want_absmax, NULL), ASSAY_OK);
    assert_int_equal(ops->nf4_encode(w, count, 64, got, got_absmax, NULL), ASSAY_OK);
    assert_memory_equal(got, want, assay_nf4_bytes(count));
    assert_memory_equal(got_absmax, want_absmax, assay_nf4_blocks(count, 64) * sizeof *want_absmax);
    for (size_t i = 0; i < count; i++)
        reference.x[i] = assay_nf4_table[i % 2 ? want[i / 2] & 0xf : want[i / 2] >> 4] * want_absmax[i / 64];
    ops->nf4_decode(want, want_absmax, count, 64, decoded.x);
    want_same_bits(decoded.x, reference.x, count, "codec", "nf4", count);
    guarded_free(&decoded);
    guarded_free(&reference);
}

static void every_path_gives_the_codes_and_values_of_the_reference(void **state)
{
    (void)state;
    size_t paths = 0;
    for (const struct assay_kernels *path; (path = assay_kernels_at(paths)); paths++) {
        const struct assay_codec_ops *ops = assay_codec_ops(path);
        for (size_t c = 0; c < ASSAY_COUNT(columns); c++)
            for (size_t rows = 1; rows <= ROWS_MAX; rows += 4) {
                struct guarded w;
                weights_of(&w, rows * columns[c], (uint32_t)(rows * 1000 + c));
                int8_is_the_same(ops, w.x, rows, columns[c]);
                int4_is_the_same(ops, w.x, rows, columns[c], ASSAY_MAX(columns[c], 8));
                int4_is_the_same(ops, w.x, rows, columns[c], 32);
                nf4_is_the_same(ops, w.x, rows * columns[c]);
                guarded_free(&w);
            }
    }
    assert_true(paths >= 1);
}

static void every_path_refuses_what_is_not_finite(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct assay_int4_shape shape = {2, 64, 32};
    for (size_t p = 0; assay_kernels_at(p); p++)
        for (size_t i = 0; i < ASSAY_COUNT(bad); i++)
            for (size_t place = 0; place < 128; place += 9) {
                const struct assay_codec_ops *ops = assay_codec_ops(assay_kernels_at(p));
                uint32_t codes[64], zeros[64];
                float scales[64];
                struct guarded w = guarded_noise(128);
                w.x[place] = bad[i];
                assert_int_equal(ops->int8_encode(w.x, 2, 64, (int8_t *)codes, scales, NULL), ASSAY_INVALID_ARGUMENT);
                assert_int_equal(ops->int4_encode(w.x, &shape, codes, scales, zeros, NULL), ASSAY_INVALID_ARGUMENT);
                assert_int_equal(ops->nf4_encode(w.x, 128, 64, (uint8_t *)codes, scales, NULL), ASSAY_INVALID_ARGUMENT);
                guarded_free(&w);
            }
}

static void every_path_widens_exactly(void **state)
{
    (void)state;
    enum { N = 77 };
    unsigned char bytes[4 * N + 1];
    noise_seed(5);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(noise() * 127);
    static const enum assay_dtype dtypes[] = {ASSAY_F32, ASSAY_F16, ASSAY_BF16};
    for (size_t p = 0; assay_kernels_at(p); p++)
        for (size_t d = 0; d < ASSAY_COUNT(dtypes); d++)
            for (size_t n = 0; n <= N; n++) {
                struct guarded got = guarded_new(n + 1), want = guarded_new(n + 1);
                assay_codec_ops(assay_kernels_at(p))->widen(dtypes[d], bytes + 1, n, got.x + 1);
                assert_true(assay_dtype_to_f32(dtypes[d], bytes + 1, n, want.x + 1));
                want_same_bits(got.x + 1, want.x + 1, n, assay_kernels_at(p)->name, "widen", n);
                guarded_free(&got);
                guarded_free(&want);
            }
}

static void errors_are_sums_of_four_lanes_on_every_path(void **state)
{
    (void)state;
    for (size_t n = 0; n < 70; n++) {
        struct guarded x = guarded_noise(n), y = guarded_noise(n);
        struct assay_error_sums want = {0};
        for (size_t i = 0; i < n; i++) {
            double a = (double)x.x[i], b = (double)y.x[i], d = a - b;
            want.xx[i % 4] += a * a;
            want.yy[i % 4] += b * b;
            want.xy[i % 4] += a * b;
            want.difference_squared[i % 4] += d * d;
            want.difference_max[i % 4] = fmax(want.difference_max[i % 4], fabs(d));
        }
        for (size_t p = 0; assay_kernels_at(p); p++) {
            const struct assay_codec_ops *ops = assay_codec_ops(assay_kernels_at(p));
            struct assay_error_sums whole = {0}, pieces = {0};
            size_t first = n / 8 * 4;
            ops->add_errors(x.x, y.x, n, &whole);
            ops->add_errors(x.x, y.x, first, &pieces);
            ops->add_errors(x.x + first, y.x + first, n - first, &pieces);
            assert_memory_equal(&whole, &want, sizeof want);
            assert_memory_equal(&pieces, &want, sizeof want);
        }
        guarded_free(&x);
        guarded_free(&y);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_path_gives_the_codes_and_values_of_the_reference),
        cmocka_unit_test(every_path_refuses_what_is_not_finite),
        cmocka_unit_test(every_path_widens_exactly),
        cmocka_unit_test(errors_are_sums_of_four_lanes_on_every_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
