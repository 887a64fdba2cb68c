#include "common/nn/responder.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/formats/json.h"
#include "common/tokenizer/text_stream.h"

#define EOS_MAX 64
#define GENERATION_FILE "generation_config.json"

struct assay_responder {
    const struct assay_model *model;
    const struct assay_head *head;
    struct assay_model *own_model; /* NULL: somebody else's */
    struct assay_head *own_head;
    struct assay_tokenizer *tokenizer;
    struct assay_generator *generator;
    struct conversation *conversations;
    int32_t eos[EOS_MAX];
    size_t eos_count;
};

/* One request under way; the generator's argument. */
struct conversation {
    struct assay_responder *responder;
    struct conversation *next;
    struct assay_request request;
    struct assay_text_stream *stream;
    int32_t *ids;     /* [tokens_max] */
    double *logprobs; /* [tokens_max] */
    size_t tokens;
    bool cancelled, stopped;
    struct assay_err err;
    int64_t begin_us, first_us; /* 0 before the first token */
};

static void close_responder(struct assay_responder **responder)
{
    assay_responder_close(*responder);
}

static void close_checkpoint(struct assay_checkpoint **checkpoint)
{
    assay_checkpoint_close(*checkpoint);
}

/* A number or a list of numbers; absent is none. */
static enum assay_status read_eos(const cJSON *config, const char *path, struct assay_responder *r,
                                  struct assay_err *err)
{
    const cJSON *eos = cJSON_GetObjectItemCaseSensitive(config, "eos_token_id");
    if (!eos || cJSON_IsNull(eos))
        return ASSAY_OK;
    const cJSON *id = cJSON_IsArray(eos) ? eos->child : eos;
    r->eos_count = 0;
    for (; id; id = cJSON_IsArray(eos) ? id->next : NULL) {
        if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble <= INT32_MAX) || r->eos_count == EOS_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: eos_token_id is neither an id nor a list of at most %d", path, EOS_MAX);
        r->eos[r->eos_count++] = (int32_t)id->valuedouble;
    }
    return ASSAY_OK;
}

static enum assay_status read_ends(const struct assay_checkpoint *checkpoint, struct assay_responder *r,
                                   struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct assay_err found = ASSAY_ERR_INIT;
    assay_auto(assay_json_delete) cJSON *generation = NULL;
    const char *dir = assay_checkpoint_dir(checkpoint);
    enum assay_status status = read_eos(assay_checkpoint_config(checkpoint), dir, r, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, GENERATION_FILE, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_json_load(path, &generation, &found);
    if (status == ASSAY_NOT_FOUND)
        return ASSAY_OK;
    if (status != ASSAY_OK) {
        if (err)
            *err = found;
        return status;
    }
    return read_eos(generation, path, r, err);
}

/* With `model` and `head`, or NULL to load them. */
static enum assay_status open_over(const char *dir, const struct assay_model *model, const struct assay_head *head,
                                   struct assay_pool *pool, size_t responses_max, enum assay_dtype kv,
                                   struct assay_responder **ret, struct assay_err *err)
{
    assay_auto(close_responder) struct assay_responder *r = calloc(1, sizeof *r);
    assay_auto(close_checkpoint) struct assay_checkpoint *checkpoint = NULL;
    if (!r)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", dir);
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_open(dir, &r->tokenizer, err);
    if (status == ASSAY_OK)
        status = read_ends(checkpoint, r, err);
    if (status == ASSAY_OK && !model)
        status = assay_model_load(checkpoint, pool, &r->own_model, err);
    if (status == ASSAY_OK && !head)
        status = assay_head_load(checkpoint, pool, &r->own_head, err);
    if (status != ASSAY_OK)
        return status;
    r->model = model ? model : r->own_model;
    r->head = head ? head : r->own_head;
    status = assay_generator_new(r->model, r->head, pool, responses_max, kv, &r->generator, err);
    if (status != ASSAY_OK)
        return status;
    *ret = r;
    r = NULL;
    return ASSAY_OK;
}

enum assay_status assay_responder_open(const char *dir, struct assay_pool *pool, size_t responses_max,
                                       enum assay_dtype kv, struct assay_responder **ret, struct assay_err *err)
{
    return open_over(dir, NULL, NULL, pool, responses_max, kv, ret, err);
}

enum assay_status assay_responder_over(const char *dir, const struct assay_model *model, const struct assay_head *head,
                                       struct assay_pool *pool, size_t responses_max, enum assay_dtype kv,
                                       struct assay_responder **ret, struct assay_err *err)
{
    return open_over(dir, model, head, pool, responses_max, kv, ret, err);
}

void assay_responder_limit_cache(struct assay_responder *responder, uint64_t bytes_max)
{
    assay_generator_limit_cache(responder->generator, bytes_max);
}

static void conversation_free(struct conversation *c)
{
    assay_text_stream_free(c->stream);
    free(c->ids);
    free(c->logprobs);
    free(c);
}

void assay_responder_close(struct assay_responder *responder)
{
    if (!responder)
        return;
    assay_generator_free(responder->generator);
    while (responder->conversations) {
        struct conversation *c = responder->conversations;
        responder->conversations = c->next;
        conversation_free(c);
    }
    assay_head_free(responder->own_head);
    assay_model_free(responder->own_model);
    assay_tokenizer_close(responder->tokenizer);
    free(responder);
}

const struct assay_tokenizer *assay_responder_tokenizer(const struct assay_responder *responder)
{
    return responder->tokenizer;
}

size_t assay_responder_bytes(const struct assay_responder *responder)
{
    return assay_model_bytes(responder->model) + assay_head_bytes(responder->head);
}

static bool give_text(struct conversation *c, const char *text, size_t len, const struct assay_choice *choice)
{
    if (!c->request.on_text || c->request.on_text(c->request.arg, text, len, choice))
        return true;
    c->cancelled = true;
    return false;
}

static bool on_token(void *arg, const struct assay_choice *choice)
{
    struct conversation *c = arg;
    const char *text;
    size_t len;
    if (c->first_us == 0)
        c->first_us = assay_now_us();
    c->ids[c->tokens] = choice->id;
    c->logprobs[c->tokens++] = choice->logprob;
    if (assay_text_stream_push(c->stream, choice->id, &text, &len, &c->stopped, &c->err) != ASSAY_OK)
        return false;
    return give_text(c, text, len, choice) && !c->stopped;
}

static bool is_wanted(void *arg)
{
    struct conversation *c = arg;
    if (c->request.is_wanted && !c->request.is_wanted(c->request.arg))
        c->cancelled = true;
    return !c->cancelled;
}

static void on_end(void *arg, enum assay_finish finish, const struct assay_err *err)
{
    struct conversation *c = arg;
    const char *text;
    size_t len;
    if (!err && c->err.status == ASSAY_OK && assay_text_stream_finish(c->stream, &text, &len, &c->err) == ASSAY_OK &&
        len > 0 && !c->cancelled)
        give_text(c, text, len, NULL);
    if (!err && c->err.status != ASSAY_OK) {
        err = &c->err;
        finish = ASSAY_FINISH_FAILED;
    }
    int64_t now = assay_now_us();
    struct assay_response response = {
        .finish = finish,
        .err = err,
        .cancelled = c->cancelled,
        .ids = c->ids,
        .logprobs = c->logprobs,
        .tokens = c->tokens,
        .first_token_s = (double)((c->first_us ? c->first_us : now) - c->begin_us) * 1e-6,
        .total_s = (double)(now - c->begin_us) * 1e-6,
    };
    response.text = assay_text_stream_text(c->stream, &response.text_len);
    c->request.on_end(c->request.arg, &response);
    struct conversation **at = &c->responder->conversations;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    conversation_free(c);
}

enum assay_status assay_responder_add(struct assay_responder *responder, const struct assay_request *request,
                                      struct assay_err *err)
{
    size_t most = ASSAY_MIN(request->tokens_max, assay_model_config(responder->model)->positions_max);
    struct conversation *c = calloc(1, sizeof *c);
    if (c) {
        c->request = *request;
        c->ids = calloc(most + 1, sizeof *c->ids);
        c->logprobs = calloc(most + 1, sizeof *c->logprobs);
    }
    if (!c || !c->ids || !c->logprobs) {
        if (c)
            conversation_free(c);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response of %zu tokens", most);
    }
    c->begin_us = assay_now_us();
    const struct assay_generation generation = {
        .prompt = request->prompt,
        .prompt_tokens = request->prompt_tokens,
        .tokens_max = most,
        .sampling = request->sampling,
        .eos = responder->eos,
        .eos_count = request->ignore_eos ? 0 : responder->eos_count,
        .has_kv = request->has_kv,
        .kv = request->kv,
        .is_wanted = is_wanted,
        .on_token = on_token,
        .on_end = on_end,
        .arg = c,
    };
    enum assay_status status =
        assay_text_stream_new(responder->tokenizer, request->stops, request->stops_count, &c->stream, err);
    if (status == ASSAY_OK)
        status = assay_generator_add(responder->generator, &generation, err);
    if (status != ASSAY_OK) {
        conversation_free(c);
        return status;
    }
    c->responder = responder;
    c->next = responder->conversations;
    responder->conversations = c;
    return ASSAY_OK;
}

bool assay_responder_step(struct assay_responder *responder)
{
    return assay_generator_step(responder->generator);
}
