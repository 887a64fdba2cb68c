/* Records of f16: half the room, and the share of chunks whose error is measured. Pure. */
#pragma once

#include "services/inference/link.h"

/* One chunk in so many, chosen by its key, and the first of each job is also sent as f32: the evaluator scores it both
 * ways and reports what f16 costs. The choice is the same for every variant and every worker. */
#define ASSAY_F16_MEASURED_ONE_IN 16u
bool assay_f16_is_measured(const struct assay_chunk_key *key, const struct assay_chunk_key *first_of_job);

/* Rounds rows[count of rows][width] to f16, to the nearest, ties to even. `to` may be `from`: the halves then stand in
 * its first half. INVALID_ARGUMENT: a value is not finite or beyond f16's 65,504; names chunk and row. */
enum assay_status assay_f16_narrow(const struct assay_chunk_key *key, const void *from, size_t rows, size_t width,
                                   void *to, struct assay_err *err) ASSAY_MUST_USE;
