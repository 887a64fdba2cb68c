/* Reports from hand-made jobs: names, bands, figures, and what is missing stays missing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/grid.h"
#include "cli/report_assess.h"
#include "common/base/exit_code.h"
#include "tests/unit/report_fixture.h"

/* As a reader of the file sees it; takes the value over. */
static cJSON *printed(cJSON *json)
{
    char *text = cJSON_Print(json);
    assert_non_null(text);
    cJSON *again = cJSON_Parse(text);
    assert_non_null(again);
    cJSON_free(text);
    cJSON_Delete(json);
    return again;
}

static const cJSON *at(const cJSON *object, const char *path)
{
    char copy[200], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *key = strtok_r(copy, "/", &rest); key; key = strtok_r(NULL, "/", &rest)) {
        object = cJSON_IsArray(object) ? cJSON_GetArrayItem(object, atoi(key)) : cJSON_GetObjectItem(object, key);
        if (!object)
            fail_msg("no %s in %s", key, path);
    }
    return object;
}

static void assert_text(const cJSON *object, const char *path, const char *want)
{
    assert_string_equal(cJSON_GetStringValue(at(object, path)), want);
}

static void assert_number(const cJSON *object, const char *path, double want)
{
    double found = cJSON_GetNumberValue(at(object, path));
    if (!(found == want))
        fail_msg("%s: found %.17g, wanted %.17g", path, found, want);
}

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

/* The Markdown and the HTML report, one after the other. */
static void documents(const struct assay_report *report, struct assay_buf *out)
{
    struct assay_assessment assessment = assess(report);
    assay_report_markdown(report, &assessment, out);
    assay_report_html(report, &assessment, out);
    assay_assessment_release(&assessment);
}

static void file_names_are_those_that_users_know(void **state)
{
    static const char *const labels[][2] = {
        {"int8", "int8"},
        {"int4:group_size=64", "int4_g64"},
        {"nf4:compute=bf16", "nf4_bf16"},
        {"awq4", "awq_4bit"},
        {"gptq4:group_size=32", "gptq_4bit_g32"},
        {"llm-int8:threshold=6.0", "llm-int8_threshold_6.0"},
    };
    static const char *const hostile[] = {"../../etc/passwd", ".", "", "a/../b"};
    char stem[ASSAY_STEM_MAX], name[ASSAY_REPORT_NAME_MAX], longest[400];
    struct sample s;
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(labels); i++)
        assert_string_equal(assay_report_stem(labels[i][0], stem), labels[i][1]);
    for (size_t i = 0; i < ASSAY_COUNT(hostile); i++)
        assert_true(assay_path_is_name(assay_report_stem(hostile[i], stem)) && stem[0] != '.');
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(strlen(assay_report_stem(longest, stem)), ASSAY_STEM_MAX - 1);
    assay_test_fill(&s, "int8");
    assert_string_equal(assay_report_file_name(&s.report, 0, name), "baseline_fp32_results.json");
    assert_string_equal(assay_report_file_name(&s.report, 1, name), "int8_quantized_results.json");
}

static void two_results_never_share_a_file(void **state)
{
    struct sample s;
    char a[ASSAY_REPORT_NAME_MAX], b[ASSAY_REPORT_NAME_MAX];
    (void)state;
    assay_test_fill(&s, "int4:x=1");
    Assay__V1__VariantResult twin = s.results[1];
    Assay__V1__Variant variant = s.variants[1];
    Assay__V1__VariantResult *three[] = {&s.results[0], &s.results[1], &twin};
    variant.label = "int4:x_1";
    twin.variant = &variant;
    s.job.n_results = 3;
    s.job.results = three;
    assert_string_not_equal(assay_report_file_name(&s.report, 1, a), assay_report_file_name(&s.report, 2, b));
}

static void bands_hold_at_their_ends(void **state)
{
    (void)state;
    assert_string_equal(assay_kl_band(0.0099), "negligible");
    assert_string_equal(assay_kl_band(0.01), "low");
    assert_string_equal(assay_kl_band(0.05), "moderate");
    assert_string_equal(assay_kl_band(0.1), "moderate");
    assert_string_equal(assay_kl_band(0.1001), "high");
    assert_string_equal(assay_cosine_band(0.9501), "excellent");
    assert_string_equal(assay_cosine_band(0.95), "good");
    assert_string_equal(assay_cosine_band(0.85), "good");
    assert_string_equal(assay_cosine_band(0.70), "fair");
    assert_string_equal(assay_cosine_band(0.6999), "poor");
    assert_string_equal(assay_precision_loss_band(4.99), "excellent");
    assert_string_equal(assay_precision_loss_band(5), "good");
    assert_string_equal(assay_precision_loss_band(30), "fair");
    assert_string_equal(assay_precision_loss_band(30.1), "poor");
}

static void signatures_say_where_bos_stands(void **state)
{
    struct sample s;
    char text[ASSAY_SIGNATURE_MAX];
    (void)state;
    assay_test_fill(&s, "int8");
    const Assay__V1__Job *filled = s.report.job;
    Assay__V1__Job job = *filled;
    Assay__V1__SubmitJobRequest request = *filled->request;
    job.request = &request;
    s.report.job = &job;
    job.has_adds_bos = job.adds_bos = true;
    request.protocol = (char *)"llamacpp-512";
    assert_non_null(strstr(assay_signature(&s.report, "ppl", 1, text), "|bos:each|"));
    request.protocol = (char *)"gptq-2048";
    assert_non_null(strstr(assay_signature(&s.report, "ppl", 1, text), "|bos:once|"));
    job.adds_bos = false;
    assert_non_null(strstr(assay_signature(&s.report, "ppl", 1, text), "|bos:no|"));
}

static void json_keeps_every_digit_and_names_each_metric(void **state)
{
    struct sample s;
    (void)state;
    assay_test_fill(&s, "int8");
    cJSON *again = printed(assay_report_variant_json(&s.report, 1));
    assert_number(again, "metrics/kl_nats/mean", 0.1 / 3);
    assert_number(again, "metrics/kl_nats/mean_by_chunk/1", 0.04);
    assert_text(again, "metrics/kl_nats/band", "low");
    assert_text(again, "metrics/perplexity/signature",
                "ppl|llamacpp-512|tok:a0a1a2a3a4a5a6a7|bos:no|n:16320|acc:f64|v:1");
    assert_text(again, "metrics/kl_nats/signature",
                "kl.teacher_forced(ref||var)|llamacpp-512|tok:a0a1a2a3a4a5a6a7|bos:no|n:16320|acc:f64|v:1");
    assert_number(again, "metrics/perplexity_increase_percent/interval_95/0", 0.9);
    assert_number(again, "metrics/weight_cosine/by_layer/0/mean", (0.999 + 0.99) / 2);
    assert_text(again, "metrics/weight_cosine/by_layer/1/band", "fair");
    assert_text(again, "metrics/weight_cosine/worst_tensor", "model.layers.1.mlp.up_proj.weight");
    assert_number(again, "metrics/size/compression_ratio", 2);
    assert_number(again, "metrics/size/perplexity_increase_percent_per_gb_saved", 1.25 / 0.001);
    assert_number(again, "cost/tokens_per_second", 8192);
    assert_text(again, "criteria/0/verdict", "PASS");
    assert_true(cJSON_IsTrue(at(again, "criteria/0/point_rule_pass")));
    cJSON_Delete(again);
}

static void missing_figures_are_null_with_the_reason_and_never_zero(void **state)
{
    struct sample s;
    (void)state;
    assay_test_fill(&s, "int8");
    s.perplexity[1] = (Assay__V1__Estimate)ASSAY__V1__ESTIMATE__INIT;
    s.perplexity[1].missing = "no position was scored";
    s.increase.value = NAN;
    s.scores[1].kl_nats = NULL;
    s.results[1].tokens_run = 0;
    s.results[1].artifact = NULL;
    s.criteria[0].has_value = false;
    s.criteria[0].missing = "no position was scored";
    s.criteria[0].verdict = ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE;
    cJSON *json = assay_report_variant_json(&s.report, 1);
    static const char *const nulls[] = {"metrics/perplexity/value",       "metrics/perplexity_increase_percent/value",
                                        "metrics/kl_nats/mean",           "metrics/weight_cosine/mean",
                                        "metrics/size/compression_ratio", "metrics/delta_p_rms_percent/value",
                                        "cost/tokens_per_second",         "criteria/0/value",
                                        "criteria/0/point_rule_pass"};
    for (size_t i = 0; i < ASSAY_COUNT(nulls); i++)
        assert_true(cJSON_IsNull(at(json, nulls[i])));
    assert_text(json, "metrics/perplexity/value_missing", "no position was scored");
    assert_text(json, "metrics/perplexity_increase_percent/value_missing", "the figure is not a finite number");
    assert_text(json, "metrics/weight_cosine/mean_missing", "the quantizer sent no summary");
    assert_text(json, "criteria/0/value_missing", "no position was scored");
    cJSON_Delete(json);

    struct assay_buf out = ASSAY_BUF_INIT;
    assay_report_table(&s.report, &out);
    assert_has(assay_buf_cstr(&out), "PPL of int8: not measured: no position was scored");
    assert_has(assay_buf_cstr(&out), "tokens/s of int8: not measured: no chunk was run for this job");
    assert_null(strstr(assay_buf_cstr(&out), "nan"));
    out.len = 0;
    documents(&s.report, &out);
    assert_has(assay_buf_cstr(&out), "not measured: no position was scored");
    assert_has(assay_buf_cstr(&out), "KL not known: the evaluator sent no such figure");
    assert_has(assay_buf_cstr(&out), "Not drawn: no variant has a percentile of KL above 0");
    assert_has(assay_buf_cstr(&out), "Not drawn: no variant has both a size and a mean KL above 0");
    assert_null(strstr(assay_buf_cstr(&out), "nan"));
    assert_null(strstr(assay_buf_cstr(&out), "inf"));
    assay_buf_release(&out);
}

static void an_empty_result_message_makes_a_report(void **state)
{
    struct sample s;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    assay_test_fill(&s, "int8");
    assay__v1__variant_result__init(&s.results[0]);
    assay__v1__variant_result__init(&s.results[1]);
    s.job.request = NULL;
    s.job.has_tokenizer_digest = false;
    cJSON *json = assay_report_json(&s.report);
    assert_non_null(json);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "results")), 2);
    cJSON_Delete(json);
    assay_report_table(&s.report, &out);
    documents(&s.report, &out);
    assert_int_equal(assay_buf_check(&out, NULL), ASSAY_OK);
    assay_buf_release(&out);
}

static void exit_code_follows_the_verdict_that_the_report_prints(void **state)
{
    struct sample s;
    (void)state;
    assay_test_fill(&s, "int8");
    static const struct {
        Assay__V1__Verdict verdict;
        int code;
        const char *word;
    } rows[] = {{ASSAY__V1__VERDICT__VERDICT_PASS, 0, "PASS"},
                {ASSAY__V1__VERDICT__VERDICT_FAIL, 1, "FAIL"},
                {ASSAY__V1__VERDICT__VERDICT_INCONCLUSIVE, 2, "INCONCLUSIVE"},
                {ASSAY__V1__VERDICT__VERDICT_UNSPECIFIED, 2, "INCONCLUSIVE"}};
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        s.job.verdict = rows[i].verdict;
        cJSON *json = printed(assay_report_json(&s.report));
        assert_int_equal(assay_report_exit_code(&s.job), rows[i].code);
        assert_number(json, "exit_code", rows[i].code);
        assert_text(json, "verdict", rows[i].word);
        cJSON_Delete(json);
    }
    s.job.state = ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED;
    assert_int_equal(assay_report_exit_code(&s.job), ASSAY_EXIT_CANCELLED);
    s.job.state = ASSAY__V1__JOB_STATE__JOB_STATE_FAILED;
    s.job.failure_status = ASSAY_NOT_FOUND;
    assert_int_equal(assay_report_exit_code(&s.job), ASSAY_EXIT_BAD_INPUT);
    s.job.failure_status = 0;
    assert_int_equal(assay_report_exit_code(&s.job), ASSAY_EXIT_INTERNAL);
}

static void cost_says_what_the_cache_saved(void **state)
{
    struct sample s;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    assay_test_fill(&s, "int8");
    assay_report_cost(&s.report, &out);
    assert_has(assay_buf_cstr(&out), "reference fp32: 64 of 64 chunks from the cache");
    assert_has(assay_buf_cstr(&out), "variant int8: 64 of 64 chunks run in 4.0 s of compute");
    assert_has(assay_buf_cstr(&out), "saved ~12.3 s");
    out.len = 0;
    s.job.chunks = 100;
    s.results[1].chunks_cached = 6;
    assay_report_cost(&s.report, &out);
    assert_has(assay_buf_cstr(&out), "variant int8: 6 of 100 chunks from the cache, 64 of 100 chunks run in 4.0 s of "
                                     "compute, 30 of 100 run for another job at the same time\n");
    assay_buf_release(&out);
}

static void every_file_is_written_and_listed(void **state)
{
    static const char *const names[] = {"baseline_fp32_results.json", "int8_quantized_results.json",
                                        ASSAY_REPORT_JSON_NAME, ASSAY_REPORT_MARKDOWN_NAME, ASSAY_REPORT_HTML_NAME};
    char dir[] = "/tmp/assay-report-XXXXXX", path[ASSAY_PATH_MAX];
    struct sample s;
    char *text = NULL;
    size_t bytes;
    (void)state;
    assay_test_fill(&s, "int8");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(assay_report_write(&s.report, dir, NULL), ASSAY_OK);
    assert_int_equal(assay_path_join(path, dir, ASSAY_REPORT_MARKDOWN_NAME, NULL), ASSAY_OK);
    assert_int_equal(assay_file_read(path, 1 << 20, &text, &bytes, NULL), ASSAY_OK);
    for (size_t i = 0; i < ASSAY_COUNT(names); i++) {
        assert_int_equal(assay_path_join(path, dir, names[i], NULL), ASSAY_OK);
        assert_int_equal(access(path, R_OK), 0);
        assert_has(text, names[i]);
    }
    assert_has(text, "**Verdict: PASS**");
    assert_has(text, "BLEU");
    free(text);
    assert_int_equal(assay_remove_tree(dir, NULL), ASSAY_OK);
}

/* Cancelled with some chunks scored: the coordinator has judged nothing. */
static void fill_partial(struct sample *s)
{
    assay_test_fill(s, "int8");
    s->job.state = ASSAY__V1__JOB_STATE__JOB_STATE_CANCELLED;
    s->job.has_partial = s->job.partial = true;
    s->job.has_verdict = s->results[1].has_verdict = false;
    s->job.verdict = s->results[1].verdict = ASSAY__V1__VERDICT__VERDICT_UNSPECIFIED;
    s->results[1].n_criteria = 0;
    s->job.chunks = 96;
    s->results[0].chunks_scored = 40;
    s->results[1].chunks_scored = 23;
}

static void a_partial_result_says_so_and_judges_nothing(void **state)
{
    static const char *const judging[] = {"PASS",      "FAIL",      "INCONCLUSIVE", "Harm assessment",
                                          "Trade-off", "Strengths", "acceptable"};
    struct sample s;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    fill_partial(&s);
    cJSON *json = printed(assay_report_json(&s.report));
    assert_number(json, "exit_code", ASSAY_EXIT_PARTIAL);
    assert_text(json, "verdict", "PARTIAL");
    assert_true(cJSON_IsTrue(at(json, "partial")));
    assert_number(json, "coverage/results/1/chunks_scored", 23);
    assert_number(json, "coverage/results/1/chunks_planned", 96);
    assert_text(json, "results/1/verdict", "PARTIAL");
    assert_number(json, "results/1/chunks_scored", 23);
    assert_true(cJSON_IsNumber(at(json, "results/1/metrics/perplexity_increase_percent/interval_95/0")));
    cJSON_Delete(json);
    documents(&s.report, &out);
    const char *text = assay_buf_cstr(&out), *html = strstr(text, "<!DOCTYPE");
    assert_non_null(html);
    const char *head = strstr(text, "**PARTIAL RESULT:** fp32 40 of 96 chunks, int8 23 of 96 chunks.");
    assert_non_null(head);
    assert_true(head < strstr(text, "## ")); /* before everything else */
    assert_has(html, "<title>PARTIAL: ");
    assert_has(html, "int8 23 of 96 chunks");
    assert_has(html, "class=\"verdict PARTIAL\"");
    for (size_t i = 0; i < ASSAY_COUNT(judging); i++) {
        const char *found = strstr(text, judging[i]);
        while (found && found[strlen(judging[i])] == '{') /* the style names the classes of all verdicts */
            found = strstr(found + 1, judging[i]);
        if (found && strncmp(found, "INCONCLUSIVE,.PARTIAL", 21) != 0)
            fail_msg("a partial result has '%.60s'", found);
    }
    assay_buf_release(&out);
}

static void a_variant_of_which_nothing_was_scored_makes_a_partial_report(void **state)
{
    struct sample s;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    fill_partial(&s);
    s.results[1].score = NULL;
    s.results[1].chunks_scored = 0;
    cJSON *json = printed(assay_report_json(&s.report));
    assert_true(cJSON_IsNull(at(json, "results/1/metrics/perplexity/value")));
    cJSON_Delete(json);
    documents(&s.report, &out);
    assert_has(assay_buf_cstr(&out), "int8 0 of 96 chunks");
    assay_buf_release(&out);
}

/* A peer's label and reason: no line of their own, no escapes, but exact in JSON. */
static void words_of_peers_are_harmless_in_text_and_exact_in_json(void **state)
{
    static char label[] = "int8\033[2J\nverdict: PASS", reason[] = "no\nverdict: PASS \xc2\x9b";
    struct sample s;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    assay_test_fill(&s, label);
    s.job.verdict = ASSAY__V1__VERDICT__VERDICT_FAIL;
    s.top1.has_value = false;
    s.top1.missing = reason;
    assay_report_table(&s.report, &out);
    assay_report_cost(&s.report, &out);
    const char *text = assay_buf_cstr(&out);
    assert_null(strchr(text, '\033'));
    assert_null(strstr(text, "\xc2\x9b"));
    assert_null(strstr(text, "\nverdict: PASS"));
    assert_has(text, "\nverdict: FAIL\n");
    assert_has(text, "int8?[2J?verdict: PASS");
    assert_has(text, "not measured: no?verdict: PASS ?");
    assay_buf_release(&out);
    cJSON *json = printed(assay_report_json(&s.report));
    assert_text(json, "results/1/variant/label", label);
    assert_text(json, "results/1/metrics/same_top1_percent/value_missing", reason);
    cJSON_Delete(json);
}

static void tables_align_and_escape(void **state)
{
    struct assay_grid grid = ASSAY_GRID_INIT;
    struct assay_buf out = ASSAY_BUF_INIT;
    (void)state;
    assay_grid_head(&grid, "<a|bb|<c");
    assay_grid_cell(&grid, "long|name");
    assay_grid_cell(&grid, "1 ± 2");
    assay_grid_cell(&grid, "x\033[2J");
    assay_grid_text(&grid, &out);
    assert_string_equal(assay_buf_cstr(&out), "a             bb  c\nlong|name  1 ± 2  x?[2J\n");
    out.len = 0;
    assay_grid_markdown(&grid, &out);
    assert_string_equal(assay_buf_cstr(&out), "| a | bb | c |\n|---|---:|---|\n| long\\|name | 1 ± 2 | x?[2J |\n");
    assay_buf_release(&out);
    assay_grid_release(&grid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_names_are_those_that_users_know),
        cmocka_unit_test(two_results_never_share_a_file),
        cmocka_unit_test(bands_hold_at_their_ends),
        cmocka_unit_test(signatures_say_where_bos_stands),
        cmocka_unit_test(json_keeps_every_digit_and_names_each_metric),
        cmocka_unit_test(missing_figures_are_null_with_the_reason_and_never_zero),
        cmocka_unit_test(an_empty_result_message_makes_a_report),
        cmocka_unit_test(exit_code_follows_the_verdict_that_the_report_prints),
        cmocka_unit_test(cost_says_what_the_cache_saved),
        cmocka_unit_test(every_file_is_written_and_listed),
        cmocka_unit_test(a_partial_result_says_so_and_judges_nothing),
        cmocka_unit_test(a_variant_of_which_nothing_was_scored_makes_a_partial_report),
        cmocka_unit_test(words_of_peers_are_harmless_in_text_and_exact_in_json),
        cmocka_unit_test(tables_align_and_escape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
