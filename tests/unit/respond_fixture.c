#include "tests/unit/respond_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "services/inference/generate_request.h"

void respond_ok(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

void respond_sleep_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

int respond_setup(void **state)
{
    struct respond_fixture *f = calloc(1, sizeof *f);
    struct assay_err err = ASSAY_ERR_INIT;
    strcpy(f->directory, "/tmp/assay-respond-XXXXXX");
    if (!mkdtemp(f->directory))
        return -1;
    snprintf(f->endpoint, sizeof f->endpoint, "ipc://%s/socket", f->directory);
    snprintf(f->cache_dir, sizeof f->cache_dir, "%s/artifacts", f->directory);
    respond_ok(assay_pool_new(2, NULL, &f->pool, &err), &err);
    f->models =
        assay_models_new(&(struct assay_models_options){.pool = f->pool, .bytes_max = 1 << 20, .is_soft = true});
    assert_non_null(f->models);
    respond_ok(assay_loop_new(&f->loop, &err), &err);
    respond_ok(assay_server_new(f->loop, f->endpoint, &f->server, &err), &err);
    const struct assay_respond_options options = {
        .lanes =
            {
                .loop = f->loop,
                .pool = f->pool,
                .models = f->models,
                .cache_dir = f->cache_dir,
                .precision = "fp32",
                .models_max = 2,
                .sequences_max = 4,
                .cache_bytes_max = 64 << 20,
                .idle_ms = 60000,
            },
        .tokens_max = RESPOND_TOKENS_MAX,
        .stall_ms = RESPOND_STALL_MS,
    };
    respond_ok(assay_respond_new(f->server, &options, &f->respond, &err), &err);
    respond_ok(assay_loop_start(f->loop, &err), &err);
    respond_ok(assay_client_new(f->loop, f->endpoint, &f->client, &err), &err);
    *state = f;
    return 0;
}

static void free_server(void *server)
{
    assay_server_free(server);
}

int respond_teardown(void **state)
{
    struct respond_fixture *f = *state;
    assay_client_free(f->client);
    assay_respond_stop(f->respond);
    assay_loop_call(f->loop, free_server, f->server);
    assay_loop_stop_join(f->loop);
    bool quiet = atomic_load(&f->respond->calls) == 0;
    assay_respond_free(f->respond);
    assay_models_free(f->models);
    assay_loop_free(f->loop);
    assay_pool_free(f->pool);
    enum assay_status status = assay_remove_tree(f->directory, NULL);
    free(f);
    return quiet && status == ASSAY_OK ? 0 : -1;
}

void respond_await_quiet(struct respond_fixture *f)
{
    for (int i = 0; i < 2000 && atomic_load(&f->respond->calls) > 0; i++)
        respond_sleep_ms(5);
    assert_int_equal(atomic_load(&f->respond->calls), 0);
}

Assay__V1__Variant respond_variant(const char *dir)
{
    Assay__V1__Variant variant = ASSAY__V1__VARIANT__INIT;
    variant.artifact_dir = (char *)(uintptr_t)dir;
    return variant;
}

Assay__V1__GenerateRequest respond_request(const char *prompt, uint32_t tokens_max)
{
    static Assay__V1__Variant model;
    Assay__V1__GenerateRequest request = ASSAY__V1__GENERATE_REQUEST__INIT;
    model = respond_variant(RESPOND_MODEL);
    request.model = &model;
    request.prompt = (char *)(uintptr_t)prompt;
    request.has_tokens_max = request.has_ignore_eos = true;
    request.tokens_max = tokens_max;
    request.ignore_eos = true;
    return request;
}

struct assay_stream *respond_open(struct respond_fixture *f, const Assay__V1__GenerateRequest *request, uint32_t credit)
{
    struct assay_stream *stream;
    struct assay_err err = ASSAY_ERR_INIT;
    respond_ok(assay_stream_open(f->client, &assay__v1__respond__descriptor, METHOD_GENERATE, &request->base, NULL,
                                 credit, &stream, &err),
               &err);
    return stream;
}

static void append_text(struct answer *answer, const char *text, size_t len)
{
    answer->text = realloc(answer->text, answer->text_len + len + 1);
    memcpy(answer->text + answer->text_len, text, len);
    answer->text_len += len;
    answer->text[answer->text_len] = '\0';
}

bool respond_read(struct assay_stream *stream, struct answer *answer)
{
    struct assay_reply *reply = NULL;
    answer->status = assay_stream_next(stream, 30000, &reply, &answer->err);
    if (answer->status != ASSAY_OK || !reply)
        return false;
    const Assay__V1__GenerateReply *message = assay_reply_message(reply);
    assert_false(answer->has_totals); /* the last is the last */
    assert_int_equal(message->n_ids, message->n_logprobs);
    assert_true(answer->tokens + message->n_ids <= RESPOND_TOKENS_MAX);
    for (size_t i = 0; i < message->n_ids; i++) {
        answer->ids[answer->tokens] = message->ids[i];
        answer->logprobs[answer->tokens++] = message->logprobs[i];
    }
    if (message->text)
        append_text(answer, message->text, strlen(message->text));
    answer->messages++;
    answer->has_totals = message->has_finish;
    answer->finish = message->finish;
    answer->prompt_tokens = message->prompt_tokens;
    answer->response_tokens = message->response_tokens;
    answer->queue_us = message->queue_us;
    answer->first_token_us = message->first_token_us;
    answer->total_us = message->total_us;
    assay_reply_free(reply);
    return true;
}

struct answer *respond_finish(struct assay_stream *stream)
{
    struct answer *answer = calloc(1, sizeof *answer);
    append_text(answer, "", 0);
    while (respond_read(stream, answer))
        ;
    assay_stream_close(stream);
    return answer;
}

struct answer *respond_ask(struct respond_fixture *f, const Assay__V1__GenerateRequest *request)
{
    return respond_finish(respond_open(f, request, 64));
}

void respond_answer_free(struct answer *answer)
{
    free(answer->text);
    free(answer);
}

static void on_end(void *arg, const struct assay_response *response)
{
    struct answer *answer = arg;
    answer->tokens = response->tokens;
    memcpy(answer->ids, response->ids, response->tokens * sizeof *response->ids);
    memcpy(answer->logprobs, response->logprobs, response->tokens * sizeof *response->logprobs);
    append_text(answer, response->text, response->text_len);
    answer->finish = response->finish == ASSAY_FINISH_EOS       ? ASSAY__V1__FINISH__FINISH_EOS
                     : response->finish == ASSAY_FINISH_STOPPED ? ASSAY__V1__FINISH__FINISH_STOP
                                                                : ASSAY__V1__FINISH__FINISH_LENGTH;
}

struct answer *respond_alone(const Assay__V1__GenerateRequest *message)
{
    struct answer *answer = calloc(1, sizeof *answer);
    struct assay_pool *pool;
    struct assay_responder *responder;
    struct assay_chat *chat = NULL;
    struct assay_request request;
    int32_t *ids = NULL;
    respond_ok(assay_pool_new(1, NULL, &pool, &answer->err), &answer->err);
    respond_ok(assay_responder_open(RESPOND_MODEL, pool, 1, ASSAY_F32, &responder, &answer->err), &answer->err);
    respond_ok(assay_chat_open(RESPOND_MODEL, &chat, &answer->err), &answer->err);
    assay_generate_options(message, &request);
    respond_ok(assay_generate_prompt(message, assay_responder_tokenizer(responder), chat, RESPOND_TOKENS_MAX, &ids,
                                     &request.prompt_tokens, &answer->err),
               &answer->err);
    request.prompt = ids;
    request.on_end = on_end;
    request.arg = answer;
    respond_ok(assay_responder_add(responder, &request, &answer->err), &answer->err);
    while (assay_responder_step(responder))
        ;
    free(ids);
    assay_chat_close(chat);
    assay_responder_close(responder);
    assay_pool_free(pool);
    return answer;
}

void respond_same(const struct answer *found, const struct answer *wanted)
{
    respond_ok(found->status, &found->err);
    assert_true(found->has_totals);
    assert_int_equal(found->finish, wanted->finish);
    assert_int_equal(found->tokens, wanted->tokens);
    assert_int_equal(found->response_tokens, wanted->tokens);
    assert_memory_equal(found->ids, wanted->ids, wanted->tokens * sizeof *wanted->ids);
    assert_memory_equal(found->logprobs, wanted->logprobs, wanted->tokens * sizeof *wanted->logprobs);
    assert_string_equal(found->text, wanted->text);
}
