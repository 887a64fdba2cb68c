/* How far a job is, for people: what to say is decided here without a terminal, eval_display.c says it. */
#pragma once

#include "common/base/buf.h"
#include "proto/control.pb-c.h"

struct assay_pace {
    bool known;
    double per_second; /* of work that was not in the cache */
    double left_seconds;
};

enum assay_phase_stage { ASSAY_PHASE_WAITING, ASSAY_PHASE_WORKING, ASSAY_PHASE_DONE };

enum assay_phase_stage assay_phase_stage(const Assay__V1__Phase *phase);

/* `since_ms`: how old the phase's figures are. Not known before work was done, nor when all came from the cache. */
struct assay_pace assay_phase_pace(const Assay__V1__Phase *phase, int64_t since_ms);

/* "[#####.....] run int8: 32/64 chunks, 12 cached, 45.1/s, 0:03 left", at most `width` bytes when width > 0, without
 * control characters. */
void assay_phase_line(const Assay__V1__Phase *phase, int64_t since_ms, bool bar, size_t width, struct assay_buf *out);
