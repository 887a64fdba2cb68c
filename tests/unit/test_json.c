#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/json.h"
#include "tests/cmocka_all.h"

static void valid_documents_parse(void **state)
{
    (void)state;
    static const char *const documents[] = {
        "0",
        "-0.5e+10",
        " [ ] ",
        "{}",
        "null",
        "true",
        "\"\"",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"d\":\"\\u00e9\\n\"}",
        "\"\\ud83d\\ude00 \xf0\x9f\x98\x80\"",
        "[1,\t2\r\n]",
        "{\"a\":1,\"A\":2}",
        "[{\"a\":1},{\"a\":1}]",
    };
    for (size_t i = 0; i < ASSAY_COUNT(documents); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        assay_auto(assay_json_delete) cJSON *json = NULL;
        if (assay_json_parse(documents[i], strlen(documents[i]), "doc", &json, &err) != ASSAY_OK)
            fail_msg("%s: %s", documents[i], err.text);
    }
}

static void invalid_documents_are_refused_at_the_offending_byte(void **state)
{
    (void)state;
#define CASE(text, offset, reason)                                                                                     \
    {                                                                                                                  \
        text, sizeof text - 1, offset, reason                                                                          \
    }
    static const struct {
        const char *text;
        size_t len, offset;
        const char *reason;
    } cases[] = {
        CASE("", 0, "ends where a value should be"),
        CASE("  ", 2, "ends where a value should be"),
        CASE("{", 1, "expected a key"),
        CASE("[1", 2, "ends inside"),
        CASE("[1,]", 3, "expected a value"),
        CASE("{\"a\" 1}", 5, "expected ':'"),
        CASE("{\"a\":1,}", 7, "expected a key"),
        CASE("{\"a\":1 \"b\":2}", 7, "expected ',' or '}'"),
        CASE("[1 2]", 3, "expected ',' or ']'"),
        CASE("[1}", 2, "expected ',' or ']'"),
        CASE("1 2", 2, "bytes after the value"),
        CASE("{}x", 2, "bytes after the value"),
        CASE("01", 1, "bytes after the value"),
        CASE("+1", 0, "expected a value"),
        CASE("1.", 2, "expected a digit"),
        CASE(".5", 0, "expected a value"),
        CASE("1e", 2, "expected a digit"),
        CASE("-", 1, "expected a digit"),
        CASE("NaN", 0, "expected a value"),
        CASE("nul", 0, "expected a value"),
        CASE("\"abc", 4, "ends inside a string"),
        CASE("\"a\nb\"", 2, "control character"),
        CASE("\"a\0b\"", 2, "control character"),
        CASE("\"\\x\"", 2, "unknown escape"),
        CASE("\"\\u12g4\"", 5, "four hexadecimal digits"),
        CASE("\"\\u0000\"", 7, "NUL"),
        CASE("\"\\ud83d\"", 7, "surrogate"),
        CASE("\"\\ude00\"", 7, "surrogate"),
        CASE("\"\\ud83d\\u0041\"", 13, "surrogate"),
        CASE("\"\xff\"", 1, "invalid UTF-8"),
        CASE("\"\xc0\x80\"", 1, "invalid UTF-8"),
        CASE("\"\xed\xa0\x80\"", 2, "invalid UTF-8"),
        CASE("\"\xf4\x90\x80\x80\"", 2, "invalid UTF-8"),
        CASE("\"\xe2\x82\"", 3, "invalid UTF-8"),
        CASE("\xef\xbb\xbf{}", 0, "expected a value"),
        CASE("1111111111111111111111111111111111111111111111111111111111111111", 0, "63 characters"),
    };
#undef CASE
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        cJSON *json = NULL;
        char place[32];
        snprintf(place, sizeof place, "doc: byte %zu:", cases[i].offset);
        assert_int_equal(assay_json_parse(cases[i].text, cases[i].len, "doc", &json, &err), ASSAY_INVALID_ARGUMENT);
        assert_null(json);
        if (!strstr(err.text, place) || !strstr(err.text, cases[i].reason))
            fail_msg("case %zu: wanted '%s %s', found '%s'", i, place, cases[i].reason, err.text);
    }
}

static void nesting_up_to_the_ceiling_parses_and_one_more_is_refused(void **state)
{
    (void)state;
    char text[2 * (ASSAY_JSON_DEPTH_MAX + 1)];
    for (size_t depth = ASSAY_JSON_DEPTH_MAX; depth <= ASSAY_JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assay_auto(assay_json_delete) cJSON *json = NULL;
        struct assay_err err = ASSAY_ERR_INIT;
        assert_int_equal(assay_json_parse(text, 2 * depth, "doc", &json, &err),
                         depth <= ASSAY_JSON_DEPTH_MAX ? ASSAY_OK : ASSAY_INVALID_ARGUMENT);
    }
}

static void a_million_open_brackets_do_not_overflow_the_stack(void **state)
{
    (void)state;
    size_t len = 1000 * 1000;
    char *text = malloc(len);
    assert_non_null(text);
    memset(text, '[', len);
    cJSON *json = NULL;
    assert_int_equal(assay_json_parse(text, len, "doc", &json, NULL), ASSAY_INVALID_ARGUMENT);
    free(text);
}

static void a_key_that_stands_twice_is_refused_at_its_second_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *place;
    } cases[] = {
        {"{\"a\":1,\"b\":2,\"a\":3}", "byte 13"},
        {"{\"a\":1,\"\\u0061\":2}", "byte 7"},
        {"{\"x\":[{\"k\":{\"p\":0,\"q\":1,\"p\":2}}],\"x\":0}", "byte 24"},
        {"{\"\":1,\"\":1}", "byte 6"},
    };
    for (size_t i = 0; i < ASSAY_COUNT(cases); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        cJSON *json = NULL;
        assert_int_equal(assay_json_parse(cases[i].text, strlen(cases[i].text), "doc", &json, &err),
                         ASSAY_INVALID_ARGUMENT);
        if (!strstr(err.text, cases[i].place) || !strstr(err.text, "stands twice"))
            fail_msg("case %zu: wanted '%s', found '%s'", i, cases[i].place, err.text);
    }
}

static cJSON *object_of(const char *text)
{
    cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_json_parse(text, strlen(text), "doc", &json, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    return json;
}

static void integers_are_read_exactly_within_their_range_or_refused(void **state)
{
    (void)state;
    assay_auto(assay_json_delete) cJSON *json =
        object_of("{\"ok\":9007199254740992,\"low\":-3,\"half\":1.5,\"big\":1e300,"
                  "\"huge\":1e999,\"text\":\"7\",\"none\":null}");
    int64_t value = 42;
    assert_int_equal(assay_json_get_int(json, "doc", "ok", true, 0, INT64_MAX, &value, NULL), ASSAY_OK);
    assert_int_equal(value, INT64_C(1) << 53);
    assert_int_equal(assay_json_get_int(json, "doc", "low", true, -3, -3, &value, NULL), ASSAY_OK);
    assert_int_equal(value, -3);
    static const char *const refused[] = {"low", "half", "big", "huge", "text"};
    for (size_t i = 0; i < ASSAY_COUNT(refused); i++) {
        assert_int_equal(assay_json_get_int(json, "doc", refused[i], false, -2, INT64_MAX, &value, NULL),
                         ASSAY_INVALID_ARGUMENT);
        assert_int_equal(value, -3);
    }
}

static void absent_and_null_members_keep_the_default_unless_required(void **state)
{
    (void)state;
    assay_auto(assay_json_delete) cJSON *json = object_of("{\"none\":null}");
    static const char *const keys[] = {"none", "absent"};
    for (size_t i = 0; i < ASSAY_COUNT(keys); i++) {
        for (int required = 0; required < 2; required++) {
            enum assay_status wanted = required ? ASSAY_INVALID_ARGUMENT : ASSAY_OK;
            int64_t integer = 5;
            double number = 5;
            bool flag = true;
            const char *text = "kept";
            assert_int_equal(assay_json_get_int(json, "doc", keys[i], required, 0, 9, &integer, NULL), wanted);
            assert_int_equal(assay_json_get_double(json, "doc", keys[i], required, &number, NULL), wanted);
            assert_int_equal(assay_json_get_bool(json, "doc", keys[i], required, &flag, NULL), wanted);
            assert_int_equal(assay_json_get_string(json, "doc", keys[i], required, &text, NULL), wanted);
            assert_int_equal(integer, 5);
            assert_true(number == 5 && flag && strcmp(text, "kept") == 0);
        }
    }
}

static void members_of_another_type_are_refused_by_name(void **state)
{
    (void)state;
    assay_auto(assay_json_delete) cJSON *json = object_of("{\"n\":1,\"s\":\"x\",\"b\":true,\"huge\":1e999}");
    struct assay_err err = ASSAY_ERR_INIT;
    double number = 0;
    bool flag = false;
    const char *text = NULL;
    assert_int_equal(assay_json_get_double(json, "doc", "s", true, &number, &err), ASSAY_INVALID_ARGUMENT);
    assert_string_equal(err.text, "doc: 's' should be a number, found a string");
    assert_int_equal(assay_json_get_double(json, "doc", "huge", true, &number, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_json_get_bool(json, "doc", "n", true, &flag, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_json_get_string(json, "doc", "b", true, &text, &err), ASSAY_INVALID_ARGUMENT);
    assert_int_equal(assay_json_get_bool(json, "doc", "b", true, &flag, &err), ASSAY_OK);
    assert_int_equal(assay_json_get_string(json, "doc", "s", true, &text, &err), ASSAY_OK);
    assert_int_equal(assay_json_get_double(json, "doc", "n", true, &number, &err), ASSAY_OK);
    assert_true(flag && number == 1 && strcmp(text, "x") == 0);
    assert_int_equal(assay_json_get_bool(cJSON_GetObjectItem(json, "n"), "doc", "b", false, &flag, &err),
                     ASSAY_INVALID_ARGUMENT);
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_json_load("/nonexistent/x.json", &json, &err), ASSAY_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/x.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valid_documents_parse),
        cmocka_unit_test(invalid_documents_are_refused_at_the_offending_byte),
        cmocka_unit_test(nesting_up_to_the_ceiling_parses_and_one_more_is_refused),
        cmocka_unit_test(a_million_open_brackets_do_not_overflow_the_stack),
        cmocka_unit_test(a_key_that_stands_twice_is_refused_at_its_second_place),
        cmocka_unit_test(integers_are_read_exactly_within_their_range_or_refused),
        cmocka_unit_test(absent_and_null_members_keep_the_default_unless_required),
        cmocka_unit_test(members_of_another_type_are_refused_by_name),
        cmocka_unit_test(a_missing_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
