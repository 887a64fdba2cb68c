/* The ring of spans. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/obs/spans.h"
#include "tests/cmocka_all.h"

#define TRACE "0123456789abcdef0123456789abcdef"

static uint64_t next_sequence(void)
{
    uint64_t next, lost;
    struct assay_span span;
    (void)assay_spans_read(TRACE, UINT64_MAX, &span, 1, &next, &lost);
    return next;
}

static void a_span_has_its_times_thread_trace_and_attributes(void **state)
{
    (void)state;
    struct assay_span span, found;
    uint64_t from = next_sequence(), next, lost;
    int64_t before_us = assay_now_us();
    pthread_setname_np(pthread_self(), "spans-test");
    assay_span_begin(&span, "forward", TRACE);
    assay_span_number(&span, "chunks", 7);
    assay_span_text(&span, "variant", "int4:group_size=64:with_a_name_that_is_long");
    for (int i = 0; i < 10; i++)
        assay_span_number(&span, "more", i);
    assay_span_end(&span);
    assert_int_equal(assay_spans_read(TRACE, from, &found, 1, &next, &lost), 1);
    assert_int_equal(next, from + 1);
    assert_int_equal(lost, 0);
    assert_string_equal(found.name, "forward");
    assert_string_equal(found.trace_id, TRACE);
    assert_string_equal(found.thread_name, "spans-test");
    assert_int_equal(found.sequence, from);
    assert_true(found.begin_us >= before_us && found.end_us >= found.begin_us && found.end_us <= assay_now_us());
    assert_int_equal(found.attributes_count, ASSAY_SPAN_ATTRIBUTES_MAX);
    assert_string_equal(found.attributes[0].key, "chunks");
    assert_int_equal(found.attributes[0].number, 7);
    assert_memory_equal(found.attributes[1].text, "int4:group_size=64:with_a_name_", ASSAY_SPAN_TEXT_MAX + 1);
}

static void only_the_spans_of_a_trace_are_read_and_a_read_goes_on_where_it_ended(void **state)
{
    (void)state;
    struct assay_span span, found[3];
    uint64_t from = next_sequence(), next, lost;
    const char *const traces[] = {TRACE, NULL, TRACE, "not a trace id", TRACE};
    for (size_t i = 0; i < ASSAY_COUNT(traces); i++) {
        assay_span_begin(&span, "step", traces[i]);
        assay_span_number(&span, "i", (int64_t)i);
        assay_span_end(&span);
    }
    assert_int_equal(assay_spans_read(TRACE, from, found, 2, &next, &lost), 2);
    assert_int_equal(found[1].attributes[0].number, 2);
    assert_int_equal(assay_spans_read(TRACE, next, found, 2, &next, &lost), 1);
    assert_int_equal(found[0].attributes[0].number, 4);
    assert_int_equal(assay_spans_read(TRACE, next, found, 2, &next, &lost), 0);
    assert_int_equal(next, from + 5);
    assert_int_equal(assay_spans_read(NULL, from, found, 3, &next, &lost), 3);
    assert_string_equal(found[1].trace_id, "");
    assert_int_equal(assay_spans_read("", from + 3, found, 3, &next, &lost), 1);
}

/* Spans of many sizes; number i can be told from all others. */
static void keep_numbered(int64_t i)
{
    char text[ASSAY_SPAN_TEXT_MAX + 1];
    struct assay_span span;
    assay_span_begin(&span, "step", TRACE);
    assay_span_number(&span, "i", i);
    for (int64_t more = 0; more < i % ASSAY_SPAN_ATTRIBUTES_MAX; more++) {
        memset(text, 'a' + (int)more, sizeof text);
        text[(i + 7 * more) % ASSAY_SPAN_TEXT_MAX] = '\0';
        assay_span_text(&span, "text", text);
    }
    assay_span_end(&span);
}

static void check_numbered(const struct assay_span *span, int64_t i)
{
    assert_int_equal(span->attributes[0].number, i);
    assert_int_equal(span->attributes_count, 1 + i % ASSAY_SPAN_ATTRIBUTES_MAX);
    for (int64_t more = 0; more < i % ASSAY_SPAN_ATTRIBUTES_MAX; more++) {
        size_t length = (size_t)((i + 7 * more) % ASSAY_SPAN_TEXT_MAX);
        assert_true(span->attributes[1 + more].is_text);
        assert_int_equal(strlen(span->attributes[1 + more].text), length);
        if (length > 0)
            assert_int_equal(span->attributes[1 + more].text[length - 1], 'a' + more);
    }
}

static void the_ring_keeps_the_last_ones_and_tells_how_many_are_lost(void **state)
{
    (void)state;
    static struct assay_span found[1000];
    uint64_t from = next_sequence(), next, lost;
    for (int64_t i = 0, due = 1; i < 100000; i++) {
        keep_numbered(i);
        if (i < due)
            continue;
        due += 1 + due / 3; /* rarely, as all are looked at */
        size_t count = assay_spans_read(TRACE, from, found, ASSAY_COUNT(found), &next, &lost), seen = count;
        uint64_t first = from + lost;
        assert_true(i < 9000 ? lost == 0 : i < 40000 || lost > 0);
        for (; count > 0; seen += count) {
            for (size_t j = 0; j < count; j++) {
                assert_int_equal(found[j].sequence, first + seen - count + j);
                check_numbered(&found[j], (int64_t)(found[j].sequence - from));
            }
            count = assay_spans_read(TRACE, next, found, ASSAY_COUNT(found), &next, &lost);
            assert_int_equal(lost, 0);
        }
        assert_int_equal(first + seen, from + (uint64_t)i + 1);
        assert_int_equal(next, from + (uint64_t)i + 1);
    }
}

static void durations_are_counted_by_name(void **state)
{
    (void)state;
    struct assay_metrics *metrics = assay_metrics_new();
    struct assay_buf text = ASSAY_BUF_INIT;
    struct assay_span span;
    assay_spans_measure(metrics);
    assay_span_begin(&span, "load", NULL);
    span.begin_us = 1000000;
    span.end_us = 3500000;
    assay_span_keep(&span);
    assay_spans_measure(NULL);
    assay_span_end(&span);
    assay_metrics_print(metrics, &text);
    assert_non_null(strstr(assay_buf_cstr(&text), "assay_stage_duration_seconds_bucket{stage=\"load\",le=\"3\"} 1\n"));
    assert_non_null(strstr(assay_buf_cstr(&text), "assay_stage_duration_seconds_sum{stage=\"load\"} 2.5\n"));
    assert_non_null(strstr(assay_buf_cstr(&text), "assay_stage_duration_seconds_count{stage=\"load\"} 1\n"));
    assay_buf_release(&text);
    assay_metrics_free(metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_span_has_its_times_thread_trace_and_attributes),
        cmocka_unit_test(only_the_spans_of_a_trace_are_read_and_a_read_goes_on_where_it_ended),
        cmocka_unit_test(the_ring_keeps_the_last_ones_and_tells_how_many_are_lost),
        cmocka_unit_test(durations_are_counted_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
