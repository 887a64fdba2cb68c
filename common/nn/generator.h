/* Responses to prompts, many at once: each step extends all responses under way by one token and prompts that wait by a
 * piece. What a request gets depends on the model, the request and what its cache keeps, not on the company. With an
 * F32 cache the hidden states have the bits of a pass over prompt and response (common/nn/cache.h). */
#pragma once

#include "common/nn/cache.h"
#include "common/nn/sampler.h"

enum assay_finish {
    ASSAY_FINISH_EOS,     /* the last token is one of the request's eos */
    ASSAY_FINISH_LENGTH,  /* tokens_max, or the model's positions */
    ASSAY_FINISH_STOPPED, /* the request's on_token or is_wanted said so */
    ASSAY_FINISH_FAILED   /* err says why */
};

struct assay_generation {
    const int32_t *prompt; /* [prompt_tokens >= 1]; copied */
    size_t prompt_tokens;
    size_t tokens_max; /* of the response, >= 1 */
    struct assay_sampling sampling;
    const int32_t *eos; /* [eos_count]; copied */
    size_t eos_count;
    bool has_kv; /* its cache keeps `kv`, not what the generator's others keep */
    enum assay_dtype kv;
    /* Asked before each step, also while it waits for its turn. False: it leaves before the step, STOPPED. NULL: always
     * true. */
    bool (*is_wanted)(void *arg);
    /* Called from assay_generator_step for each token, EOS too. False: no more tokens are wanted. */
    bool (*on_token)(void *arg, const struct assay_choice *choice);
    /* Called once, last; `err` is there when it failed. */
    void (*on_end)(void *arg, enum assay_finish finish, const struct assay_err *err);
    void *arg;
};

struct assay_generator;

/* At most `responses_max` responses are under way at once; the others wait in order. `kv` is what caches keep unless a
 * request says otherwise. Model, head and pool outlive it. One thread at a time. */
enum assay_status assay_generator_new(const struct assay_model *model, const struct assay_head *head,
                                      struct assay_pool *pool, size_t responses_max, enum assay_dtype kv,
                                      struct assay_generator **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Keys and values of all responses under way take at most so many bytes (0, as at first: as many as they like): others
 * wait for their turn. A request that would not fit alone fails with RESOURCE_EXHAUSTED when its turn comes. */
void assay_generator_limit_cache(struct assay_generator *generator, uint64_t bytes_max);
/* Requests that have not ended never hear of it. NULL is fine. */
void assay_generator_free(struct assay_generator *generator);

/* Takes a request. INVALID_ARGUMENT / OUT_OF_RANGE for options, ids or a prompt that the model cannot take (its
 * positions must leave room for one token); RESOURCE_EXHAUSTED. */
enum assay_status assay_generator_add(struct assay_generator *generator, const struct assay_generation *generation,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* One step. False when nothing is left to do. A failure of a whole step ends all that took part in it. */
bool assay_generator_step(struct assay_generator *generator);
