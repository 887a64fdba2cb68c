/* YAML as a JSON tree. */
#include <stdlib.h>
#include <string.h>

#include "tests/cmocka_all.h"

#include "common/base/buf.h"
#include "common/formats/yaml.h"

static enum assay_status parse(const char *text, struct assay_yaml **ret, struct assay_err *err)
{
    return assay_yaml_parse(text, strlen(text), "job.yaml", ret, err);
}

static void assert_reads_as(const char *text, const char *wanted)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_yaml *yaml = NULL;
    if (parse(text, &yaml, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    char *printed = cJSON_PrintUnformatted(assay_yaml_json(yaml));
    assert_string_equal(printed, wanted);
    free(printed);
    assay_yaml_free(yaml);
}

static void assert_refused(const char *text, const char *wanted)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_yaml *yaml = NULL;
    assert_int_equal(parse(text, &yaml, &err), ASSAY_INVALID_ARGUMENT);
    if (strncmp(err.text, wanted, strlen(wanted)) != 0)
        fail_msg("found '%s', wanted '%s...'", err.text, wanted);
    assert_null(yaml);
}

static void mappings_sequences_and_comments_become_a_tree(void **state)
{
    (void)state;
    assert_reads_as(
        "# a job\nmodel: m  # here\nvariants:\n  - int8\n  - \"int4:group_size=64\"\nthresholds: {kl: 0.1}\n",
        "{\"model\":\"m\",\"variants\":[\"int8\",\"int4:group_size=64\"],\"thresholds\":{\"kl\":0.1}}");
    assert_reads_as("text: |\n  two\n  lines\nfolded: >-\n  one\n  line\n",
                    "{\"text\":\"two\\nlines\\n\",\"folded\":\"one line\"}");
    assert_reads_as("%YAML 1.1\n---\n{\"a\": [1, {\"b\": null}]}\n...\n", "{\"a\":[1,{\"b\":null}]}");
}

static void plain_scalars_have_the_types_of_json_and_quoted_ones_are_strings(void **state)
{
    (void)state;
    assert_reads_as("[true, False, null, ~, NULL, 12, -1.5e3, 0]", "[true,false,null,null,null,12,-1500,0]");
    assert_reads_as(
        "['true', \"12\", yes, no, on, 0x10, 007, 1_000, +1, .5, 1., 1e, .inf, 2024-01-31, 1e999]",
        "[\"true\",\"12\",\"yes\",\"no\",\"on\",\"0x10\",\"007\",\"1_000\",\"+1\",\".5\",\"1.\",\"1e\",\".inf\","
        "\"2024-01-31\",\"1e999\"]");
    assert_reads_as("a:\nb: ''\n", "{\"a\":null,\"b\":\"\"}");
}

static void every_value_has_its_line(void **state)
{
    (void)state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_yaml *yaml = NULL;
    assert_int_equal(parse("# first\nmodel: m\nvariants:\n  - int8\n\n  - nf4\n", &yaml, &err), ASSAY_OK);
    const cJSON *json = assay_yaml_json(yaml);
    const cJSON *variants = cJSON_GetObjectItem(json, "variants");
    assert_int_equal(assay_yaml_line(yaml, json), 2);
    assert_int_equal(assay_yaml_line(yaml, cJSON_GetObjectItem(json, "model")), 2);
    assert_int_equal(assay_yaml_line(yaml, cJSON_GetArrayItem(variants, 0)), 4);
    assert_int_equal(assay_yaml_line(yaml, cJSON_GetArrayItem(variants, 1)), 6);
    assert_int_equal(assay_yaml_line(yaml, NULL), 0);
    assay_yaml_free(yaml);
}

static void what_could_grow_or_mean_two_things_is_refused_with_its_line(void **state)
{
    (void)state;
    assert_refused("a: &x [1]\n", "job.yaml:1: anchors and tags are not supported");
    assert_refused("a: 1\nb: *x\n", "job.yaml:2: aliases are not supported");
    assert_refused("a: !!str 1\n", "job.yaml:1: anchors and tags are not supported");
    assert_refused("a: 1\nb: 2\na: 3\n", "job.yaml:3: the key 'a' stands twice");
    assert_refused("a: 1\n---\nb: 1\n", "job.yaml:2: holds more than one document");
    assert_refused("? [a]\n: 1\n", "job.yaml:1: a key must be a word");
    assert_refused("a: \"x\\0y\"\n", "job.yaml:1: a text must not have a NUL character");
    assert_refused("\"x\\0y\": 1\n", "job.yaml:1: a key must not have a NUL character");
    assert_refused("", "job.yaml:1: holds nothing");
    assert_refused("# nothing\n", "job.yaml:2: holds nothing");
    assert_refused("a: [1\nb: 2\n", "job.yaml:2: not YAML: while parsing a flow sequence: ");
    assert_refused("a: 1\n\tb: 2\n", "job.yaml:2: not YAML: while scanning a plain scalar: ");
    assert_refused("a: \xff\n", "job.yaml: byte 3: not YAML: ");
}

static void assert_refused_when_repeated(const char *unit, size_t count, const char *wanted)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    for (size_t i = 0; i < count; i++)
        assay_buf_str(&text, unit);
    assert_refused(assay_buf_cstr(&text), wanted);
}

static void every_ceiling_holds(void **state)
{
    (void)state;
    assert_refused_when_repeated("[", 100000, "job.yaml:1: nested too deep");
    assert_refused_when_repeated("- ", 33, "job.yaml:1: nested too deep");
    assay_auto(assay_buf_release) struct assay_buf keys = ASSAY_BUF_INIT;
    for (size_t i = 0; i <= ASSAY_YAML_KEYS_MAX; i++)
        assay_buf_printf(&keys, "k%zu: 1\n", i);
    assert_refused(assay_buf_cstr(&keys), "job.yaml:1025: more keys than a mapping may have");
    assert_refused_when_repeated("- 1\n", ASSAY_YAML_VALUES_MAX, "job.yaml:1: more values than such a file may have");
    assert_refused_when_repeated("# 345678\n", ASSAY_YAML_FILE_BYTES_MAX / 9 + 1,
                                 "job.yaml: found 1048581 bytes, wanted at most 1048576");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mappings_sequences_and_comments_become_a_tree),
        cmocka_unit_test(plain_scalars_have_the_types_of_json_and_quoted_ones_are_strings),
        cmocka_unit_test(every_value_has_its_line),
        cmocka_unit_test(what_could_grow_or_mean_two_things_is_refused_with_its_line),
        cmocka_unit_test(every_ceiling_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
