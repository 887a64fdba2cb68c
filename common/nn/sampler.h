/* Chooses the next token. Order and meaning of the options as in transformers: repetition penalty, temperature, top-k,
 * top-p, min-p, each over what the one before left. Pure: the same logits, options and step give the same token. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/status.h"

struct assay_sampling {
    double temperature;        /* 0: the highest logit, the first index winning a tie; else logits are divided by it */
    size_t top_k;              /* so many highest logits, with those equal to the last of them; 0: all */
    double top_p;              /* the fewest most probable tokens that reach this probability together; 1: all */
    double min_p;              /* tokens of at least this share of the highest probability; 0: all */
    double repetition_penalty; /* logits of tokens seen are divided by it, or multiplied where negative; 1: none */
    uint64_t seed;
};

#define ASSAY_SAMPLING_GREEDY                                                                                          \
    {                                                                                                                  \
        .temperature = 0, .top_k = 0, .top_p = 1, .min_p = 0, .repetition_penalty = 1, .seed = 0                       \
    }

/* INVALID_ARGUMENT names the option that is out of range: temperature 0 or 0.001 to 100, top_p above 0 to 1, min_p 0 to
 * 1, repetition_penalty 0.01 to 100. */
enum assay_status assay_sampling_check(const struct assay_sampling *sampling, struct assay_err *err) ASSAY_MUST_USE;

struct assay_sampler;

/* Room for logits of `vocab` tokens. One thread at a time. */
enum assay_status assay_sampler_new(size_t vocab, struct assay_sampler **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_sampler_free(struct assay_sampler *sampler); /* NULL is fine */

struct assay_choice {
    int32_t id;
    double logprob; /* ln of the model's own probability, before any option; float64 over the f32 logits */
};

/* `seen` are the ids of prompt and response so far; `step` counts the tokens of the response. INVALID_ARGUMENT when the
 * logits have a NaN or +inf, or nothing but -inf. */
enum assay_status assay_sampler_choose(struct assay_sampler *sampler, const struct assay_sampling *sampling,
                                       size_t step, const float *logits, const int32_t *seen, size_t seen_count,
                                       struct assay_choice *ret, struct assay_err *err) ASSAY_MUST_USE;
