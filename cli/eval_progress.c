#include "cli/eval_progress.h"

#include <inttypes.h>

#include "cli/words.h"
#include "common/base/text.h"

#define BAR_CELLS 20

enum assay_phase_stage assay_phase_stage(const Assay__V1__Phase *phase)
{
    if (phase->total > 0 && phase->done >= phase->total)
        return ASSAY_PHASE_DONE;
    return phase->done > 0 || phase->elapsed_ms > 0 ? ASSAY_PHASE_WORKING : ASSAY_PHASE_WAITING;
}

struct assay_pace assay_phase_pace(const Assay__V1__Phase *phase, int64_t since_ms)
{
    struct assay_pace pace = {0};
    if (phase->done <= phase->cached || phase->elapsed_ms == 0)
        return pace;
    bool working = assay_phase_stage(phase) == ASSAY_PHASE_WORKING;
    double seconds = (double)phase->elapsed_ms / 1e3;
    pace.known = true;
    pace.per_second = (double)(phase->done - phase->cached) / seconds;
    if (working) {
        double left = (double)(phase->total - phase->done) / pace.per_second - (double)since_ms / 1e3;
        pace.left_seconds = ASSAY_MAX(left, 0);
    }
    return pace;
}

static void append_bar(const Assay__V1__Phase *phase, struct assay_buf *out)
{
    uint64_t done = ASSAY_MIN(phase->done, phase->total);
    size_t filled = phase->total > 0 ? (size_t)((double)done / (double)phase->total * BAR_CELLS) : 0;
    assay_buf_str(out, "[");
    for (size_t i = 0; i < BAR_CELLS; i++)
        assay_buf_str(out, i < filled ? "#" : ".");
    assay_buf_str(out, "] ");
}

static void append_duration(double seconds, struct assay_buf *out)
{
    uint64_t whole = seconds < 360000 ? (uint64_t)(seconds + 0.5) : 360000;
    if (whole >= 3600)
        assay_buf_printf(out, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, whole / 3600, whole / 60 % 60, whole % 60);
    else
        assay_buf_printf(out, "%" PRIu64 ":%02" PRIu64, whole / 60, whole % 60);
}

static void append_state(const Assay__V1__Phase *phase, int64_t since_ms, struct assay_buf *out)
{
    enum assay_phase_stage stage = assay_phase_stage(phase);
    struct assay_pace pace = assay_phase_pace(phase, since_ms);
    if (phase->cached > 0)
        assay_buf_printf(out, ", %" PRIu64 " cached", phase->cached);
    if (pace.known)
        assay_buf_printf(out, ", %.1f/s", pace.per_second);
    if (stage == ASSAY_PHASE_DONE && pace.known) {
        assay_buf_str(out, ", took ");
        append_duration((double)phase->elapsed_ms / 1e3, out);
    } else if (stage == ASSAY_PHASE_WORKING && pace.known) {
        assay_buf_str(out, ", ");
        append_duration(pace.left_seconds, out);
        assay_buf_str(out, " left");
    } else if (stage == ASSAY_PHASE_WAITING) {
        assay_buf_str(out, ", waiting");
    }
}

void assay_phase_line(const Assay__V1__Phase *phase, int64_t since_ms, bool bar, size_t width, struct assay_buf *out)
{
    size_t begin = out->len;
    if (bar)
        append_bar(phase, out);
    assay_buf_printf(out, "%s: %" PRIu64 "/%" PRIu64 " %s", assay_word_or(phase->name, "?"), phase->done, phase->total,
                     assay_word_or(phase->unit, ""));
    append_state(phase, since_ms, out);
    if (out->failed)
        return;
    if (width > 0 && out->len - begin > width) {
        out->len = begin + width;
        out->data[out->len] = '\0';
    }
    assay_buf_clean(out, begin);
}
