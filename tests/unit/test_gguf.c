/* The GGUF reader: blocks by their definition, metadata of every type, and what is refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/dtype.h"
#include "tests/cmocka_all.h"
#include "tests/unit/gguf_writer.h"

static struct assay_gguf *read_back(struct gguf_writer *writer, unsigned char **ret_bytes)
{
    size_t len;
    struct assay_gguf *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    *ret_bytes = gguf_image(writer, &len);
    if (assay_gguf_parse(*ret_bytes, len, "file", &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return file;
}

static void refused_bytes(const unsigned char *bytes, size_t len, enum assay_status wanted, const char *words)
{
    struct assay_gguf *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    unsigned char *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    enum assay_status status = assay_gguf_parse(exact, len, "file", &file, &err);
    free(exact);
    assert_null(file);
    if (status != wanted || !strstr(err.text, words))
        fail_msg("status %s, '%s'; wanted %s, '%s'", assay_status_name(status), err.text, assay_status_name(wanted),
                 words);
}

static void refused(struct gguf_writer *writer, enum assay_status wanted, const char *words)
{
    size_t len;
    unsigned char *bytes = gguf_image(writer, &len);
    refused_bytes(bytes, len, wanted, words);
    free(bytes);
    gguf_writer_release(writer);
    *writer = (struct gguf_writer){0};
}

static size_t from_hex(const char *hex, unsigned char *bytes)
{
    size_t count = strlen(hex) / 2;
    for (size_t i = 0; i < count; i++)
        bytes[i] = (unsigned char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    return count;
}

static void decode(uint32_t type, const void *bytes, size_t len, float values[32])
{
    struct gguf_writer writer = {0};
    unsigned char *image;
    gguf_put_tensor(&writer, "t", 0, 32, type, bytes, len);
    struct assay_gguf *file = read_back(&writer, &image);
    assert_int_equal(assay_gguf_find(file, "t")->bytes, len);
    assay_gguf_to_f32(assay_gguf_find(file, "t"), 0, 32, values);
    assay_gguf_close(file);
    free(image);
    gguf_writer_release(&writer);
}

static void golden_blocks_say_what_was_quantized(void **state)
{
    (void)state;
    unsigned char bytes[64];
    float values[32];
    size_t len = from_hex("0824bac0c7cdd4dae0e7edf3fa00060d131920262c333940464c53595f666c72797f", bytes);
    decode(ASSAY_GGML_Q8_0, bytes, len, values);
    float d8 = assay_f16_to_f32(0x2408);
    for (int i = 0; i < 32; i++) {
        assert_true(values[i] == d8 * (float)(signed char)bytes[2 + i]);
        assert_true(fabsf(values[i] - (float)(i - 11) * 0.1f) <= d8);
    }
    len = from_hex("00b46c6c5c5b4b4a4a3a3929282818170706", bytes);
    decode(ASSAY_GGML_Q4_0, bytes, len, values);
    for (int i = 0; i < 32; i++) {
        int q = i < 16 ? bytes[2 + i] & 15 : bytes[2 + i - 16] >> 4;
        assert_true(values[i] == -0.25f * (float)(q - 8));
        assert_true(fabsf(values[i] - (float)(i - 11) * 0.1f) <= 0.25f);
    }
}

static void q4_1_adds_its_minimum_after_the_product(void **state)
{
    (void)state;
    unsigned char bytes[20] = {0x00, 0x3c, 0x00, 0xc0, 0x0f, 0xf0}; /* d 1, m -2 */
    float values[32];
    decode(ASSAY_GGML_Q4_1, bytes, sizeof bytes, values);
    for (int i = 0; i < 32; i++)
        assert_true(values[i] == (i == 0 || i == 17 ? 13.0f : -2.0f));
}

static void a_negative_zero_of_q4_0_and_q8_0_stays_one(void **state)
{
    (void)state;
    float values[32];
    unsigned char q4[18] = {0x00, 0xbc}, q8[34] = {0x00, 0xbc}; /* d -1 */
    memset(q4 + 2, 0x88, 16);
    decode(ASSAY_GGML_Q4_0, q4, sizeof q4, values);
    assert_true(values[0] == 0 && signbit(values[0]));
    decode(ASSAY_GGML_Q8_0, q8, sizeof q8, values);
    assert_true(values[31] == 0 && signbit(values[31]));
}

static void plain_types_are_exact_and_ranges_begin_anywhere(void **state)
{
    (void)state;
    struct gguf_writer writer = {.version = 2};
    unsigned char *image;
    const float wide[6] = {1.1f, -0.0f, 1e-40f, 3e38f, 5, 6};
    const uint16_t half[2] = {0x3c01, 0x0001}, brain[2] = {0x3f81, 0xff80};
    gguf_put_tensor(&writer, "wide", 2, 3, ASSAY_GGML_F32, wide, sizeof wide);
    gguf_put_tensor(&writer, "half", 0, 2, ASSAY_GGML_F16, half, sizeof half);
    gguf_put_tensor(&writer, "brain", 0, 2, ASSAY_GGML_BF16, brain, sizeof brain);
    struct assay_gguf *file = read_back(&writer, &image);
    const struct assay_gguf_tensor *tensor = assay_gguf_find(file, "wide");
    float values[6];
    assert_int_equal(tensor->rank, 2);
    assert_int_equal(tensor->shape[0], 2);
    assert_int_equal(tensor->shape[1], 3);
    assay_gguf_to_f32(tensor, 0, 6, values);
    assert_memory_equal(values, wide, sizeof wide);
    assay_gguf_to_f32(tensor, 3, 3, values);
    assert_memory_equal(values, wide + 3, 3 * sizeof *wide);
    assay_gguf_to_f32(assay_gguf_find(file, "half"), 0, 2, values);
    assert_true(values[0] == 1 + 0x1p-10f && values[1] == 0x1p-24f);
    assay_gguf_to_f32(assay_gguf_find(file, "brain"), 0, 2, values);
    assert_true(values[0] == 1 + 0x1p-7f && values[1] == -INFINITY);
    assert_string_equal(assay_gguf_at(file, 0)->name, "brain");
    assert_null(assay_gguf_at(file, 3));
    assert_null(assay_gguf_find(file, "absent"));
    assay_gguf_close(file);
    free(image);
    gguf_writer_release(&writer);
}

static void metadata_of_every_type_are_read_in_their_range(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    unsigned char *image;
    gguf_put_raw(&writer, "i8", ASSAY_GGUF_I8, "\xff", 1);
    gguf_put_raw(&writer, "u16", ASSAY_GGUF_U16, "\xff\xff", 2);
    gguf_put_raw(&writer, "i64", ASSAY_GGUF_I64, &(int64_t){INT64_MIN}, 8);
    gguf_put_raw(&writer, "u64", ASSAY_GGUF_U64, &(uint64_t){UINT64_MAX}, 8);
    gguf_put_raw(&writer, "f64", ASSAY_GGUF_F64, &(double){0.1}, 8);
    gguf_put_raw(&writer, "odd", ASSAY_GGUF_BOOL, "\2", 1);
    gguf_put_float(&writer, "eps", 1e-5f);
    gguf_put_float(&writer, "nan", NAN);
    gguf_put_bool(&writer, "yes", true);
    gguf_put_text(&writer, "text", "a\xc3\xa9");
    gguf_put_ints(&writer, "ints", (const int32_t[]){-1, 7}, 2);
    struct assay_gguf *file = read_back(&writer, &image);
    struct assay_err err = ASSAY_ERR_INIT;
    int64_t integer = 42;
    double number = 0;
    bool flag = false;
    struct assay_gguf_text text;
    assert_int_equal(assay_gguf_get_int(file, "i8", true, -1, 0, &integer, &err), ASSAY_OK);
    assert_int_equal(integer, -1);
    assert_int_equal(assay_gguf_get_int(file, "u16", true, 0, 65535, &integer, &err), ASSAY_OK);
    assert_int_equal(integer, 65535);
    assert_int_equal(assay_gguf_get_int(file, "i64", true, INT64_MIN, 0, &integer, &err), ASSAY_OK);
    assert_true(integer == INT64_MIN);
    assert_int_equal(assay_gguf_get_int(file, "absent", false, 0, 1, &integer, &err), ASSAY_OK);
    assert_true(integer == INT64_MIN);
    assert_int_equal(assay_gguf_get_int(file, "absent", true, 0, 1, &integer, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_int(file, "u64", true, 0, INT64_MAX, &integer, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_int(file, "u16", true, 0, 65534, &integer, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_int(file, "text", true, 0, 1, &integer, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_int(file, "ints", true, 0, 1, &integer, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_double(file, "eps", true, &number, &err), ASSAY_OK);
    assert_true(number == 1e-5);
    assert_int_equal(assay_gguf_get_double(file, "f64", true, &number, &err), ASSAY_OK);
    assert_true(number == 0.1);
    assert_int_equal(assay_gguf_get_double(file, "nan", true, &number, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_double(file, "i8", true, &number, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_bool(file, "yes", true, &flag, &err), ASSAY_OK);
    assert_true(flag);
    assert_int_equal(assay_gguf_get_bool(file, "odd", true, &flag, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_text(file, "text", true, &text, &err), ASSAY_OK);
    assert_true(assay_gguf_text_is(text, "a\xc3\xa9"));
    int64_t *integers = NULL;
    size_t count = 0;
    assert_int_equal(assay_gguf_get_ints(file, "text", true, &integers, &count, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_gguf_get_ints(file, "ints", true, &integers, &count, &err), ASSAY_OK);
    assert_true(count == 2 && integers[0] == -1 && integers[1] == 7);
    free(integers);
    assay_gguf_close(file);
    free(image);
    gguf_writer_release(&writer);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    size_t len;
    gguf_put_text(&writer, "name", "value");
    gguf_put_ints(&writer, "ints", (const int32_t[]){1, 2}, 2);
    gguf_put_tensor(&writer, "t", 1, 2, ASSAY_GGML_F32, (const float[]){1, 2}, 8);
    unsigned char *bytes = gguf_image(&writer, &len);
    for (size_t cut = 0; cut < len; cut++)
        refused_bytes(bytes, cut, ASSAY_INVALID_ARGUMENT, "file");
    free(bytes);
    gguf_writer_release(&writer);
}

static void broken_headers_and_keys_are_refused(void **state)
{
    (void)state;
    struct gguf_writer w = {.version = 1};
    refused(&w, ASSAY_UNIMPLEMENTED, "version 1");
    w.version = 4;
    refused(&w, ASSAY_UNIMPLEMENTED, "version 4");
    w.version = 3u << 24;
    refused(&w, ASSAY_UNIMPLEMENTED, "big-endian");
    w.keys_count = UINT64_MAX;
    refused(&w, ASSAY_INVALID_ARGUMENT, "keys");
    w.tensors_count = UINT64_MAX / 2;
    refused(&w, ASSAY_INVALID_ARGUMENT, "tensors");
    refused_bytes((const unsigned char *)"GGML....", 8, ASSAY_INVALID_ARGUMENT, "GGUF");
    gguf_put_int(&w, "k", 1);
    gguf_put_int(&w, "k", 2);
    refused(&w, ASSAY_INVALID_ARGUMENT, "'k' stands twice");
    gguf_put_raw(&w, "k", 13, "", 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "value type 13");
    gguf_put_raw(&w, "k", ASSAY_GGUF_ARRAY, (const uint32_t[]){ASSAY_GGUF_ARRAY, 0, 0}, 12);
    refused(&w, ASSAY_INVALID_ARGUMENT, "elements of type 9");
    gguf_put_raw(&w, "k", ASSAY_GGUF_ARRAY, (const uint32_t[]){ASSAY_GGUF_U64, 0, 0x80000000}, 12);
    refused(&w, ASSAY_INVALID_ARGUMENT, "at most");
    gguf_put_raw(&w, "k", ASSAY_GGUF_TEXT, (const uint32_t[]){0xffffffff, 0xffffffff}, 8);
    refused(&w, ASSAY_INVALID_ARGUMENT, "at most");
    static const char *const bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "a\xe2\x82", "\xf8"};
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        gguf_put_text(&w, "k", bad[i]);
        refused(&w, ASSAY_INVALID_ARGUMENT, "UTF-8");
    }
    gguf_put_int(&w, "general.alignment", 48);
    refused(&w, ASSAY_INVALID_ARGUMENT, "power of two");
    gguf_put_int(&w, "general.alignment", 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "general.alignment");
}

static void broken_tensors_are_refused(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    const float data[16] = {0};
    gguf_put_description(&w, "t", 0, NULL, ASSAY_GGML_F32, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "0 dimensions");
    gguf_put_description(&w, "t", 5, (const uint64_t[]){1, 1, 1, 1, 1}, ASSAY_GGML_F32, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "5 dimensions");
    gguf_put_description(&w, "t", 2, (const uint64_t[]){1, 0}, ASSAY_GGML_F32, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "dimension of 0");
    gguf_put_description(&w, "t", 2, (const uint64_t[]){UINT64_MAX, 2}, ASSAY_GGML_F32, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "too many elements");
    gguf_put_description(&w, "t", 1, (const uint64_t[]){UINT64_MAX / 2}, ASSAY_GGML_F32, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "too many elements");
    gguf_put_description(&w, "t", 1, (const uint64_t[]){256}, 21, 0);
    refused(&w, ASSAY_UNIMPLEMENTED, "IQ3_S (21)");
    gguf_put_description(&w, "t", 1, (const uint64_t[]){256}, 1000, 0);
    refused(&w, ASSAY_UNIMPLEMENTED, "1000");
    gguf_put_description(&w, "t", 1, (const uint64_t[]){48}, ASSAY_GGML_Q8_0, 0);
    refused(&w, ASSAY_INVALID_ARGUMENT, "blocks of 32");
    gguf_put_tensor(&w, "t", 0, 16, ASSAY_GGML_F32, data, sizeof data);
    gguf_put_description(&w, "u", 1, (const uint64_t[]){8}, ASSAY_GGML_F32, 32);
    refused(&w, ASSAY_INVALID_ARGUMENT, "overlap");
    gguf_put_tensor(&w, "t", 0, 16, ASSAY_GGML_F32, data, sizeof data);
    gguf_put_tensor(&w, "t", 0, 16, ASSAY_GGML_F32, data, sizeof data);
    refused(&w, ASSAY_INVALID_ARGUMENT, "'t' stands twice");
    gguf_put_tensor(&w, "t", 0, 16, ASSAY_GGML_F32, data, sizeof data);
    gguf_put_description(&w, "u", 1, (const uint64_t[]){1}, ASSAY_GGML_F32, 8);
    refused(&w, ASSAY_INVALID_ARGUMENT, "no multiple of 32");
    gguf_put_description(&w, "t", 1, (const uint64_t[]){1}, ASSAY_GGML_F32, UINT64_MAX - 31);
    refused(&w, ASSAY_INVALID_ARGUMENT, "beyond the file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_blocks_say_what_was_quantized),
        cmocka_unit_test(q4_1_adds_its_minimum_after_the_product),
        cmocka_unit_test(a_negative_zero_of_q4_0_and_q8_0_stays_one),
        cmocka_unit_test(plain_types_are_exact_and_ranges_begin_anywhere),
        cmocka_unit_test(metadata_of_every_type_are_read_in_their_range),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(broken_headers_and_keys_are_refused),
        cmocka_unit_test(broken_tensors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
