/* A worker's service Respond over a socket of its own, and a client. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/fs.h"
#include "common/wire/client.h"
#include "services/inference/respond_internal.h"

#define RESPOND_MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"
#define RESPOND_CLASSIFIER ASSAY_SOURCE_DIR "/tests/vectors/bert_classifier"

enum { METHOD_GENERATE, METHOD_EMBED, METHOD_CLASSIFY };
enum { RESPOND_TOKENS_MAX = 1000, RESPOND_STALL_MS = 30000 };

struct respond_fixture {
    char directory[64], endpoint[96], cache_dir[96];
    struct assay_pool *pool;
    struct assay_models *models;
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_client *client;
    struct assay_respond *respond;
};

int respond_setup(void **state);
int respond_teardown(void **state);
#define RESPOND_TEST(name) cmocka_unit_test_setup_teardown(name, respond_setup, respond_teardown)

void respond_ok(enum assay_status status, const struct assay_err *err);
/* Waits until no call is under way. */
void respond_await_quiet(struct respond_fixture *f);
void respond_sleep_ms(int ms);

/* A request for a response to `prompt` by the tiny model; the model message lives as long as the process. */
Assay__V1__GenerateRequest respond_request(const char *prompt, uint32_t tokens_max);
Assay__V1__Variant respond_variant(const char *dir);

/* What came of a Generate call. */
struct answer {
    char *text;
    size_t text_len;
    int32_t ids[RESPOND_TOKENS_MAX];
    double logprobs[RESPOND_TOKENS_MAX];
    size_t tokens, messages;
    enum assay_status status;
    struct assay_err err;
    bool has_totals;
    Assay__V1__Finish finish;
    uint32_t prompt_tokens, response_tokens;
    uint64_t queue_us, first_token_us, total_us;
};

struct assay_stream *respond_open(struct respond_fixture *f, const Assay__V1__GenerateRequest *request,
                                  uint32_t credit);
/* One message into the answer. False: the stream has ended, with answer->status. */
bool respond_read(struct assay_stream *stream, struct answer *answer);
/* Reads to the end and closes. To be released. */
struct answer *respond_finish(struct assay_stream *stream);
struct answer *respond_ask(struct respond_fixture *f, const Assay__V1__GenerateRequest *request);
void respond_answer_free(struct answer *answer);
/* The same request by the model alone, in this process. */
struct answer *respond_alone(const Assay__V1__GenerateRequest *request);
void respond_same(const struct answer *found, const struct answer *wanted);
