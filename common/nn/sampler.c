#include "common/nn/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float score;
    int32_t id;
    double weight; /* e^(score - highest) */
};

struct assay_sampler {
    size_t vocab;
    float *scores;                /* [vocab] */
    struct candidate *candidates; /* [vocab] */
};

static enum assay_status check_range(const char *name, double value, double low, bool low_included, double high,
                                     struct assay_err *err)
{
    if ((low_included ? value >= low : value > low) && value <= high)
        return ASSAY_OK;
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is %g, wanted %s %g to %g", name, value,
                         low_included ? "from" : "above", low, high);
}

enum assay_status assay_sampling_check(const struct assay_sampling *sampling, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    if (sampling->temperature != 0)
        status = check_range("temperature", sampling->temperature, 0.001, true, 100, err);
    if (status == ASSAY_OK)
        status = check_range("top_p", sampling->top_p, 0, false, 1, err);
    if (status == ASSAY_OK)
        status = check_range("min_p", sampling->min_p, 0, true, 1, err);
    if (status == ASSAY_OK)
        status = check_range("repetition_penalty", sampling->repetition_penalty, 0.01, true, 100, err);
    return status;
}

enum assay_status assay_sampler_new(size_t vocab, struct assay_sampler **ret, struct assay_err *err)
{
    struct assay_sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler) {
        sampler->vocab = vocab;
        sampler->scores = calloc(vocab, sizeof *sampler->scores);
        sampler->candidates = calloc(vocab, sizeof *sampler->candidates);
    }
    if (!sampler || !sampler->scores || !sampler->candidates) {
        assay_sampler_free(sampler);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory to choose among %zu tokens", vocab);
    }
    *ret = sampler;
    return ASSAY_OK;
}

void assay_sampler_free(struct assay_sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->scores);
    free(sampler->candidates);
    free(sampler);
}

/* The first index of the highest score; vocab when there is no distribution. */
static size_t highest(const float *scores, size_t vocab)
{
    size_t best = vocab;
    float top = -INFINITY;
    for (size_t i = 0; i < vocab; i++) {
        if (isnan(scores[i]) || scores[i] == INFINITY)
            return vocab;
        if (scores[i] > top) {
            top = scores[i];
            best = i;
        }
    }
    return best;
}

static double log_probability(const float *logits, size_t vocab, size_t top, size_t id)
{
    double others = 0, shift = (double)logits[top];
    for (size_t i = 0; i < vocab; i++)
        others += i == top ? 0 : exp((double)logits[i] - shift);
    return (double)logits[id] - shift - log1p(others);
}

static void penalize(struct assay_sampler *s, const float *logits, double penalty, const int32_t *seen, size_t count)
{
    memcpy(s->scores, logits, s->vocab * sizeof *logits);
    if (penalty == 1)
        return;
    /* From the logits, so that a token seen twice is penalized once. */
    for (size_t i = 0; i < count; i++) {
        if (seen[i] < 0 || (size_t)seen[i] >= s->vocab)
            continue;
        float logit = logits[seen[i]];
        s->scores[seen[i]] = logit < 0 ? logit * (float)penalty : logit / (float)penalty;
    }
}

/* Probable first; of equals the lower id. */
static int by_score(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Candidates in order of probability: those that neither underflow nor fall to top_k. */
static size_t gather(struct assay_sampler *s, const struct assay_sampling *sampling, float top)
{
    size_t count = 0;
    for (size_t i = 0; i < s->vocab; i++) {
        float score = (float)((double)s->scores[i] / sampling->temperature);
        double weight = exp((double)score - (double)top / sampling->temperature);
        if (weight > 0)
            s->candidates[count++] = (struct candidate){score, (int32_t)i, weight};
    }
    qsort(s->candidates, count, sizeof *s->candidates, by_score);
    if (sampling->top_k > 0 && sampling->top_k < count) {
        float last = s->candidates[sampling->top_k - 1].score;
        size_t kept = sampling->top_k;
        while (kept < count && s->candidates[kept].score == last)
            kept++;
        count = kept;
    }
    return count;
}

static double weight_of(const struct candidate *candidates, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += candidates[i].weight;
    return sum;
}

static size_t nucleus(const struct candidate *candidates, size_t count, double top_p)
{
    double wanted = top_p * weight_of(candidates, count), sum = 0;
    if (top_p >= 1)
        return count;
    for (size_t i = 0; i < count; i++) {
        sum += candidates[i].weight;
        if (sum >= wanted)
            return i + 1;
    }
    return count;
}

static size_t probable(const struct candidate *candidates, size_t count, double min_p)
{
    while (count > 1 && candidates[count - 1].weight < min_p * candidates[0].weight)
        count--;
    return count;
}

/* Uniform in [0, 1) of seed and step: the finalizer of splitmix64 (Steele, Lea and Flood, 2014), twice. */
static double uniform(uint64_t seed, uint64_t step)
{
    uint64_t x = seed;
    for (int round = 0; round < 2; round++) {
        x += UINT64_C(0x9e3779b97f4a7c15) * (step + 1);
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
    }
    return (double)(x >> 11) * 0x1p-53;
}

static size_t draw(struct assay_sampler *s, const struct assay_sampling *sampling, size_t step, size_t top)
{
    size_t count = gather(s, sampling, s->scores[top]);
    count = nucleus(s->candidates, count, sampling->top_p);
    count = probable(s->candidates, count, sampling->min_p);
    double left = uniform(sampling->seed, step) * weight_of(s->candidates, count);
    for (size_t i = 0; i < count; i++) {
        left -= s->candidates[i].weight;
        if (left < 0)
            return (size_t)s->candidates[i].id;
    }
    return (size_t)s->candidates[count - 1].id;
}

enum assay_status assay_sampler_choose(struct assay_sampler *sampler, const struct assay_sampling *sampling,
                                       size_t step, const float *logits, const int32_t *seen, size_t seen_count,
                                       struct assay_choice *ret, struct assay_err *err)
{
    size_t top = highest(logits, sampler->vocab), chosen;
    if (top == sampler->vocab)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "the logits of token %zu of the response are no distribution (NaN, +inf or all -inf)",
                             step);
    penalize(sampler, logits, sampling->repetition_penalty, seen, seen_count);
    chosen = highest(sampler->scores, sampler->vocab);
    if (chosen == sampler->vocab)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the repetition penalty %g leaves logits without bounds",
                             sampling->repetition_penalty);
    if (sampling->temperature > 0)
        chosen = draw(sampler, sampling, step, chosen);
    *ret = (struct assay_choice){(int32_t)chosen, log_probability(logits, sampler->vocab, top, chosen)};
    return ASSAY_OK;
}
