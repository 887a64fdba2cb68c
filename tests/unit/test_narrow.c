/* Records of f16 on the worker's side. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/dtype.h"
#include "services/inference/narrow.h"

static struct assay_chunk_key key_of(unsigned n)
{
    struct assay_hash hash;
    assay_hash_init(&hash, "test.chunk");
    assay_hash_u64(&hash, n);
    return (struct assay_chunk_key){assay_hash_final(&hash)};
}

static void values_are_rounded_to_even_in_place_too(void **state)
{
    /* 2049 lies between 2048 and 2050, 2051 between 2050 and 2052. */
    static const float values[] = {1.0f, -0.5f, 2049.0f, 2051.0f, 65504.0f, 65519.0f, 0x1p-24f, 0.0f};
    static const float want[] = {1.0f, -0.5f, 2048.0f, 2052.0f, 65504.0f, 65504.0f, 0x1p-24f, 0.0f};
    struct assay_chunk_key key = key_of(1);
    float rows[ASSAY_COUNT(values)];
    uint16_t halves[ASSAY_COUNT(values)];
    (void)state;
    memcpy(rows, values, sizeof rows);
    assert_int_equal(assay_f16_narrow(&key, rows, 2, 4, halves, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(values); i++)
        assert_true(assay_f16_to_f32(halves[i]) == want[i]);
    assert_int_equal(assay_f16_narrow(&key, rows, 2, 4, rows, NULL), ASSAY_OK);
    assert_memory_equal(rows, halves, sizeof halves);
}

static void what_f16_cannot_hold_is_refused_by_chunk_and_row(void **state)
{
    static const float bad[] = {65520.0f, -1e9f, INFINITY, NAN};
    struct assay_chunk_key key = key_of(2);
    char hex[ASSAY_DIGEST_HEX];
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        float rows[] = {1, 2, 3, bad[i]};
        uint16_t halves[4];
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_f16_narrow(&key, rows, 2, 2, halves, &err), ASSAY_INVALID_ARGUMENT);
        assert_non_null(strstr(err.text, assay_digest_hex(&key.digest, hex)));
        assert_non_null(strstr(err.text, "row 1"));
    }
}

static void about_one_chunk_in_sixteen_is_measured(void **state)
{
    const struct assay_chunk_key nobody = {{{0}}};
    unsigned measured = 0;
    (void)state;
    for (unsigned i = 0; i < 16000; i++) {
        struct assay_chunk_key key = key_of(i);
        measured += assay_f16_is_measured(&key, &nobody);
    }
    assert_in_range(measured, 800, 1200);
}

static void the_first_chunk_of_a_job_is_measured(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        struct assay_chunk_key key = key_of(i), other = key_of(i + 1000);
        assert_true(assay_f16_is_measured(&key, &key));
        assert_true(assay_f16_is_measured(&key, &other) == (key.digest.bytes[0] % ASSAY_F16_MEASURED_ONE_IN == 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_rounded_to_even_in_place_too),
        cmocka_unit_test(what_f16_cannot_hold_is_refused_by_chunk_and_row),
        cmocka_unit_test(about_one_chunk_in_sixteen_is_measured),
        cmocka_unit_test(the_first_chunk_of_a_job_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
