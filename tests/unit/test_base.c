#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/digest.h"
#include "common/base/dtype.h"
#include "common/base/exit_code.h"
#include "tests/cmocka_all.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void every_f16_and_bf16_survives_the_way_through_f32(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        uint16_t code = (uint16_t)i;
        float half = assay_f16_to_f32(code), bfloat = assay_bf16_to_f32(code);
        if (isnan(half))
            assert_true(isnan(assay_f16_to_f32(assay_f32_to_f16(half))));
        else
            assert_int_equal(assay_f32_to_f16(half), code);
        if (isnan(bfloat))
            assert_true(isnan(assay_bf16_to_f32(assay_f32_to_bf16(bfloat))));
        else
            assert_int_equal(assay_f32_to_bf16(bfloat), code);
    }
}

/* Between two neighbours: below the middle the lower one, above it the upper one, on it the even one. */
static void check_between(uint16_t low, float middle, uint16_t (*narrow)(float))
{
    assert_int_equal(narrow(nextafterf(middle, 0.0f)), low);
    assert_int_equal(narrow(nextafterf(middle, INFINITY)), low + 1);
    assert_int_equal(narrow(middle), low % 2 ? low + 1 : low);
    assert_int_equal(narrow(-middle), 0x8000 | (low % 2 ? low + 1 : low));
}

static void narrowing_rounds_to_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    for (uint16_t low = 0; low < 0x7bff; low++)
        check_between(low, (float)(((double)assay_f16_to_f32(low) + (double)assay_f16_to_f32(low + 1)) / 2),
                      assay_f32_to_f16);
    for (uint16_t low = 1; low < 0x7f7f; low++)
        check_between(low, (float)(((double)assay_bf16_to_f32(low) + (double)assay_bf16_to_f32(low + 1)) / 2),
                      assay_f32_to_bf16);
}

static void what_is_beyond_the_largest_half_becomes_infinity(void **state)
{
    (void)state;
    assert_int_equal(assay_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(assay_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(assay_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(assay_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(assay_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(assay_f32_to_bf16(3.4e38f), 0x7f80);
    assert_int_equal(bits_of(assay_f16_to_f32(0x0001)), bits_of(0x1p-24f));
}

static void arrays_are_widened_from_any_address(void **state)
{
    (void)state;
    unsigned char bytes[1 + 8] = {0xff, 0x00, 0x3c, 0x00, 0xc0, 0x80, 0x3f, 0x00, 0x40};
    float wide[2] = {0};
    assert_true(assay_dtype_to_f32(ASSAY_F16, bytes + 1, 2, wide));
    assert_true(wide[0] == 1.0f && wide[1] == -2.0f);
    assert_true(assay_dtype_to_f32(ASSAY_BF16, bytes + 5, 2, wide));
    assert_true(wide[0] == 1.0f && wide[1] == 2.0f);
    assert_false(assay_dtype_to_f32(ASSAY_I8, bytes, 2, wide));
}

static void dtypes_are_known_by_the_names_of_safetensors(void **state)
{
    (void)state;
#define CHECK(type, size)                                                                                              \
    {                                                                                                                  \
        enum assay_dtype dtype = ASSAY_BOOL;                                                                           \
        assert_true(assay_dtype_parse(#type, &dtype));                                                                 \
        assert_int_equal(dtype, ASSAY_##type);                                                                         \
        assert_string_equal(assay_dtype_name(dtype), #type);                                                           \
        assert_int_equal(assay_dtype_bytes(dtype), size);                                                              \
    }
    ASSAY_DTYPE_MAP(CHECK)
#undef CHECK
    enum assay_dtype kept = ASSAY_I64;
    assert_false(assay_dtype_parse("f32", &kept));
    assert_false(assay_dtype_parse("", &kept));
    assert_int_equal(kept, ASSAY_I64);
}

static void digests_of_bytes_and_of_a_file_are_blake2b(void **state)
{
    (void)state;
    char path[] = "/tmp/assay-test-XXXXXX", hex[ASSAY_DIGEST_HEX];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    struct assay_digest file, bytes = assay_digest_of_bytes("abc", 3);
    assert_int_equal(assay_digest_file(path, &file, NULL), ASSAY_OK);
    unlink(path);
    assert_string_equal(assay_digest_hex(&bytes, hex),
                        "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    assert_true(assay_digest_equal(&file, &bytes));
    assert_int_equal(assay_digest_file(path, &file, NULL), ASSAY_NOT_FOUND);
}

static void different_sequences_of_fields_have_different_digests(void **state)
{
    (void)state;
    struct assay_digest digests[4];
    struct assay_hash hash;
    assay_hash_init(&hash, "d");
    assay_hash_str(&hash, "ab"), assay_hash_str(&hash, "c");
    digests[0] = assay_hash_final(&hash);
    assay_hash_init(&hash, "d");
    assay_hash_str(&hash, "a"), assay_hash_str(&hash, "bc");
    digests[1] = assay_hash_final(&hash);
    assay_hash_init(&hash, "da");
    assay_hash_str(&hash, "b"), assay_hash_str(&hash, "c");
    digests[2] = assay_hash_final(&hash);
    assay_hash_init(&hash, "d");
    assay_hash_str(&hash, "abc");
    digests[3] = assay_hash_final(&hash);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < i; j++)
            assert_false(assay_digest_equal(&digests[i], &digests[j]));
}

static void pieces_of_a_field_are_the_field(void **state)
{
    (void)state;
    struct assay_hash one, two;
    assay_hash_init(&one, "d");
    assay_hash_bytes(&one, "abcdef", 6);
    assay_hash_init(&two, "d");
    assay_hash_u64(&two, 6);
    assay_hash_raw(&two, "abc", 3);
    assay_hash_raw(&two, NULL, 0);
    assay_hash_raw(&two, "def", 3);
    struct assay_digest a = assay_hash_final(&one), b = assay_hash_final(&two);
    assert_true(assay_digest_equal(&a, &b));
}

static void only_64_lower_case_digits_are_a_digest(void **state)
{
    (void)state;
    char hex[ASSAY_DIGEST_HEX + 1], again[ASSAY_DIGEST_HEX];
    struct assay_digest digest = assay_digest_of_bytes("x", 1), back;
    assay_digest_hex(&digest, hex);
    assert_int_equal(assay_digest_parse(hex, &back, NULL), ASSAY_OK);
    assert_string_equal(assay_digest_hex(&back, again), hex);
    static const struct {
        size_t at;
        char c;
    } damages[] = {{0, '\0'}, {63, '\0'}, {0, 'A'}, {63, 'g'}, {10, ' '}};
    for (size_t i = 0; i < ASSAY_COUNT(damages); i++) {
        char damaged[ASSAY_DIGEST_HEX];
        memcpy(damaged, hex, sizeof damaged);
        damaged[damages[i].at] = damages[i].c;
        assert_int_equal(assay_digest_parse(damaged, &back, NULL), ASSAY_INVALID_ARGUMENT);
    }
    strcat(hex, "0");
    assert_int_equal(assay_digest_parse(hex, &back, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_digest_from(hex, 31, "field", &back, NULL), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_digest_from(digest.bytes, 32, "field", &back, NULL), ASSAY_OK);
    assert_true(assay_digest_equal(&digest, &back));
}

static void a_buffer_grows_and_stays_a_string(void **state)
{
    (void)state;
    struct assay_buf buf = ASSAY_BUF_INIT;
    assert_string_equal(assay_buf_cstr(&buf), "");
    for (int i = 0; i < 1000; i++)
        assay_buf_printf(&buf, "%d,", i % 10);
    assay_buf_append(&buf, NULL, 0);
    assay_buf_str(&buf, "end");
    assert_int_equal(buf.len, 2003);
    assert_int_equal(strlen(assay_buf_cstr(&buf)), 2003);
    assert_string_equal(assay_buf_cstr(&buf) + 1996, "8,9,end");
    assert_int_equal(assay_buf_check(&buf, NULL), ASSAY_OK);
    assay_buf_release(&buf);
}

static void a_buffer_that_failed_stays_failed(void **state)
{
    (void)state;
    struct assay_buf buf = ASSAY_BUF_INIT;
    assay_buf_str(&buf, "kept");
    assay_buf_append(&buf, "x", SIZE_MAX / 2);
    assay_buf_str(&buf, "lost");
    assert_string_equal(assay_buf_cstr(&buf), "kept");
    assert_int_equal(assay_buf_check(&buf, NULL), ASSAY_RESOURCE_EXHAUSTED);
    assay_buf_release(&buf);
}

static void an_arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct assay_arena arena = ASSAY_ARENA_INIT;
    for (size_t bytes = 0; bytes < 200000; bytes = bytes * 2 + 1) {
        unsigned char *memory = assay_arena_alloc(&arena, bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        for (size_t i = 0; i < bytes; i++) {
            assert_int_equal(memory[i], 0);
            memory[i] = 1;
        }
    }
    assert_string_equal(assay_arena_strdup(&arena, "text"), "text");
    assert_null(assay_arena_alloc(&arena, SIZE_MAX));
    assay_arena_release(&arena);
    assay_arena_release(&arena);
}

static void every_status_has_its_name_and_an_exit_code(void **state)
{
    (void)state;
#define CHECK(name, number, text)                                                                                      \
    assert_string_equal(assay_status_name(ASSAY_##name), #name);                                                       \
    assert_int_equal(ASSAY_##name, number);                                                                            \
    assert_true((assay_exit_code(ASSAY_##name) == ASSAY_EXIT_PASS) == (ASSAY_##name == ASSAY_OK));
    ASSAY_STATUS_MAP(CHECK)
#undef CHECK
    assert_string_equal(assay_status_name((enum assay_status)99), "UNKNOWN");
    assert_int_equal(assay_exit_code((enum assay_status)99), ASSAY_EXIT_INTERNAL);
    assert_int_equal(assay_exit_code(ASSAY_NOT_FOUND), ASSAY_EXIT_BAD_INPUT);
}

static void a_prefix_goes_before_the_sentence_and_long_ones_are_cut(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_err_set(&err, ASSAY_NOT_FOUND, "no %s", "tensor"), ASSAY_NOT_FOUND);
    assay_err_prefix(&err, "file %d", 7);
    assert_int_equal(err.status, ASSAY_NOT_FOUND);
    assert_string_equal(err.text, "file 7: no tensor");
    for (int i = 0; i < 200; i++)
        assay_err_prefix(&err, "more and more");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(assay_err_set(NULL, ASSAY_ABORTED, "nobody listens"), ASSAY_ABORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_and_bf16_survives_the_way_through_f32),
        cmocka_unit_test(narrowing_rounds_to_the_nearest_and_ties_to_even),
        cmocka_unit_test(what_is_beyond_the_largest_half_becomes_infinity),
        cmocka_unit_test(arrays_are_widened_from_any_address),
        cmocka_unit_test(dtypes_are_known_by_the_names_of_safetensors),
        cmocka_unit_test(digests_of_bytes_and_of_a_file_are_blake2b),
        cmocka_unit_test(different_sequences_of_fields_have_different_digests),
        cmocka_unit_test(pieces_of_a_field_are_the_field),
        cmocka_unit_test(only_64_lower_case_digits_are_a_digest),
        cmocka_unit_test(a_buffer_grows_and_stays_a_string),
        cmocka_unit_test(a_buffer_that_failed_stays_failed),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(every_status_has_its_name_and_an_exit_code),
        cmocka_unit_test(a_prefix_goes_before_the_sentence_and_long_ones_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
