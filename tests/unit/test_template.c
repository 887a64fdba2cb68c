/* Chat templates print what Jinja prints in Python. What is wanted here is what jinja2 3.1 gives with the settings of
 * transformers. */
#include <stdlib.h>
#include <string.h>

#include "common/tokenizer/template.h"
#include "tests/cmocka_all.h"

/* 2024-07-26 12:00:00 UTC */
#define NOW_S INT64_C(1721995200)

static const char variables[] =
    "{\"none\": null, \"yes\": true, \"tenth\": 0.1, \"huge\": 1e20, \"tiny\": 1e-7, \"big\": 12345678901234567,"
    " \"hundred\": 100.0, \"quotes\": \"it's \\\"so\\\"\", \"single\": \"it's\", \"odd\": \"\\u007f\\u200b\\u00e9\","
    " \"list\": [1, 2.5, null, false, \"q'\\n\"], \"map\": {\"z\": 1, \"a\": {\"k\": \"v\"}}}";

static enum assay_status render(const char *source, char **text, struct assay_err *err)
{
    struct assay_template *template = NULL;
    size_t len = 0;
    enum assay_status status = assay_template_parse(source, strlen(source), "test", &template, err);
    if (status == ASSAY_OK)
        status = assay_template_render(template, variables, strlen(variables), NOW_S, text, &len, err);
    assay_template_free(template);
    return status;
}

static void renders(const char *source, const char *wanted)
{
    char *text = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (render(source, &text, &err) != ASSAY_OK)
        fail_msg("%s: %s", source, err.text);
    assert_string_equal(text, wanted);
    free(text);
}

static void refuses(const char *source, const char *words)
{
    char *text = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(render(source, &text, &err), ASSAY_INVALID_ARGUMENT);
    assert_null(text);
    if (!strstr(err.text, words))
        fail_msg("%s: \"%s\" does not say \"%s\"", source, err.text, words);
}

static void values_print_as_in_python(void **state)
{
    (void)state;
    renders("{{ none }} {{ yes }} {{ tenth }} {{ huge }} {{ tiny }} {{ big }} {{ hundred }} {{ absent }}",
            "None True 0.1 1e+20 1e-07 12345678901234567 100.0 ");
    renders("{{ list }}{{ map }}", "[1, 2.5, None, False, \"q'\\n\"]{'z': 1, 'a': {'k': 'v'}}");
    renders("{{ [quotes, single, odd] }}", "['it\\'s \"so\"', \"it's\", '\\x7f\\u200b\xc3\xa9']");
    renders("{{ (1,) }}{{ (1, 'a') }}{{ [1] + [2] }}{{ list[::2] }}", "(1,)(1, 'a')[1, 2][1, None, \"q'\\n\"]");
    renders("{{ list|string ~ yes ~ none }}", "[1, 2.5, None, False, \"q'\\n\"]TrueNone");
}

static void tojson_is_json_dumps_without_ascii_escapes(void **state)
{
    (void)state;
    renders("{{ map|tojson }}{{ odd|tojson }}{{ '</b>&'|tojson }}",
            "{\"z\": 1, \"a\": {\"k\": \"v\"}}\"\x7f\xe2\x80\x8b\xc3\xa9\"\"</b>&\"");
    renders("{{ map|tojson(indent=2) }}", "{\n  \"z\": 1,\n  \"a\": {\n    \"k\": \"v\"\n  }\n}");
    renders("{{ map|tojson(separators=(',', ':'), sort_keys=true) }}", "{\"a\":{\"k\":\"v\"},\"z\":1}");
    renders("{{ []|tojson(indent=2) }}{{ {}|tojson(indent=2) }}{{ huge|tojson }}", "[]{}1e+20");
}

static void blocks_and_methods_are_those_of_transformers(void **state)
{
    (void)state;
    renders("a\n  {% if yes %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc");
    renders("{% generation %}said{% endgeneration %}{# {% generation %} #}{{ '{% generation %}' }}",
            "said{% generation %}");
    renders("{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}"
            "{{ x }}{% endfor %}",
            "13");
    renders("{{ 'a b  c'.split() }}{{ 'a,b,c'.rsplit(',', 1) }}{{ '\\x1c x '.strip() }}{{ 'a\\rb\\n'.splitlines() }}",
            "['a', 'b', 'c']['a,b', 'c']x['a', 'b']");
    renders("{{ strftime_now('%d %b %Y, %A') }}", "26 Jul 2024, Friday");
}

static void what_cannot_be_rendered_is_refused_with_its_line(void **state)
{
    (void)state;
    refuses("a\n{{ raise_exception('roles must alternate') }}", "line 2: the template refuses: roles must alternate");
    refuses("a\nb\n{{ 'x'|no_such_filter }}", "line 3");
    refuses("{{ 'a'.no_such_method() }}", "no_such_method");
    refuses("{{ absent.member }}", "line 1");
    refuses("{% if %}", "test is not a chat template");
    refuses("{{ 'é'|tojson(ensure_ascii=true) }}", "ensure_ascii");
    refuses("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "fuel");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_print_as_in_python),
        cmocka_unit_test(tojson_is_json_dumps_without_ascii_escapes),
        cmocka_unit_test(blocks_and_methods_are_those_of_transformers),
        cmocka_unit_test(what_cannot_be_rendered_is_refused_with_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
