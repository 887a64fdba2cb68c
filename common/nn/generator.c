#include "common/nn/generator.h"

#include <stdlib.h>
#include <string.h>

#include "common/nn/cache_impl.h"

/* Tokens of prompts in one step, at most: products are compute-bound from here on, and no response waits longer. */
#define PROMPT_TOKENS 512

struct response {
    struct response *next;
    struct assay_generation generation; /* prompt and eos point into ids and eos below */
    struct assay_cache *cache;          /* NULL while it waits */
    int32_t *ids;                       /* prompt, then the response */
    int32_t *eos;
    size_t tokens; /* in ids */
    size_t step;   /* tokens of the response */
};

struct assay_generator {
    const struct assay_model *model;
    const struct assay_head *head;
    struct assay_pool *pool;
    struct assay_sampler *sampler;
    enum assay_dtype kv;
    uint64_t cache_bytes_max; /* 0: no limit */
    size_t responses_max, running_count;
    struct response **running;      /* [responses_max], the first running_count are there */
    struct response *first, **last; /* those that wait */
    struct assay_sequence *batch;   /* [responses_max] */
    float *hidden, *logits;         /* [responses_max, hidden], [responses_max, vocab] */
};

static void response_free(struct response *response)
{
    assay_cache_free(response->cache);
    free(response->ids);
    free(response->eos);
    free(response);
}

enum assay_status assay_generator_new(const struct assay_model *model, const struct assay_head *head,
                                      struct assay_pool *pool, size_t responses_max, enum assay_dtype kv,
                                      struct assay_generator **ret, struct assay_err *err)
{
    struct assay_generator *g = calloc(1, sizeof *g);
    if (!g)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a generator");
    *g = (struct assay_generator){.model = model, .head = head, .pool = pool, .kv = kv};
    g->responses_max = responses_max;
    g->last = &g->first;
    g->running = calloc(responses_max, sizeof *g->running);
    g->batch = calloc(responses_max, sizeof *g->batch);
    g->hidden = calloc(responses_max, assay_head_hidden(head) * sizeof *g->hidden);
    g->logits = calloc(responses_max, assay_head_vocab(head) * sizeof *g->logits);
    enum assay_status status = assay_sampler_new(assay_head_vocab(head), &g->sampler, err);
    if (status == ASSAY_OK && (!g->running || !g->batch || !g->hidden || !g->logits))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu responses", responses_max);
    if (status != ASSAY_OK) {
        assay_generator_free(g);
        return status;
    }
    *ret = g;
    return ASSAY_OK;
}

void assay_generator_free(struct assay_generator *generator)
{
    if (!generator)
        return;
    for (size_t i = 0; i < generator->running_count; i++)
        response_free(generator->running[i]);
    while (generator->first) {
        struct response *response = generator->first;
        generator->first = response->next;
        response_free(response);
    }
    assay_sampler_free(generator->sampler);
    free(generator->running);
    free(generator->batch);
    free(generator->hidden);
    free(generator->logits);
    free(generator);
}

static enum assay_status check(const struct assay_generator *g, const struct assay_generation *r, struct assay_err *err)
{
    const struct assay_model_config *c = assay_model_config(g->model);
    if (r->prompt_tokens < 1 || r->tokens_max < 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a prompt of %zu tokens and a response of at most %zu",
                             r->prompt_tokens, r->tokens_max);
    if (r->prompt_tokens >= c->positions_max)
        return assay_err_set(err, ASSAY_OUT_OF_RANGE, "the prompt has %zu tokens, the model takes %zu in all",
                             r->prompt_tokens, c->positions_max);
    for (size_t i = 0; i < r->prompt_tokens; i++)
        if (r->prompt[i] < 0 || (size_t)r->prompt[i] >= c->vocab)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "id %d at position %zu of the prompt, the model has %zu",
                                 (int)r->prompt[i], i, c->vocab);
    return assay_sampling_check(&r->sampling, err);
}

enum assay_status assay_generator_add(struct assay_generator *generator, const struct assay_generation *generation,
                                      struct assay_err *err)
{
    enum assay_status status = check(generator, generation, err);
    if (status != ASSAY_OK)
        return status;
    struct response *response = calloc(1, sizeof *response);
    if (!response)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response");
    response->generation = *generation;
    size_t room = assay_model_config(generator->model)->positions_max - generation->prompt_tokens;
    response->generation.tokens_max = ASSAY_MIN(generation->tokens_max, room);
    size_t most = generation->prompt_tokens + response->generation.tokens_max;
    response->ids = malloc(most * sizeof *response->ids);
    response->eos = calloc(generation->eos_count + 1, sizeof *response->eos);
    if (!response->ids || !response->eos) {
        response_free(response);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response of %zu tokens", most);
    }
    memcpy(response->ids, generation->prompt, generation->prompt_tokens * sizeof *response->ids);
    if (generation->eos_count > 0)
        memcpy(response->eos, generation->eos, generation->eos_count * sizeof *response->eos);
    response->tokens = generation->prompt_tokens;
    *generator->last = response;
    generator->last = &response->next;
    return ASSAY_OK;
}

static void end_response(struct assay_generator *g, size_t index, enum assay_finish finish, const struct assay_err *err)
{
    struct response *response = g->running[index];
    g->running[index] = NULL;
    response->generation.on_end(response->generation.arg, finish, finish == ASSAY_FINISH_FAILED ? err : NULL);
    response_free(response);
}

/* Removes the places of those that ended; order stays. */
static void close_ranks(struct assay_generator *g)
{
    size_t kept = 0;
    for (size_t i = 0; i < g->running_count; i++)
        if (g->running[i])
            g->running[kept++] = g->running[i];
    g->running_count = kept;
}

static bool is_unwanted(const struct response *response)
{
    return response->generation.is_wanted && !response->generation.is_wanted(response->generation.arg);
}

/* Those that nobody waits for any more leave: the running ones, then the waiting ones. */
static void dismiss(struct assay_generator *g)
{
    for (size_t i = 0; i < g->running_count; i++)
        if (is_unwanted(g->running[i]))
            end_response(g, i, ASSAY_FINISH_STOPPED, NULL);
    close_ranks(g);
    g->last = &g->first;
    while (*g->last) {
        struct response *response = *g->last;
        if (!is_unwanted(response)) {
            g->last = &response->next;
            continue;
        }
        *g->last = response->next;
        response->generation.on_end(response->generation.arg, ASSAY_FINISH_STOPPED, NULL);
        response_free(response);
    }
}

void assay_generator_limit_cache(struct assay_generator *generator, uint64_t bytes_max)
{
    generator->cache_bytes_max = bytes_max;
}

/* The cache of a response that is to begin. OK without one: it has to wait for room. */
static enum assay_status make_cache(const struct assay_generator *g, struct response *response, struct assay_err *err)
{
    enum assay_dtype kv = response->generation.has_kv ? response->generation.kv : g->kv;
    size_t most = response->generation.prompt_tokens + response->generation.tokens_max;
    uint64_t bytes = 0;
    enum assay_status status = assay_cache_new(g->model, kv, most, &response->cache, err);
    if (status != ASSAY_OK || g->cache_bytes_max == 0)
        return status;
    for (size_t i = 0; i < g->running_count; i++)
        bytes += assay_cache_bytes(g->running[i]->cache);
    if (bytes + assay_cache_bytes(response->cache) <= g->cache_bytes_max)
        return ASSAY_OK;
    if (g->running_count == 0)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                               "keys and values of %zu tokens take %zu bytes, at most %llu are allowed", most,
                               assay_cache_bytes(response->cache), (unsigned long long)g->cache_bytes_max);
    assay_cache_free(assay_steal(&response->cache));
    return status;
}

static void admit(struct assay_generator *g)
{
    while (g->first && g->running_count < g->responses_max) {
        struct response *response = g->first;
        struct assay_err err = ASSAY_ERR_INIT;
        enum assay_status status = make_cache(g, response, &err);
        if (status == ASSAY_OK && !response->cache)
            return;
        g->first = response->next;
        if (!g->first)
            g->last = &g->first;
        g->running[g->running_count++] = response;
        if (status != ASSAY_OK) {
            end_response(g, g->running_count - 1, ASSAY_FINISH_FAILED, &err);
            close_ranks(g);
        }
    }
}

/* The next tokens of a response that its cache lacks, at most `room` of them. */
static size_t fill_sequence(struct assay_generator *g, struct response *response, size_t index, size_t room)
{
    if (assay_cache_turned(g->model, response->cache, response->tokens))
        assay_cache_truncate(response->cache, 0);
    size_t past = assay_cache_tokens(response->cache), missing = response->tokens - past;
    if (assay_cache_wants_all(g->model) && room > 0)
        room = missing;
    size_t tokens = ASSAY_MIN(missing, room), last = tokens == missing && tokens > 0 ? 1 : 0;
    g->batch[index] = (struct assay_sequence){
        .ids = response->ids + past,
        .tokens = tokens,
        .begin = tokens - last,
        .end = tokens,
        .hidden = g->hidden + index * assay_head_hidden(g->head),
        .cache = response->cache,
    };
    return tokens;
}

static bool is_eos(const struct response *response, int32_t id)
{
    for (size_t i = 0; i < response->generation.eos_count; i++)
        if (response->eos[i] == id)
            return true;
    return false;
}

/* Chooses a token, and ends the response where that is the last. */
static void extend(struct assay_generator *g, size_t index, const float *logits)
{
    struct response *response = g->running[index];
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_choice choice;
    if (assay_sampler_choose(g->sampler, &response->generation.sampling, response->step, logits, response->ids,
                             response->tokens, &choice, &err) != ASSAY_OK) {
        end_response(g, index, ASSAY_FINISH_FAILED, &err);
        return;
    }
    response->ids[response->tokens++] = choice.id;
    response->step++;
    if (!response->generation.on_token(response->generation.arg, &choice))
        end_response(g, index, ASSAY_FINISH_STOPPED, NULL);
    else if (is_eos(response, choice.id))
        end_response(g, index, ASSAY_FINISH_EOS, NULL);
    else if (response->step == response->generation.tokens_max)
        end_response(g, index, ASSAY_FINISH_LENGTH, NULL);
}

static bool step(struct assay_generator *g)
{
    dismiss(g);
    admit(g);
    if (g->running_count == 0)
        return false;
    size_t room = PROMPT_TOKENS, count = 0, owners_count = g->running_count;
    assay_auto(assay_free_ptr) size_t *owners = calloc(owners_count + 1, sizeof *owners);
    struct assay_err err = ASSAY_ERR_INIT;
    for (size_t i = 0; i < g->running_count && owners; i++) {
        /* A response that goes on by one token never waits for a prompt. */
        size_t missing = g->running[i]->tokens - assay_cache_tokens(g->running[i]->cache);
        size_t tokens = fill_sequence(g, g->running[i], count, missing == 1 ? 1 : room);
        if (tokens == 0)
            continue;
        room -= missing == 1 ? 0 : ASSAY_MIN(tokens, room);
        owners[count++] = i;
    }
    if (!owners)
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a step of %zu responses", owners_count);
    if (!owners || assay_model_forward(g->model, g->pool, g->batch, count, NULL, &err) != ASSAY_OK) {
        for (size_t i = 0; i < g->running_count; i++)
            end_response(g, i, ASSAY_FINISH_FAILED, &err);
        close_ranks(g);
        return g->first != NULL;
    }
    size_t rows = 0, hidden = assay_head_hidden(g->head);
    for (size_t i = 0; i < count; i++) {
        if (g->batch[i].begin == g->batch[i].end)
            continue;
        memmove(g->hidden + rows * hidden, g->batch[i].hidden, hidden * sizeof *g->hidden);
        owners[rows++] = owners[i];
    }
    assay_head_logits(g->head, g->pool, g->hidden, rows, g->logits);
    for (size_t i = 0; i < rows; i++)
        extend(g, owners[i], g->logits + i * assay_head_vocab(g->head));
    close_ranks(g);
    return g->running_count > 0 || g->first;
}

bool assay_generator_step(struct assay_generator *generator)
{
    assay_pool_quick_begin(generator->pool);
    bool more = step(generator);
    assay_pool_quick_end(generator->pool);
    return more;
}
