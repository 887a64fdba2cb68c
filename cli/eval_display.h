/* Shows progress on stderr: on a terminal lines that are drawn again in place, elsewhere a line a change and every 5 s.
 */
#pragma once

#include "cli/eval_progress.h"
#include "common/base/limits.h"

/* quantize and run for each variant and the reference, and score. */
#define ASSAY_DISPLAY_PHASES_MAX (2 * (ASSAY_JOB_VARIANTS_MAX + 1) + 1)

struct assay_display {
    bool live;
    size_t drawn; /* lines below which the cursor stands */
    int64_t spoken_ms;
    enum assay_phase_stage told[ASSAY_DISPLAY_PHASES_MAX];
};

void assay_display_init(struct assay_display *display);

/* The newest event, since_ms old. Call again at times so that estimates go on. `event` may be NULL. */
void assay_display_show(struct assay_display *display, const Assay__V1__Event *event, int64_t since_ms);

/* A line of its own, above what is drawn in place. Control characters are replaced. */
void assay_display_note(struct assay_display *display, const char *text);
/* Several lines as they are. */
void assay_display_block(struct assay_display *display, const char *text);

/* What is drawn stays; later output goes below. */
void assay_display_end(struct assay_display *display);
