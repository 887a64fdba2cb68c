#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/quant/int4.h"
#include "common/quant/int8.h"
#include "common/quant/nf4.h"
#include "common/quant/scheme.h"
#include "tests/cmocka_all.h"

static void codes_are_rounded_half_to_even_and_clamped(void **state)
{
    (void)state;
    /* The largest magnitude makes the scale exactly 1. */
    static const float row[] = {127.5f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127.5f, 126.5f, 127.49f, 0.0f, -0.0f, -126.6f};
    static const int8_t wanted[] = {127, 0, 2, 2, 0, -2, -128, 126, 127, 0, 0, -127};
    int8_t codes[ASSAY_COUNT(row)];
    float scale = 0;
    assert_int_equal(assay_int8_encode(row, 1, ASSAY_COUNT(row), codes, &scale, NULL), ASSAY_OK);
    assert_true(scale == 1.0f);
    assert_memory_equal(codes, wanted, sizeof wanted);
}

static void a_row_of_zeros_has_epsilon_for_its_scale(void **state)
{
    (void)state;
    static const float row[] = {0.0f, -0.0f, 0.0f};
    int8_t codes[3] = {1, 1, 1};
    float scale = 0;
    assert_int_equal(assay_int8_encode(row, 1, 3, codes, &scale, NULL), ASSAY_OK);
    assert_true(scale == FLT_EPSILON);
    assert_memory_equal(codes, ((int8_t[]){0, 0, 0}), 3);
}

static void the_ends_of_the_range_of_floats_are_encoded(void **state)
{
    (void)state;
    static const float rows[3][2] = {{FLT_MAX, -FLT_MAX}, {FLT_TRUE_MIN, -1e-30f}, {FLT_TRUE_MIN, -FLT_TRUE_MIN}};
    int8_t codes[6];
    float scales[3];
    assert_int_equal(assay_int8_encode(&rows[0][0], 3, 2, codes, scales, NULL), ASSAY_OK);
    assert_memory_equal(codes, ((int8_t[]){127, -128, 0, -128, 0, 0}), 6);
    assert_true(scales[0] == FLT_MAX / 127.5f && scales[1] == 1e-30f / 127.5f && scales[2] == FLT_EPSILON);
}

static void weights_that_are_not_finite_are_refused_by_place(void **state)
{
    (void)state;
    static const float values[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < ASSAY_COUNT(values); i++) {
        float weights[3 * 5] = {0};
        weights[2 * 5 + 3] = values[i];
        int8_t codes[3 * 5];
        float scales[3];
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_int8_encode(weights, 3, 5, codes, scales, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "row 2, column 3"));
    }
}

/* The definition, element by element. */
static int8_t code_of(float x, float scale)
{
    return (int8_t)rintf(fminf(fmaxf(x / scale, -128.0f), 127.0f));
}

static void every_length_of_row_gives_what_the_definition_gives(void **state)
{
    (void)state;
    enum { COLS_MAX = 70 };
    uint32_t seed = 1;
    for (size_t cols = 0; cols <= COLS_MAX; cols++) {
        float row[COLS_MAX] = {0}, decoded[COLS_MAX];
        int8_t codes[COLS_MAX];
        float most = 0, scale = 0;
        for (size_t i = 0; i < cols; i++) {
            seed = seed * 1664525u + 1013904223u;
            row[i] = ((float)(seed >> 8) - 8388608.0f) / 8388608.0f;
            most = fmaxf(most, fabsf(row[i]));
        }
        assert_int_equal(assay_int8_encode(row, 1, cols, codes, &scale, NULL), ASSAY_OK);
        assert_true(scale == (most > 0 ? most / 127.5f : FLT_EPSILON));
        assay_int8_decode(codes, &scale, 1, cols, decoded);
        for (size_t i = 0; i < cols; i++) {
            assert_int_equal(codes[i], code_of(row[i], scale));
            assert_true(decoded[i] == (float)codes[i] * scale);
        }
    }
}

static struct assay_spec spec_of(const char *text)
{
    struct assay_spec spec;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_spec_parse(text, &spec, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return spec;
}

static void texts_of_one_meaning_have_one_canonical_form(void **state)
{
    (void)state;
    static const struct {
        const char *text, *canonical;
    } cases[] = {
        {"int8", "int8"},
        {"int8:compute=f32", "int8"},
        {"fp32", "fp32"},
        {"fp32:compute=f32", "fp32"},
        {"fp16", "fp16"},
        {"fp32:compute=bf16", "fp32:compute=bf16"},
        {"bf16:compute=bf16", "bf16"},
        {"bf16:compute=f32", "bf16:compute=f32"},
        {"fp32:engine=any", "fp32"},
        {"fp32:engine=transformers", "fp32:engine=transformers"},
        {"nf4:engine=assay:double_quant=false", "nf4:double_quant=false:engine=assay"},
        {"nf4:double_quant=true", "nf4"},
        {"nf4:double_quant=false:compute=bf16", "nf4:compute=bf16:double_quant=false"},
        {"int4:group_size=64:compute=f32", "int4:group_size=64"},
        {"int4:group_size=channel:compute=bf16", "int4:compute=bf16:group_size=channel"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        char text[ASSAY_SPEC_TEXT_MAX];
        struct assay_spec spec = spec_of(cases[i].text);
        assert_string_equal(assay_spec_format(&spec, text), cases[i].canonical);
        const char *name = assay_scheme_name(spec.scheme);
        assert_memory_equal(name, cases[i].canonical, strlen(name));
        struct assay_spec again = spec_of(text);
        assert_true(again.scheme == spec.scheme && again.compute == spec.compute &&
                    again.group_size == spec.group_size && again.double_quant == spec.double_quant &&
                    again.engine == spec.engine);
    }
}

static void a_bad_text_is_answered_with_what_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "unknown scheme '', known: fp32, fp16, bf16, int8, nf4, int4"},
        {"int9", "unknown scheme 'int9', known: fp32, fp16, bf16, int8, nf4, int4"},
        {"INT8", "unknown scheme 'INT8'"},
        {"int8:", "expected key=value, found ''"},
        {"int8:compute", "expected key=value, found 'compute'"},
        {"int8:compute=", "'compute' cannot be '', known: f32, bf16"},
        {"int8:compute=f16", "'compute' cannot be 'f16', known: f32, bf16"},
        {"int8:group_size=64", "unknown parameter 'group_size', known: compute, engine"},
        {"nf4:group_size=64", "unknown parameter 'group_size', known: compute, double_quant, engine"},
        {"int4:group_size=48", "'group_size' cannot be '48', known: 32, 64, 128, 256, channel"},
        {"int8:compute=f32:compute=f32", "'compute' is given twice"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_spec spec;
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_spec_parse(cases[i].text, &spec, &err), ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, cases[i].sentence))
            fail_msg("case %zu: wanted '%s', found '%s'", i, cases[i].sentence, err.text);
    }
    char text[2 * ASSAY_SPEC_TEXT_MAX];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    struct assay_spec spec;
    assert_int_equal(assay_spec_parse(text, &spec, NULL), ASSAY_INVALID_ARGUMENT);
}

static void variants_differ_by_model_and_by_scheme(void **state)
{
    (void)state;
    struct assay_model_id one = {{{1}}}, two = {{{2}}};
    struct assay_spec int8 = spec_of("int8"), same = spec_of("int8:compute=f32"), fp32 = spec_of("fp32");
    struct assay_variant_id a = assay_variant_id_of(&one, &int8), b = assay_variant_id_of(&one, &same);
    struct assay_variant_id c = assay_variant_id_of(&one, &fp32), d = assay_variant_id_of(&two, &int8);
    assert_true(assay_digest_equal(&a.digest, &b.digest));
    assert_false(assay_digest_equal(&a.digest, &c.digest));
    assert_false(assay_digest_equal(&a.digest, &d.digest));
}

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return ((float)(*seed >> 8) - 8388608.0f) / 8388608.0f;
}

/* The definition, element by element. */
static void every_length_of_group_gives_what_int4_is_defined_to_give(void **state)
{
    (void)state;
    enum { ROWS = 9, COLS_MAX = 150, GROUP = 32 };
    static float weights[ROWS * COLS_MAX], decoded[ROWS * COLS_MAX], scales[ROWS * 5];
    static uint32_t codes[ROWS * 19], zeros[2 * 5];
    uint32_t seed = 3;
    for (size_t cols = 1; cols <= COLS_MAX; cols++) {
        const struct assay_int4_shape shape = {ROWS, cols, cols % 2 ? GROUP : cols};
        for (size_t i = 0; i < ROWS * cols; i++)
            weights[i] = noise(&seed) + 0.25f;
        assert_int_equal(assay_int4_encode(weights, &shape, codes, scales, zeros, NULL), ASSAY_OK);
        assay_int4_decode(codes, scales, zeros, &shape, decoded);
        for (size_t i = 0; i < ROWS * cols; i++) {
            size_t r = i / cols, begin = i % cols / shape.group * shape.group;
            size_t end = ASSAY_MIN(begin + shape.group, cols);
            float lo = 0, hi = 0;
            for (size_t c = begin; c < end; c++) {
                lo = fminf(lo, weights[r * cols + c]);
                hi = fmaxf(hi, weights[r * cols + c]);
            }
            float scale = (hi - lo) / 15.0f, zero = rintf(fminf(fmaxf(-8.0f - lo / scale, -8.0f), 7.0f));
            float q = rintf(fminf(fmaxf(weights[i] / scale + zero, -8.0f), 7.0f));
            assert_true(decoded[i] == (q - zero) * scale);
        }
        for (size_t r = 0; cols % 8 && r < ROWS; r++)
            assert_int_equal(codes[(r + 1) * assay_int4_words(&shape) - 1] >> 4 * (cols % 8), 0);
    }
}

static void nearest_value_by_distance(float v, float *ret)
{
    *ret = assay_nf4_table[0];
    for (size_t k = 1; k < ASSAY_COUNT(assay_nf4_table); k++)
        if (v > (assay_nf4_table[k - 1] + assay_nf4_table[k]) / 2)
            *ret = assay_nf4_table[k];
}

static void every_length_of_tensor_gives_what_nf4_is_defined_to_give(void **state)
{
    (void)state;
    enum { COUNT_MAX = 200 };
    float weights[COUNT_MAX], decoded[COUNT_MAX], absmax[4];
    uint8_t packed[COUNT_MAX / 2];
    uint32_t seed = 5;
    for (size_t count = 1; count <= COUNT_MAX; count++) {
        for (size_t i = 0; i < count; i++)
            weights[i] = noise(&seed);
        assert_int_equal(assay_nf4_encode(weights, count, 64, packed, absmax, NULL), ASSAY_OK);
        assay_nf4_decode(packed, absmax, count, 64, decoded);
        for (size_t i = 0; i < count; i++) {
            size_t begin = i / 64 * 64, end = ASSAY_MIN(begin + 64, count);
            float most = 0, value;
            for (size_t k = begin; k < end; k++)
                most = fmaxf(most, fabsf(weights[k]));
            assert_true(absmax[i / 64] == most);
            nearest_value_by_distance(end - begin == 64 ? weights[i] * (1.0f / most) : weights[i] / most, &value);
            assert_true(decoded[i] == value * most);
        }
        if (count % 2)
            assert_int_equal(packed[count / 2] & 15, 7);
    }
}

static void four_bit_schemes_refuse_what_is_not_finite(void **state)
{
    (void)state;
    static const float values[] = {NAN, -NAN, INFINITY, -INFINITY};
    const struct assay_int4_shape shape = {3, 40, 32};
    for (size_t i = 0; i < ASSAY_COUNT(values); i++) {
        float weights[3 * 40] = {0}, scales[6];
        uint8_t packed[60];
        uint32_t codes[3 * 5], zeros[2];
        struct assay_err err = ASSAY_ERR_INIT;
        weights[2 * 40 + 33] = values[i];
        assert_int_equal(assay_int4_encode(weights, &shape, codes, scales, zeros, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "row 2, column 33"));
        assert_int_equal(assay_nf4_encode(weights, 120, 64, packed, scales, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, "element 113"));
    }
}

static void the_ends_of_the_range_of_floats_have_finite_int4_scales(void **state)
{
    (void)state;
    const float rows[2][8] = {{FLT_MAX, -FLT_MAX}, {FLT_TRUE_MIN, -FLT_TRUE_MIN}};
    const struct assay_int4_shape shape = {2, 8, 8};
    float scales[2], decoded[16];
    uint32_t codes[2], zeros[1];
    assert_int_equal(assay_int4_encode(&rows[0][0], &shape, codes, scales, zeros, NULL), ASSAY_OK);
    assay_int4_decode(codes, scales, zeros, &shape, decoded);
    assert_true(isfinite(scales[0]) && scales[1] > 0);
    assert_true(decoded[0] > FLT_MAX / 2 && decoded[1] < -FLT_MAX / 2);
}

static void the_group_size_of_a_model_divides_all_its_rows(void **state)
{
    (void)state;
    assert_int_equal(assay_int4_group_size((const size_t[]){512, 1024}, 2), 128);
    assert_int_equal(assay_int4_group_size((const size_t[]){192, 512}, 2), 64);
    assert_int_equal(assay_int4_group_size((const size_t[]){128, 96}, 2), 32);
    assert_int_equal(assay_int4_group_size((const size_t[]){128, 100}, 2), ASSAY_GROUP_CHANNEL);
}

/* The nearest of 256 values, by trying them all. */
static void quantized_scales_are_the_nearest_for_every_value(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static float absmax[COUNT], decoded[COUNT], absmax2[4], map[256];
    static uint8_t codes[COUNT];
    float offset;
    uint32_t seed = 7;
    for (size_t i = 0; i < COUNT; i++)
        absmax[i] = noise(&seed) + 1.0f;
    assay_nested_map(map);
    for (size_t k = 1; k < 256; k++)
        assert_true(map[k - 1] < map[k]);
    assay_nested_encode(absmax, COUNT, map, codes, absmax2, &offset);
    assay_nested_decode(codes, absmax2, COUNT, ASSAY_NF4_NESTED_BLOCK, map, offset, decoded);
    for (size_t i = 0; i < COUNT; i++) {
        float scaled = (absmax[i] - offset) * (1.0f / absmax2[i / 256]), least = INFINITY;
        for (size_t k = 0; k < 256; k++)
            least = fminf(least, fabsf(map[k] - scaled));
        assert_true(fabsf(map[codes[i]] - scaled) == least);
        assert_true(decoded[i] == map[codes[i]] * absmax2[i / 256] + offset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_rounded_half_to_even_and_clamped),
        cmocka_unit_test(a_row_of_zeros_has_epsilon_for_its_scale),
        cmocka_unit_test(the_ends_of_the_range_of_floats_are_encoded),
        cmocka_unit_test(weights_that_are_not_finite_are_refused_by_place),
        cmocka_unit_test(every_length_of_row_gives_what_the_definition_gives),
        cmocka_unit_test(every_length_of_group_gives_what_int4_is_defined_to_give),
        cmocka_unit_test(every_length_of_tensor_gives_what_nf4_is_defined_to_give),
        cmocka_unit_test(four_bit_schemes_refuse_what_is_not_finite),
        cmocka_unit_test(the_ends_of_the_range_of_floats_have_finite_int4_scales),
        cmocka_unit_test(the_group_size_of_a_model_divides_all_its_rows),
        cmocka_unit_test(quantized_scales_are_the_nearest_for_every_value),
        cmocka_unit_test(texts_of_one_meaning_have_one_canonical_form),
        cmocka_unit_test(a_bad_text_is_answered_with_what_is_known),
        cmocka_unit_test(variants_differ_by_model_and_by_scheme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
