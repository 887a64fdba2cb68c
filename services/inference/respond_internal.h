/* What the files of the service Respond share. */
#pragma once

#include <stdatomic.h>

#include "proto/respond.pb-c.h"
#include "services/inference/respond.h"

struct assay_respond {
    struct assay_respond_options options;
    struct assay_lanes *lanes;
    atomic_size_t calls;
    atomic_uint_fast64_t tokens, texts; /* of responses; embedded or classified */
};

/* Loop thread. Admits a call: counts it and finds out where its model is. On failure nothing is counted. Errors as in
 * proto/respond.proto. */
enum assay_status assay_respond_admit(struct assay_respond *respond, const struct assay_call *call,
                                      const Assay__V1__Variant *model, enum assay_lane_kind kind,
                                      struct assay_lane_source *ret, struct assay_err *err) ASSAY_MUST_USE;
/* Any thread: the call has been answered. assay_loop_fn */
void assay_respond_done(void *respond);
/* Hands over; a failure, too, is told by work->fail. Loop thread. */
void assay_respond_post(struct assay_respond *respond, const struct assay_lane_source *source,
                        struct assay_lane_work *work);

void assay_respond_generate(struct assay_call *call, void *respond);
void assay_respond_embed(struct assay_call *call, void *respond);
void assay_respond_classify(struct assay_call *call, void *respond);
