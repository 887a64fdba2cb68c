/* Progress, mistyped commands, variants as the user writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/eval_options.h"
#include "cli/eval_progress.h"
#include "cli/say.h"
#include "cli/words.h"

static Assay__V1__Phase phase_of(uint64_t done, uint64_t cached, uint64_t total, uint64_t elapsed_ms)
{
    Assay__V1__Phase phase = ASSAY__V1__PHASE__INIT;
    phase.name = "run int8";
    phase.unit = "chunks";
    phase.done = done;
    phase.cached = cached;
    phase.total = total;
    phase.elapsed_ms = elapsed_ms;
    return phase;
}

static void assert_line(Assay__V1__Phase phase, int64_t since_ms, bool bar, size_t width, const char *want)
{
    struct assay_buf out = ASSAY_BUF_INIT;
    assay_phase_line(&phase, since_ms, bar, width, &out);
    assert_string_equal(assay_buf_cstr(&out), want);
    assay_buf_release(&out);
}

static void time_left_counts_only_work_that_was_not_in_the_cache(void **state)
{
    (void)state;
    Assay__V1__Phase phase = phase_of(40, 20, 60, 10000);
    struct assay_pace pace = assay_phase_pace(&phase, 0);
    assert_true(pace.known);
    assert_true(pace.per_second == 2.0);
    assert_true(pace.left_seconds == 10.0);
    pace = assay_phase_pace(&phase, 4000);
    assert_true(pace.left_seconds == 6.0);
    pace = assay_phase_pace(&phase, 60000);
    assert_true(pace.left_seconds == 0.0);
    phase = phase_of(20, 20, 60, 10000);
    assert_false(assay_phase_pace(&phase, 0).known);
}

static void lines_of_progress_read_well(void **state)
{
    (void)state;
    assert_line(phase_of(0, 0, 64, 0), 0, false, 0, "run int8: 0/64 chunks, waiting");
    assert_line(phase_of(32, 12, 64, 10000), 0, false, 0, "run int8: 32/64 chunks, 12 cached, 2.0/s, 0:16 left");
    assert_line(phase_of(64, 0, 64, 3725000), 0, false, 0, "run int8: 64/64 chunks, 0.0/s, took 1:02:05");
    assert_line(phase_of(64, 64, 64, 5), 0, false, 0, "run int8: 64/64 chunks, 64 cached");
    assert_line(phase_of(16, 0, 64, 0), 0, true, 0, "[#####...............] run int8: 16/64 chunks");
    assert_line(phase_of(99, 0, 64, 0), 0, true, 22, "[####################]");
    assert_line(phase_of(0, 0, 0, 0), 0, true, 0, "[....................] run int8: 0/0 chunks, waiting");
}

static void a_message_cannot_move_the_cursor(void **state)
{
    Assay__V1__Phase phase = phase_of(0, 0, 1, 0);
    (void)state;
    phase.name = "a\033[2J\nb";
    assert_line(phase, 0, false, 0, "a?[2J?b: 0/1 chunks, waiting");
    assay__v1__phase__init(&phase);
    assert_line(phase, 0, false, 0, "?: 0/0 , waiting");
}

static void a_mistyped_command_finds_its_neighbour(void **state)
{
    static const char *const names[] = {"eval", "up", "down", "workers", "jobs"};
    (void)state;
    assert_string_equal(assay_say_nearest("evla", names, 5), "eval");
    assert_string_equal(assay_say_nearest("work", names, 5), "workers");
    assert_string_equal(assay_say_nearest("dwon", names, 5), "down");
    assert_null(assay_say_nearest("quantize", names, 5));
    assert_null(assay_say_nearest("", names, 5));
    assert_null(assay_say_nearest("x", names, 5));
    assert_null(assay_say_nearest("a-word-that-is-longer-than-any-command-has-ever-been", names, 5));
}

static void variants_are_canonical_and_distinct(void **state)
{
    static char variants[ASSAY_JOB_VARIANTS_MAX][ASSAY_SPEC_TEXT_MAX];
    static const char *const bad[] = {"",         ",",       "int8,", ",int8", "int8,int8", "int8,int8:compute=f32",
                                      "nonsense", "int8:x=1"};
    size_t count = 0;
    (void)state;
    assert_int_equal(assay_eval_variants_parse("int8,fp32", variants, &count, NULL), ASSAY_OK);
    assert_int_equal(count, 2);
    assert_string_equal(variants[0], "int8");
    assert_string_equal(variants[1], "fp32");
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        struct assay_err err = ASSAY_ERR_INIT;
        if (assay_eval_variants_parse(bad[i], variants, &count, &err) != ASSAY_INVALID_ARGUMENT || !err.text[0])
            fail_msg("'%s' was not refused", bad[i]);
    }
}

static void specs_and_digests_print_as_users_write_them(void **state)
{
    Assay__V1__VariantSpec spec = ASSAY__V1__VARIANT_SPEC__INIT;
    Assay__V1__Parameter parameter = ASSAY__V1__PARAMETER__INIT, *list[] = {&parameter};
    uint8_t bytes[] = {0x00, 0xff, 0x1a};
    char text[64], hex[7], time[24];
    (void)state;
    spec.scheme = "int4";
    parameter.key = "group_size";
    parameter.value = "64";
    spec.n_parameters = 1;
    spec.parameters = list;
    assert_string_equal(assay_word_spec(&spec, text, sizeof text), "int4:group_size=64");
    assert_string_equal(assay_word_spec(&spec, text, 8), "int4:gr");
    assert_string_equal(assay_word_spec(NULL, text, sizeof text), "?");
    assert_string_equal(assay_word_hex((ProtobufCBinaryData){3, bytes}, 3, hex), "00ff1a");
    assert_string_equal(assay_word_hex((ProtobufCBinaryData){3, bytes}, 1, hex), "00");
    assert_string_equal(assay_word_time(1000, time), "1970-01-01T00:00:01Z");
    assert_string_equal(assay_word_time(0, time), "-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_left_counts_only_work_that_was_not_in_the_cache),
        cmocka_unit_test(lines_of_progress_read_well),
        cmocka_unit_test(a_message_cannot_move_the_cursor),
        cmocka_unit_test(a_mistyped_command_finds_its_neighbour),
        cmocka_unit_test(variants_are_canonical_and_distinct),
        cmocka_unit_test(specs_and_digests_print_as_users_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
