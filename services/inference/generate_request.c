#include "services/inference/generate_request.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static size_t text_bytes(const char *text)
{
    return text ? strlen(text) : 0;
}

static enum assay_status check_prompt(const Assay__V1__GenerateRequest *r, size_t tokens_max, struct assay_err *err)
{
    size_t bytes = text_bytes(r->prompt) + text_bytes(r->messages) + text_bytes(r->tools) + text_bytes(r->variables);
    if ((r->prompt != NULL) + (r->messages != NULL) + (r->n_ids > 0) != 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "wanted one of prompt, messages and ids");
    if (!r->messages && (r->tools || r->variables || r->has_now_s))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tools, variables and now_s go with messages");
    if (bytes > ASSAY_GENERATE_TEXT_BYTES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "the prompt has %zu bytes, at most %u are taken", bytes,
                             ASSAY_GENERATE_TEXT_BYTES_MAX);
    if (r->n_ids >= tokens_max)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "the prompt has %zu tokens, this worker takes %zu with the response", r->n_ids,
                             tokens_max);
    return ASSAY_OK;
}

static enum assay_status check_stops(const Assay__V1__GenerateRequest *r, struct assay_err *err)
{
    if (r->n_stops > ASSAY_GENERATE_STOPS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu stop strings, at most %d are taken", r->n_stops,
                             ASSAY_GENERATE_STOPS_MAX);
    for (size_t i = 0; i < r->n_stops; i++) {
        size_t bytes = strlen(r->stops[i]);
        if (bytes == 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "stop string %zu is empty", i);
        if (bytes > ASSAY_GENERATE_STOP_BYTES_MAX)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "stop string %zu has %zu bytes, at most %d are taken",
                                 i, bytes, ASSAY_GENERATE_STOP_BYTES_MAX);
    }
    return ASSAY_OK;
}

/* False for a dtype that caches do not have. */
static bool cache_dtype_of(const Assay__V1__GenerateRequest *r, enum assay_dtype *ret)
{
    switch (r->has_cache_dtype ? r->cache_dtype : ASSAY__V1__DTYPE__DTYPE_F32) {
    case ASSAY__V1__DTYPE__DTYPE_F32:
        *ret = ASSAY_F32;
        return true;
    case ASSAY__V1__DTYPE__DTYPE_F16:
        *ret = ASSAY_F16;
        return true;
    case ASSAY__V1__DTYPE__DTYPE_BF16:
        *ret = ASSAY_BF16;
        return true;
    case ASSAY__V1__DTYPE__DTYPE_I8:
        *ret = ASSAY_I8;
        return true;
    default:
        return false;
    }
}

void assay_generate_options(const Assay__V1__GenerateRequest *request, struct assay_request *ret)
{
    *ret = (struct assay_request){
        .tokens_max = request->has_tokens_max ? request->tokens_max : ASSAY_GENERATE_TOKENS_DEFAULT,
        .sampling =
            {
                .temperature = request->has_temperature ? request->temperature : 0,
                .top_k = request->has_top_k ? request->top_k : 0,
                .top_p = request->has_top_p ? request->top_p : 1,
                .min_p = request->has_min_p ? request->min_p : 0,
                .repetition_penalty = request->has_repetition_penalty ? request->repetition_penalty : 1,
                .seed = request->has_seed ? request->seed : 0,
            },
        .stops = (const char *const *)request->stops,
        .stops_count = request->n_stops,
        .ignore_eos = request->has_ignore_eos && request->ignore_eos,
        .has_kv = true,
        .kv = ASSAY_F32,
    };
    cache_dtype_of(request, &ret->kv);
}

enum assay_status assay_generate_check(const Assay__V1__GenerateRequest *request, size_t tokens_max,
                                       struct assay_err *err)
{
    struct assay_request options;
    enum assay_dtype kv;
    assay_generate_options(request, &options);
    if (!cache_dtype_of(request, &kv))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "cache_dtype is %d, wanted F32, F16, BF16 or I8",
                             (int)request->cache_dtype);
    if (options.tokens_max < 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "tokens_max is 0, wanted at least 1");
    if (options.tokens_max >= tokens_max)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "a response of %zu tokens, this worker takes %zu with the prompt", options.tokens_max,
                             tokens_max);
    enum assay_status status = check_prompt(request, tokens_max, err);
    if (status == ASSAY_OK)
        status = check_stops(request, err);
    return status == ASSAY_OK ? assay_sampling_check(&options.sampling, err) : status;
}

static enum assay_status encode(const Assay__V1__GenerateRequest *r, const struct assay_tokenizer *tokenizer,
                                const struct assay_chat *chat, int32_t **ret, size_t *ret_tokens, struct assay_err *err)
{
    if (r->prompt)
        return assay_tokenizer_encode(tokenizer, r->prompt, strlen(r->prompt), true, ret, ret_tokens, err);
    const struct assay_chat_request request = {
        .messages = r->messages,
        .tools = r->tools,
        .variables = r->variables,
        .add_generation_prompt = true,
        .now_s = r->has_now_s ? r->now_s : (int64_t)time(NULL),
    };
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t len = 0;
    enum assay_status status = assay_chat_render(chat, &request, &text, &len, err);
    return status == ASSAY_OK ? assay_tokenizer_encode(tokenizer, text, len, false, ret, ret_tokens, err) : status;
}

enum assay_status assay_generate_prompt(const Assay__V1__GenerateRequest *request,
                                        const struct assay_tokenizer *tokenizer, const struct assay_chat *chat,
                                        size_t tokens_max, int32_t **ret, size_t *ret_tokens, struct assay_err *err)
{
    int32_t *ids = NULL;
    size_t tokens = request->n_ids;
    size_t response = request->has_tokens_max ? request->tokens_max : ASSAY_GENERATE_TOKENS_DEFAULT;
    enum assay_status status = ASSAY_OK;
    if (tokens > 0) {
        ids = malloc(tokens * sizeof *ids);
        if (!ids)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a prompt of %zu tokens", tokens);
        memcpy(ids, request->ids, tokens * sizeof *ids);
    } else {
        status = encode(request, tokenizer, chat, &ids, &tokens, err);
    }
    if (status == ASSAY_OK && tokens == 0)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the prompt has no tokens");
    if (status == ASSAY_OK && tokens + response > tokens_max)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                               "a prompt of %zu tokens and a response of %zu, this worker takes %zu together", tokens,
                               response, tokens_max);
    if (status != ASSAY_OK) {
        free(ids);
        return status;
    }
    *ret = ids;
    *ret_tokens = tokens;
    return ASSAY_OK;
}
