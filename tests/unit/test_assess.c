/* What reports conclude from the figures of hand-made jobs, and the page that shows it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/report_assess.h"
#include "cli/report_svg.h"
#include "tests/unit/report_fixture.h"

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no '%s' in:\n%s", part, text);
}

static struct assay_assessment assess(const struct assay_report *report)
{
    struct assay_assessment assessment;
    assert_int_equal(assay_assess(report, &assessment, NULL), ASSAY_OK);
    return assessment;
}

static bool has_line(const struct assay_lines *lines, const char *part)
{
    for (size_t i = 0; i < lines->count; i++)
        if (strstr(lines->at[i], part))
            return true;
    return false;
}

static void acceptance_follows_the_verdict_and_the_weaknesses(void **state)
{
    struct sample s;
    (void)state;
    assay_test_fill(&s, "int8");
    struct assay_assessment assessment = assess(&s.report);
    assert_int_equal(assessment.variants[0].acceptance, ASSAY_ACCEPTANCE_WITH_CARE);
    assert_true(has_line(&assessment.variants[0].strengths, "97.50 % of positions"));
    assert_true(has_line(&assessment.variants[0].weaknesses, "model.layers.1.mlp.up_proj.weight is far off"));
    assert_true(has_line(&assessment.variants[0].weaknesses, "1 (0.800000), 0 (0.994500)"));
    assert_true(has_line(&assessment.recommendations, "Use int8 by default"));
    assert_true(has_line(&assessment.recommendations, "keep model.layers.1.mlp.up_proj.weight in high precision"));
    assert_true(assessment.variants[0].kl_per_gb.present);
    assert_true(fabs(assessment.variants[0].kl_per_gb.value - 0.1 / 3 / 0.001) < 1e-9);
    assay_assessment_release(&assessment);

    s.errors[2].cosine = 0.99;
    assessment = assess(&s.report);
    assert_int_equal(assessment.variants[0].acceptance, ASSAY_ACCEPTANCE_YES);
    assert_int_equal(assessment.variants[0].weaknesses.count, 0);
    assay_assessment_release(&assessment);

    s.results[1].verdict = s.criteria[1].verdict = ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE;
    assessment = assess(&s.report);
    assert_int_equal(assessment.variants[0].acceptance, ASSAY_ACCEPTANCE_UNDECIDED);
    assert_true(has_line(&assessment.recommendations, "Do not decide on int8 yet: kl_mean_nats"));
    assay_assessment_release(&assessment);

    s.results[1].verdict = s.criteria[0].verdict = ASSAY__V1__VERDICT__VERDICT_FAIL;
    assessment = assess(&s.report);
    assert_int_equal(assessment.variants[0].acceptance, ASSAY_ACCEPTANCE_NO);
    assert_true(has_line(&assessment.recommendations, "Avoid int8: perplexity_increase_percent is beyond"));
    assert_true(has_line(&assessment.recommendations, "Keep the reference"));
    assay_assessment_release(&assessment);
}

/* A second variant beside the first, with a KL of its own and as large as is said. */
struct twin {
    Assay__V1__VariantResult result, *results[3];
    Assay__V1__Variant variant;
    Assay__V1__VariantScore score;
    Assay__V1__Distribution kl;
    Assay__V1__ArtifactSummary artifact;
};

static void add_twin(struct sample *s, struct twin *twin, char *label, double kl, uint64_t bytes)
{
    *twin = (struct twin){.result = s->results[1],
                          .variant = s->variants[1],
                          .score = s->scores[1],
                          .kl = s->kl,
                          .artifact = s->artifacts[1]};
    twin->variant.label = label;
    twin->kl.mean = kl;
    twin->artifact.artifact_bytes = bytes;
    twin->score.kl_nats = &twin->kl;
    twin->result.variant = &twin->variant;
    twin->result.score = &twin->score;
    twin->result.artifact = &twin->artifact;
    twin->results[0] = s->result_list[0];
    twin->results[1] = s->result_list[1];
    twin->results[2] = &twin->result;
    s->job.n_results = 3;
    s->job.results = twin->results;
}

static void a_dominated_variant_is_named_with_the_reason_and_not_recommended(void **state)
{
    struct sample s;
    struct twin twin;
    (void)state;
    assay_test_fill(&s, "int8");
    add_twin(&s, &twin, "wide8", 0.05, 1200000);
    struct assay_assessment assessment = assess(&s.report);
    assert_true(assessment.variants[0].dominated_by == ASSAY_NOT_DOMINATED);
    assert_int_equal(assessment.variants[1].dominated_by, 0);
    assert_has(assessment.variants[1].dominance, "wide8 is dominated by int8: 1.20 MB against 1.00 MB");
    assert_true(has_line(&assessment.recommendations, "Avoid wide8"));
    assert_false(has_line(&assessment.recommendations, "Use wide8 by"));
    assay_assessment_release(&assessment);

    twin.artifact.artifact_bytes = 500000; /* smaller and worse: a trade-off */
    assessment = assess(&s.report);
    assert_true(assessment.variants[1].dominated_by == ASSAY_NOT_DOMINATED);
    assert_true(has_line(&assessment.recommendations, "Use int8 if quality comes first"));
    assert_true(has_line(&assessment.recommendations, "Use wide8 if memory comes first"));
    assay_assessment_release(&assessment);
}

/* Every tag of the text is closed in order; attributes are quoted. Returns how many there were. */
static size_t assert_well_formed(const char *text)
{
    char open[64][24];
    size_t depth = 0, tags = 0;
    for (const char *at = strchr(text, '<'); at; at = strchr(at, '<'), tags++) {
        const char *end = strchr(at, '>');
        assert_non_null(end);
        size_t len = strcspn(at + 1, " />");
        if (at[1] == '/') {
            assert_true(depth > 0);
            depth--;
            assert_int_equal(end - at - 2, strlen(open[depth]));
            assert_memory_equal(at + 2, open[depth], strlen(open[depth]));
        } else if (at[1] != '!' && end[-1] != '/') {
            assert_true(depth < 64 && len < sizeof open[0]);
            memcpy(open[depth], at + 1, len);
            open[depth++][len] = '\0';
        }
        size_t quotes = 0;
        for (const char *c = at; c < end; c++)
            quotes += *c == '"';
        assert_int_equal(quotes % 2, 0);
        at = end;
    }
    assert_int_equal(depth, 0);
    return tags;
}

static void the_page_is_well_formed_and_escapes_what_others_wrote(void **state)
{
    struct sample s;
    struct twin twin;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    assay_test_fill(&s, "<script>alert(\"1\")</script>&'\x1b[2J\xff");
    add_twin(&s, &twin, "nf4", 0.05, 1200000);
    s.request.name = "</title><img src=x onerror=y>";
    s.errors[2].tensor = "\"><b>";
    s.kl.has_p99 = s.kl.has_median = true;
    s.kl.median = 0; /* has no place on a log scale */
    s.kl.p99 = 0.7;
    s.kl.has_interval_low = s.kl.has_interval_high = true;
    s.kl.interval_low = 0.03;
    s.kl.interval_high = 0.04;
    struct assay_assessment assessment = assess(&s.report);
    assay_report_html(&s.report, &assessment, &out);
    assay_assessment_release(&assessment);
    assert_int_equal(assay_buf_check(&out, NULL), ASSAY_OK);
    const char *page = assay_buf_cstr(&out);
    assert_true(assert_well_formed(page) > 200);
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "<img"));
    assert_null(strstr(page, "<b>"));
    assert_null(strchr(page, '\x1b'));
    assert_null(strstr(page, "nan"));
    assert_has(page, "&lt;script&gt;");
    size_t plots = 0;
    for (const char *at = page; (at = strstr(at, "<svg ")); at++)
        plots++;
    assert_int_equal(plots, 5);
    assert_null(strstr(page, "src=\""));
    assert_null(strstr(page, "href=\""));
    assay_buf_release(&out);
}

static void text_for_a_page_is_valid_utf8(void **state)
{
    static const char *const rows[][2] = {
        {"a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#39;"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xc3", "?"},
        {"\xe2\x82", "??"},
        {"\xc0\x80", "??"},
        {"\xed\xa0\x80", "???"},
        {"\x01\x7f\n", "??\n"}};
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        struct assay_buf out = ASSAY_BUF_INIT;
        assay_html_text(&out, rows[i][0]);
        assert_string_equal(assay_buf_cstr(&out), rows[i][1]);
        assay_buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acceptance_follows_the_verdict_and_the_weaknesses),
        cmocka_unit_test(a_dominated_variant_is_named_with_the_reason_and_not_recommended),
        cmocka_unit_test(the_page_is_well_formed_and_escapes_what_others_wrote),
        cmocka_unit_test(text_for_a_page_is_valid_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
