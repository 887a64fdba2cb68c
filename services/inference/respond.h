/* assay.v1.Respond on a worker: responses, embeddings and classes for users, beside the leases. */
#pragma once

#include "common/obs/metrics.h"
#include "common/wire/server.h"
#include "services/inference/respond_lane.h"

/* Calls that have not been answered, streams that wait for their reader included. */
#define ASSAY_RESPOND_CALLS_MAX 256

struct assay_respond_options {
    struct assay_lanes_options lanes;
    size_t tokens_max; /* of a prompt with its response */
    int64_t stall_ms;  /* of a reader */
};

struct assay_respond;

/* Adds the service, before the loop runs. What the options point to, and the server's loop, outlive it. */
enum assay_status assay_respond_new(struct assay_server *server, const struct assay_respond_options *options,
                                    struct assay_respond **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Breaks off what is under way (UNAVAILABLE), and lets go of the models. The loop runs still, or never did. NULL is
 * fine. */
void assay_respond_stop(struct assay_respond *respond);
/* After the server was freed; stops first. NULL is fine. */
void assay_respond_free(struct assay_respond *respond);
/* Adds what it counts to the registry. One a process. */
void assay_respond_measure(struct assay_respond *respond, struct assay_metrics *metrics);
