#include "cli/eval_display.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"

#define SPEAK_MS 5000
#define WIDTH_UNKNOWN 100
#define HEIGHT_UNKNOWN 24

void assay_display_init(struct assay_display *display)
{
    *display = (struct assay_display){.live = isatty(STDERR_FILENO) == 1};
}

static void terminal_size(size_t *ret_width, size_t *ret_height)
{
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 && size.ws_row > 4;
    *ret_width = known ? size.ws_col - 1u : WIDTH_UNKNOWN;
    *ret_height = known ? size.ws_row : HEIGHT_UNKNOWN;
}

/* Clears what is drawn; the cursor stands where it began. */
static void clear_drawn(struct assay_display *display, struct assay_buf *out)
{
    if (display->drawn > 0)
        assay_buf_printf(out, "\033[%zuA\r\033[J", display->drawn);
    display->drawn = 0;
}

static void flush(const struct assay_buf *out)
{
    fwrite(assay_buf_cstr(out), 1, out->len, stderr);
    fflush(stderr);
}

/* When not all phases fit, those that are done give way. */
static void draw(struct assay_display *display, const Assay__V1__Event *event, int64_t since_ms)
{
    assay_auto(assay_buf_release) struct assay_buf out = ASSAY_BUF_INIT;
    size_t width, height, hidden = 0;
    terminal_size(&width, &height);
    size_t excess = event->n_phases > height - 2 ? event->n_phases - (height - 2) : 0;
    clear_drawn(display, &out);
    for (size_t i = 0; i < event->n_phases && display->drawn < height - 2; i++) {
        if (hidden < excess && assay_phase_stage(event->phases[i]) == ASSAY_PHASE_DONE) {
            hidden++;
            continue;
        }
        assay_phase_line(event->phases[i], since_ms, true, width, &out);
        assay_buf_str(&out, "\n");
        display->drawn++;
    }
    flush(&out);
}

static void speak(struct assay_display *display, const Assay__V1__Event *event, int64_t since_ms)
{
    assay_auto(assay_buf_release) struct assay_buf out = ASSAY_BUF_INIT;
    bool time_to_speak = assay_now_ms() - display->spoken_ms >= SPEAK_MS;
    for (size_t i = 0; i < event->n_phases && i < ASSAY_DISPLAY_PHASES_MAX; i++) {
        enum assay_phase_stage stage = assay_phase_stage(event->phases[i]);
        if (stage == display->told[i] && !(time_to_speak && stage == ASSAY_PHASE_WORKING))
            continue;
        display->told[i] = stage;
        assay_phase_line(event->phases[i], since_ms, false, 0, &out);
        assay_buf_str(&out, "\n");
    }
    if (out.len == 0)
        return;
    display->spoken_ms = assay_now_ms();
    flush(&out);
}

void assay_display_show(struct assay_display *display, const Assay__V1__Event *event, int64_t since_ms)
{
    if (!event)
        return;
    if (display->live)
        draw(display, event, since_ms);
    else
        speak(display, event, since_ms);
}

void assay_display_block(struct assay_display *display, const char *text)
{
    assay_auto(assay_buf_release) struct assay_buf out = ASSAY_BUF_INIT;
    clear_drawn(display, &out);
    assay_buf_str(&out, text);
    flush(&out);
}

void assay_display_note(struct assay_display *display, const char *text)
{
    char line[600];
    snprintf(line, sizeof line - 1, "%s", text);
    assay_text_clean(line);
    strcat(line, "\n");
    assay_display_block(display, line);
}

void assay_display_end(struct assay_display *display)
{
    display->drawn = 0;
}
