/* When a call that failed is made again: gRPC's rules (proposal A6, client retries). Pure.
 *
 * A retry needs a status that the policy names, an attempt and time left, and a client that is not throttled: each
 * failure takes a token, each success gives a tenth back, and with half of them gone nothing is retried, so that a
 * server in trouble is not asked more than before. */
#pragma once

#include "common/base/status.h"

struct assay_retry_policy {
    unsigned attempts_max; /* the first one included, 1 to 5 */
    int64_t backoff_ms;    /* before the second attempt, then times `multiplier`, at most backoff_max_ms; 20 % jitter */
    int64_t backoff_max_ms;
    double multiplier;
    unsigned statuses; /* bit of each status that is retried */
};

/* For calls that may be carried out twice: the server is not there, or has no room. */
extern const struct assay_retry_policy assay_retry_default;

#define ASSAY_RETRY_ATTEMPTS_MAX 5
#define ASSAY_THROTTLE_TOKENS 10.0
#define ASSAY_THROTTLE_RATIO 0.1

struct assay_throttle {
    double missing; /* tokens */
};

/* Notes how an attempt ended, and says whether another may follow it. `attempt` counts from 1. */
bool assay_retry_may(const struct assay_retry_policy *policy, struct assay_throttle *throttle, unsigned attempt,
                     enum assay_status status);
/* Before attempt + 1; `random` decides the jitter. */
int64_t assay_retry_backoff_ms(const struct assay_retry_policy *policy, unsigned attempt, uint32_t random);
/* ms, 20 % more or less. */
int64_t assay_jitter_ms(int64_t ms, uint32_t random);
/* Something to jitter with; not for secrets. */
uint32_t assay_jitter_random(void);
