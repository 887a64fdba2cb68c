#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/formats/safetensors.h"
#include "tests/cmocka_all.h"

/* A file in memory of exactly its size, so that a read beyond it is caught by the sanitizers. */
struct image {
    unsigned char *bytes;
    size_t len;
};

static struct image image_of(uint64_t header_bytes, const char *header, size_t data_bytes)
{
    size_t header_len = strlen(header);
    struct image image = {malloc(8 + header_len + data_bytes), 8 + header_len + data_bytes};
    assert_non_null(image.bytes);
    for (int i = 0; i < 8; i++)
        image.bytes[i] = (unsigned char)(header_bytes >> (8 * i));
    memcpy(image.bytes + 8, header, header_len);
    for (size_t i = 0; i < data_bytes; i++)
        image.bytes[8 + header_len + i] = (unsigned char)i;
    return image;
}

static enum assay_status parse(const char *header, size_t data_bytes, struct assay_err *err)
{
    struct image image = image_of(strlen(header), header, data_bytes);
    struct assay_safetensors *file = NULL;
    enum assay_status status = assay_safetensors_parse(image.bytes, image.len, "file", &file, err);
    assert_true((status == ASSAY_OK) == (file != NULL));
    assay_safetensors_close(file);
    free(image.bytes);
    return status;
}

#define T(name, dtype, shape, begin, end)                                                                              \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end "]}"

static void tensors_come_in_file_order_and_are_found_by_name(void **state)
{
    (void)state;
    const char *header = "{" T("z", "F32", "[2,3]", 4, 28) "," T("a", "BF16", "[2]", 0, 4) "," T(
        "empty", "I8", "[0,7]", 28, 28) "," T("scalar", "U8", "[]", 28, 29) ",\"__metadata__\":{\"k\":\"v\"}}  ";
    struct image image = image_of(strlen(header), header, 29);
    struct assay_safetensors *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_safetensors_parse(image.bytes, image.len, "file", &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    static const char *const order[] = {"a", "z", "empty", "scalar"};
    assert_int_equal(assay_safetensors_count(file), ASSAY_COUNT(order));
    for (size_t i = 0; i < ASSAY_COUNT(order); i++) {
        assert_string_equal(assay_safetensors_at(file, i)->name, order[i]);
        assert_ptr_equal(assay_safetensors_find(file, order[i]), assay_safetensors_at(file, i));
    }
    const struct assay_tensor *z = assay_safetensors_find(file, "z");
    assert_int_equal(z->dtype, ASSAY_F32);
    assert_int_equal(z->rank, 2);
    assert_int_equal(z->shape[0], 2);
    assert_int_equal(z->shape[1], 3);
    assert_int_equal(z->bytes, 24);
    assert_int_equal(((const unsigned char *)z->data)[0], 4);
    assert_int_equal(assay_tensor_elements(z), 6);
    assert_int_equal(assay_tensor_elements(assay_safetensors_find(file, "empty")), 0);
    assert_int_equal(assay_tensor_elements(assay_safetensors_find(file, "scalar")), 1);
    assert_null(assay_safetensors_find(file, "absent"));
    assert_null(assay_safetensors_at(file, 4));
    assert_string_equal(assay_safetensors_metadata(file, "k"), "v");
    assert_null(assay_safetensors_metadata(file, "absent"));
    assay_safetensors_close(file);
    free(image.bytes);
}

static void a_file_without_tensors_is_fine(void **state)
{
    (void)state;
    assert_int_equal(parse("{}", 0, NULL), ASSAY_OK);
}

static void hostile_headers_are_refused_each_with_its_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *sentence;
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{", 0, "not valid JSON"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("a", "F32", "[1]", 0, 4) "}", 4, "stands twice"},
        {"{" T("a", "F8_E4M3", "[1]", 0, 1) "}", 1, "unknown dtype 'F8_E4M3'"},
        {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, "more than 8 dimensions"},
        {"{" T("a", "F32", "[4294967296,4294967296]", 0, 4) "}", 4, "overflows"},
        {"{" T("a", "F64", "[4503599627370496,4096]", 0, 4) "}", 4, "overflows"},
        {"{" T("a", "F32", "[2]", 0, 4) "}", 4, "shape and dtype give 8 bytes, the offsets 4"},
        {"{" T("a", "F32", "[1]", 4, 0) "}", 4, "reversed"},
        {"{" T("a", "F32", "[2]", 0, 8) "}", 4, "only 4"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 2, 6) "}", 6, "inside another tensor"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 0, 4) "}", 4, "inside another tensor"},
        {"{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[1]", 6, 10) "}", 10, "leaving a hole"},
        {"{" T("a", "F32", "[1]", 2, 6) "}", 6, "leaving a hole"},
        {"{" T("a", "F32", "[1]", 0, 4) "}", 5, "1 bytes of data belong to no tensor"},
        {"{" T("a", "U8", "[-1]", 0, 1) "}", 1, "dimension 0"},
        {"{" T("a", "U8", "[1.5]", 0, 1) "}", 1, "dimension 0"},
        {"{" T("a", "U8", "[1e300]", 0, 1) "}", 1, "dimension 0"},
        {"{" T("a", "U8", "[9007199254740992]", 0, 1) "}", 1, "dimension 0"},
        {"{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, "dimension 0"},
        {"{" T("a", "U8", "1", 0, 1) "}", 1, "'shape' is not an array"},
        {"{" T("a", "U8", "[1]", 0, 9007199254740993) "}", 1, "'data_offsets'"},
        {"{" T("a", "U8", "[1]", -1, 0) "}", 1, "'data_offsets'"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "'data_offsets'"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "'data_offsets'"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "'data_offsets'"},
        {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'dtype' is not a string"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "'shape' is not an array"},
        {"{\"a\":[]}", 0, "not described by an object"},
        {"{\"__metadata__\":[]}", 0, "'__metadata__' is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "'k' is not a string"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(parse(cases[i].header, cases[i].data_bytes, &err), ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, cases[i].sentence) || !strstr(err.text, "file"))
            fail_msg("case %zu: wanted '%s', found '%s'", i, cases[i].sentence, err.text);
    }
}

static void lengths_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t header_bytes;
        const char *sentence;
    } cases[] = {
        {3, "a header of 3 bytes in a file of 10"},
        {ASSAY_SAFETENSORS_HEADER_BYTES_MAX, "in a file of 10"},
        {ASSAY_SAFETENSORS_HEADER_BYTES_MAX + 1, "at most"},
        {UINT64_MAX, "at most"},
        {0, "not valid JSON"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct image image = image_of(cases[i].header_bytes, "{}", 0);
        struct assay_safetensors *file = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_safetensors_parse(image.bytes, image.len, "file", &file, &err), ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, cases[i].sentence))
            fail_msg("case %zu: wanted '%s', found '%s'", i, cases[i].sentence, err.text);
        free(image.bytes);
    }
}

static void every_truncation_of_a_good_file_is_refused(void **state)
{
    (void)state;
    const char *header = "{" T("a", "F32", "[2]", 0, 8) "}";
    struct image image = image_of(strlen(header), header, 8);
    for (size_t len = 0; len <= image.len; len++) {
        unsigned char *cut = malloc(len + 1);
        assert_non_null(cut);
        memcpy(cut, image.bytes, len);
        struct assay_safetensors *file = NULL;
        assert_int_equal(assay_safetensors_parse(cut, len, "file", &file, NULL),
                         len == image.len ? ASSAY_OK : ASSAY_INVALID_ARGUMENT);
        assay_safetensors_close(file);
        free(cut);
    }
    free(image.bytes);
}

static char path[64];

static int make_path(void **state)
{
    (void)state;
    strcpy(path, "/tmp/assay-test-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    const char *odd = "with \"quotes\", \\, \x01 and \xc3\xa9";
    const struct assay_tensor tensors[] = {
        {.name = odd, .dtype = ASSAY_F32, .rank = 2, .shape = {2, 3}},
        {.name = "none", .dtype = ASSAY_BF16, .rank = 1, .shape = {0}},
        {.name = "a", .dtype = ASSAY_I8, .rank = 0},
    };
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_safetensors_writer *writer = NULL;
    if (assay_safetensors_create(path, tensors, ASSAY_COUNT(tensors), &writer, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    for (unsigned char i = 0; i < 25; i++)
        assert_int_equal(assay_safetensors_append(writer, &i, 1, &err), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, "x", 1, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_safetensors_finish(writer, &err), ASSAY_OK);

    struct assay_safetensors *file = NULL;
    if (assay_safetensors_open(path, &file, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(assay_safetensors_count(file), 3);
    const struct assay_tensor *first = assay_safetensors_find(file, odd);
    assert_non_null(first);
    assert_int_equal((uintptr_t)first->data % 8, 0);
    for (size_t i = 0; i < first->bytes; i++)
        assert_int_equal(((const unsigned char *)first->data)[i], i);
    assert_int_equal(*(const unsigned char *)assay_safetensors_find(file, "a")->data, 24);
    assert_string_equal(assay_safetensors_metadata(file, "format"), "pt");
    assay_safetensors_close(file);
}

static void a_file_that_lacks_declared_bytes_does_not_finish(void **state)
{
    (void)state;
    const struct assay_tensor tensor = {.name = "a", .dtype = ASSAY_F32, .rank = 1, .shape = {2}};
    struct assay_safetensors_writer *writer = NULL;
    assert_int_equal(assay_safetensors_create(path, &tensor, 1, &writer, NULL), ASSAY_OK);
    assert_int_equal(assay_safetensors_append(writer, "1234", 4, NULL), ASSAY_OK);
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_safetensors_finish(writer, &err), ASSAY_FAILED_PRECONDITION);
    assert_non_null(strstr(err.text, "8 bytes of tensors were declared, 4 were written"));
}

static void declarations_that_could_not_be_read_are_refused(void **state)
{
    (void)state;
    const struct assay_tensor cases[][2] = {
        {{.name = "a", .dtype = ASSAY_U8}, {.name = "a", .dtype = ASSAY_U8}},
        {{.name = "a", .dtype = ASSAY_U8}, {.name = "\xff", .dtype = ASSAY_U8}},
        {{.name = "a", .dtype = ASSAY_U8}, {.name = "__metadata__", .dtype = ASSAY_U8}},
        {{.name = "a", .dtype = ASSAY_U8}, {.name = "b", .rank = ASSAY_TENSOR_RANK_MAX + 1}},
        {{.name = "a"}, {.name = "b", .dtype = ASSAY_F32, .rank = 2, .shape = {UINT64_MAX / 4, 2}}},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_safetensors_writer *writer = NULL;
        assert_int_equal(assay_safetensors_create(path, cases[i], 2, &writer, NULL), ASSAY_INVALID_ARGUMENT);
        assert_null(writer);
    }
    assay_safetensors_abandon(NULL);
    assay_safetensors_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_in_file_order_and_are_found_by_name),
        cmocka_unit_test(a_file_without_tensors_is_fine),
        cmocka_unit_test(hostile_headers_are_refused_each_with_its_sentence),
        cmocka_unit_test(lengths_that_lie_are_refused),
        cmocka_unit_test(every_truncation_of_a_good_file_is_refused),
        cmocka_unit_test_setup_teardown(what_is_written_is_read_back, make_path, remove_path),
        cmocka_unit_test_setup_teardown(a_file_that_lacks_declared_bytes_does_not_finish, make_path, remove_path),
        cmocka_unit_test_setup_teardown(declarations_that_could_not_be_read_are_refused, make_path, remove_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
