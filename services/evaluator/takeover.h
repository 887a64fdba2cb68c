/* Follows the coordinator's map of evaluators: whenever it changes, fetches from the others what they have of this
 * one's share, so that nothing is computed again that somebody has. Two threads: one listens, one fetches. */
#pragma once

#include "common/wire/member.h"
#include "services/evaluator/records.h"
#include "services/evaluator/shards.h"

struct assay_takeover;

/* All of them outlive it. A coordinator that knows no maps leaves the evaluator alone with all records. */
enum assay_status assay_takeover_start(struct assay_loop *loop, struct assay_client *coordinator,
                                       struct assay_records *records, struct assay_shards *shards,
                                       struct assay_takeover **ret, struct assay_err *err) ASSAY_MUST_USE;

/* Leaves the stack: tells the coordinator and waits until the other evaluators have what is theirs now, at most
 * leave_ms. False: there was nobody to take it, or not all was taken. The evaluator serves meanwhile. */
bool assay_takeover_leave(struct assay_takeover *takeover, struct assay_member *member, int64_t leave_ms);

void assay_takeover_stop(struct assay_takeover *takeover); /* joins and frees; NULL is fine */
