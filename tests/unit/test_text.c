/* Text of peers in lines of logs. */
#include "tests/cmocka_all.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/text.h"
#include "common/base/utf8.h"

static const char *const rows[][2] = {
    {"", ""},
    {"plain text, 1 ± 2 µs, 漢字, 😀", "plain text, 1 ± 2 µs, 漢字, 😀"},
    {"two\nlines\r\n", "two?lines??"},
    {"tab\tbell\a", "tab?bell?"},
    {"\033[2J\033]0;title\a", "?[2J?]0;title?"},
    {"del\177", "del?"},
    {"c1 \xc2\x9b"
     "2J \xc2\x85 end",
     "c1 ?2J ? end"},
    {"no-break\xc2\xa0space", "no-break\xc2\xa0space"},
    {"line\xe2\x80\xa8paragraph\xe2\x80\xa9", "line?paragraph?"},
    {"\xe2\x80\xaegnp.exe\xe2\x80\xac", "?gnp.exe?"},
    {"\xe2\x81\xa6isolate\xe2\x81\xa9 \xd8\x9c", "?isolate? ?"},
    {"dash \xe2\x80\x94 quote \xe2\x80\x9c", "dash \xe2\x80\x94 quote \xe2\x80\x9c"},
    {"not utf-8 \xff\xfe", "not utf-8 ??"},
    {"cut \xe2\x82", "cut ??"},
    {"overlong \xc0\x8a newline", "overlong ?? newline"},
    {"surrogate \xed\xa0\x80", "surrogate ???"},
};

static void what_may_harm_becomes_a_question_mark(void **state)
{
    (void)state;
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        char text[128];
        strcpy(text, rows[i][0]);
        assay_text_clean(text);
        assert_string_equal(text, rows[i][1]);
        assay_text_clean(text); /* nothing is left to do */
        assert_string_equal(text, rows[i][1]);
    }
}

static void newlines_stay_in_several_lines_and_nothing_else(void **state)
{
    (void)state;
    char text[] = "a\nb\033c\r\n";
    assay_text_clean_lines(text);
    assert_string_equal(text, "a\nb?c?\n");
}

static void a_buffer_is_cleaned_from_a_place_on(void **state)
{
    (void)state;
    struct assay_buf buf = ASSAY_BUF_INIT;
    assay_buf_str(&buf, "head\n");
    size_t begin = buf.len;
    assay_buf_append(&buf, "na\0me\n\xc2\x9b", 8);
    assay_buf_clean(&buf, begin);
    assert_string_equal(assay_buf_cstr(&buf), "head\nna?me??");
    assert_int_equal(buf.len, strlen(buf.data));
    assay_buf_clean(&buf, buf.len);
    assay_buf_clean(&buf, 1000);
    assay_buf_release(&buf);
    assay_buf_clean(&buf, 0);
}

/* Whatever the bytes, what comes out is UTF-8 without controls, and no longer. */
static void any_bytes_become_a_line(void **state)
{
    (void)state;
    uint64_t random = 42;
    for (size_t round = 0; round < 20000; round++) {
        char text[24];
        size_t bytes = 0;
        for (; bytes < sizeof text - 1; bytes++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[bytes] = (char)(random >> 56);
            if (text[bytes] == '\0')
                break;
        }
        text[bytes] = '\0';
        assay_text_clean(text);
        size_t after = strlen(text);
        assert_true(after <= bytes);
        assert_int_equal(assay_utf8_prefix(text, after), after);
        for (size_t i = 0; i < after; i++)
            assert_true((unsigned char)text[i] >= 0x20 && text[i] != 0x7f);
    }
}

/* What assay_log writes for `text`, into line[bytes]. */
static void log_of(const char *text, char *line, size_t bytes)
{
    int ends[2], kept = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    assert_true(kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
    assay_log(ASSAY_LOG_WARN, "worker returned chunks reason=\"%s\" end=1", text);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    close(ends[1]);
    ssize_t found = read(ends[0], line, bytes - 1);
    close(ends[0]);
    assert_true(found > 0);
    line[found] = '\0';
}

static void a_peers_sentence_stays_in_its_line_of_the_log(void **state)
{
    (void)state;
    char line[4096], want[256];
    assay_log_init("test", ASSAY_LOG_INFO);
    for (size_t i = 0; i < ASSAY_COUNT(rows); i++) {
        log_of(rows[i][0], line, sizeof line);
        snprintf(want, sizeof want, " warn test worker returned chunks reason=\"%s\" end=1\n", rows[i][1]);
        const char *at = strstr(line, " warn ");
        assert_non_null(at);
        assert_string_equal(at, want);
    }
}

static void a_long_sentence_is_cut_and_ends_its_line(void **state)
{
    (void)state;
    char line[4096], text[3000];
    memset(text, '\n', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_of(text, line, sizeof line);
    assert_true(strlen(line) <= 2048);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_may_harm_becomes_a_question_mark),
        cmocka_unit_test(newlines_stay_in_several_lines_and_nothing_else),
        cmocka_unit_test(a_buffer_is_cleaned_from_a_place_on),
        cmocka_unit_test(any_bytes_become_a_line),
        cmocka_unit_test(a_peers_sentence_stays_in_its_line_of_the_log),
        cmocka_unit_test(a_long_sentence_is_cut_and_ends_its_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
