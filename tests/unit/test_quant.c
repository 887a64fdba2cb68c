#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/quant/int8.h"
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
    } cases[] = {{"int8", "int8"}, {"int8:compute=f32", "int8"}, {"fp32", "fp32"}, {"fp32:compute=f32", "fp32"}};
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        char text[ASSAY_SPEC_TEXT_MAX];
        struct assay_spec spec = spec_of(cases[i].text);
        assert_string_equal(assay_spec_format(&spec, text), cases[i].canonical);
        assert_string_equal(assay_scheme_name(spec.scheme), cases[i].canonical);
    }
}

static void a_bad_text_is_answered_with_what_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *text, *sentence;
    } cases[] = {
        {"", "unknown scheme '', known: fp32, int8"},
        {"int9", "unknown scheme 'int9', known: fp32, int8"},
        {"INT8", "unknown scheme 'INT8'"},
        {"int8:", "expected key=value, found ''"},
        {"int8:compute", "expected key=value, found 'compute'"},
        {"int8:compute=", "'compute' cannot be '', known: f32"},
        {"int8:compute=f16", "'compute' cannot be 'f16', known: f32"},
        {"int8:group_size=64", "unknown parameter 'group_size', known: compute"},
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_rounded_half_to_even_and_clamped),
        cmocka_unit_test(a_row_of_zeros_has_epsilon_for_its_scale),
        cmocka_unit_test(the_ends_of_the_range_of_floats_are_encoded),
        cmocka_unit_test(weights_that_are_not_finite_are_refused_by_place),
        cmocka_unit_test(every_length_of_row_gives_what_the_definition_gives),
        cmocka_unit_test(texts_of_one_meaning_have_one_canonical_form),
        cmocka_unit_test(a_bad_text_is_answered_with_what_is_known),
        cmocka_unit_test(variants_differ_by_model_and_by_scheme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
