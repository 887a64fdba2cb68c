#include "common/wire/retry.h"

#include <sys/random.h>

#include "common/base/clock.h"

#define JITTER_PERCENT 20

const struct assay_retry_policy assay_retry_default = {
    .attempts_max = ASSAY_RETRY_ATTEMPTS_MAX,
    .backoff_ms = 100,
    .backoff_max_ms = 2000,
    .multiplier = 2,
    .statuses = 1u << ASSAY_UNAVAILABLE | 1u << ASSAY_RESOURCE_EXHAUSTED,
};

bool assay_retry_may(const struct assay_retry_policy *policy, struct assay_throttle *throttle, unsigned attempt,
                     enum assay_status status)
{
    bool retryable = (policy->statuses >> status & 1) != 0;
    if (retryable)
        throttle->missing = ASSAY_MIN(throttle->missing + 1, ASSAY_THROTTLE_TOKENS);
    else if (status == ASSAY_OK)
        throttle->missing = ASSAY_MAX(throttle->missing - ASSAY_THROTTLE_RATIO, 0);
    return retryable && attempt < ASSAY_MIN(policy->attempts_max, ASSAY_RETRY_ATTEMPTS_MAX) &&
           throttle->missing < ASSAY_THROTTLE_TOKENS / 2;
}

int64_t assay_jitter_ms(int64_t ms, uint32_t random)
{
    return ms * (100 - JITTER_PERCENT + random % (2 * JITTER_PERCENT + 1)) / 100;
}

int64_t assay_retry_backoff_ms(const struct assay_retry_policy *policy, unsigned attempt, uint32_t random)
{
    double ms = (double)policy->backoff_ms;
    for (unsigned i = 1; i < attempt; i++)
        ms = ASSAY_MIN(ms * policy->multiplier, (double)policy->backoff_max_ms);
    return assay_jitter_ms(ASSAY_MIN((int64_t)ms, policy->backoff_max_ms), random);
}

uint32_t assay_jitter_random(void)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = (uint32_t)assay_now_us();
    return random;
}
