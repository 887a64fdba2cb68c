/* Responses over the wire: the same as in one process, whatever the company; and everything that may go wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "services/inference/generate_request.h"
#include "tests/unit/respond_fixture.h"

static const char *const prompts[] = {"Once upon a time", "The birds", "In the year 1066 the king",
                                      "A song of",        "war and",   "She was born in"};

/* Options that differ from one to the next. */
static Assay__V1__GenerateRequest some_request(size_t index)
{
    static char *stops[] = {(char *)"the", (char *)"zzz"};
    Assay__V1__GenerateRequest request = respond_request(prompts[index % ASSAY_COUNT(prompts)], 20 + (uint32_t)index);
    request.has_seed = request.has_temperature = request.has_top_k = request.has_top_p = true;
    request.has_repetition_penalty = request.has_cache_dtype = true;
    request.seed = index;
    request.temperature = index % 3 ? 0.5 + (double)index * 0.1 : 0;
    request.top_k = index % 2 ? 50 : 0;
    request.top_p = 0.95;
    request.repetition_penalty = 1.1;
    request.cache_dtype = index % 4 == 3 ? ASSAY__V1__DTYPE__DTYPE_I8 : ASSAY__V1__DTYPE__DTYPE_F32;
    if (index % 5 == 4) {
        request.n_stops = ASSAY_COUNT(stops);
        request.stops = stops;
    }
    return request;
}

static void responses_do_not_depend_on_the_company(void **state)
{
    enum { COUNT = 11 };
    struct respond_fixture *f = *state;
    struct assay_stream *streams[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        Assay__V1__GenerateRequest request = some_request(i);
        streams[i] = respond_open(f, &request, 1 + (uint32_t)i);
    }
    size_t stopped = 0, messages = 0;
    for (size_t i = 0; i < COUNT; i++) {
        Assay__V1__GenerateRequest request = some_request(i);
        struct answer *found = respond_finish(streams[i]), *wanted = respond_alone(&request);
        respond_same(found, wanted);
        messages += found->messages;
        assert_true(found->queue_us <= found->first_token_us && found->first_token_us <= found->total_us);
        assert_true(found->prompt_tokens > 0);
        stopped += found->finish == ASSAY__V1__FINISH__FINISH_STOP;
        respond_answer_free(found);
        respond_answer_free(wanted);
    }
    assert_true(stopped > 0);
    assert_true(messages > COUNT); /* they do stream */
    respond_await_quiet(f);
}

static void prompts_may_be_ids_or_messages(void **state)
{
    struct respond_fixture *f = *state;
    int32_t ids[] = {17, 300, 9, 1024};
    Assay__V1__GenerateRequest by_ids = respond_request(NULL, 9), by_chat = respond_request(NULL, 9);
    by_ids.ids = ids;
    by_ids.n_ids = ASSAY_COUNT(ids);
    by_chat.messages = (char *)"[{\"role\": \"user\", \"content\": \"Tell me of birds\"}]";
    struct answer *answers[] = {respond_ask(f, &by_ids), respond_alone(&by_ids), respond_ask(f, &by_chat),
                                respond_alone(&by_chat)};
    respond_same(answers[0], answers[1]);
    respond_same(answers[2], answers[3]);
    assert_int_equal(answers[0]->prompt_tokens, ASSAY_COUNT(ids));
    assert_string_not_equal(answers[0]->text, answers[2]->text);
    for (size_t i = 0; i < ASSAY_COUNT(answers); i++)
        respond_answer_free(answers[i]);
}

static void who_cancels_leaves_the_batch(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest request = respond_request(prompts[0], 900), other = some_request(1);
    struct assay_stream *stream = respond_open(f, &request, 4), *stays = respond_open(f, &other, 4);
    struct answer partial = {0};
    assert_true(respond_read(stream, &partial) && respond_read(stream, &partial));
    assay_stream_close(stream);
    free(partial.text);
    struct answer *found = respond_finish(stays), *wanted = respond_alone(&other);
    respond_same(found, wanted);
    respond_await_quiet(f);
    assert_true(atomic_load(&f->respond->tokens) < 900); /* it was not computed to its end */
    respond_answer_free(found);
    respond_answer_free(wanted);
}

static void a_client_that_is_gone_is_noticed(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest request = respond_request(prompts[0], 900);
    struct assay_stream *stream = respond_open(f, &request, 4);
    struct answer partial = {0};
    assert_true(respond_read(stream, &partial));
    free(partial.text);
    assay_client_free(f->client); /* ends its calls, and the connection */
    f->client = NULL;
    assay_stream_close(stream);
    respond_await_quiet(f);
    assert_true(atomic_load(&f->respond->tokens) < 900);
}

static void deadlines_end_responses(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest warm = respond_request(prompts[0], 1), request = respond_request(prompts[0], 900);
    respond_answer_free(respond_ask(f, &warm));
    struct assay_stream *stream;
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_call_options options = {.deadline_ms = 60};
    respond_ok(assay_stream_open(f->client, &assay__v1__respond__descriptor, METHOD_GENERATE, &request.base, &options,
                                 1024, &stream, &err),
               &err);
    struct answer *answer = respond_finish(stream);
    assert_int_equal(answer->status, ASSAY_DEADLINE_EXCEEDED);
    respond_answer_free(answer);
    respond_await_quiet(f);
    assert_true(atomic_load(&f->respond->tokens) < 901);
}

static void a_slow_reader_holds_nobody_up(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest slow = some_request(2), quick = some_request(3);
    struct assay_stream *stream = respond_open(f, &slow, 1);
    struct answer *found = respond_ask(f, &quick), *wanted = respond_alone(&quick);
    respond_same(found, wanted);
    respond_answer_free(found);
    respond_answer_free(wanted);
    while (atomic_load(&f->respond->tokens) < slow.tokens_max + quick.tokens_max)
        respond_sleep_ms(2);
    found = respond_finish(stream);
    wanted = respond_alone(&slow);
    respond_same(found, wanted);
    assert_true(found->messages <= 3); /* what had waited came in one */
    respond_answer_free(found);
    respond_answer_free(wanted);
}

static void a_reader_that_stands_still_is_given_up(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest request = respond_request(prompts[0], 50);
    f->respond->options.stall_ms = 200;
    struct assay_stream *stream = respond_open(f, &request, 1);
    while (atomic_load(&f->respond->tokens) == 0)
        respond_sleep_ms(2);
    respond_await_quiet(f);
    struct answer *found = respond_finish(stream);
    assert_int_equal(found->status, ASSAY_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(found->err.text, "took no message for"));
    assert_true(found->tokens < 50);
    respond_answer_free(found);
}

static void want_status(struct respond_fixture *f, const Assay__V1__GenerateRequest *request, enum assay_status status,
                        const char *part)
{
    struct answer *answer = respond_ask(f, request);
    if (answer->status != status || !strstr(answer->err.text, part))
        fail_msg("found %s \"%s\", wanted %s with \"%s\"", assay_status_name(answer->status), answer->err.text,
                 assay_status_name(status), part);
    respond_answer_free(answer);
}

static void requests_that_contradict_themselves_are_refused(void **state)
{
    struct respond_fixture *f = *state;
    const Assay__V1__GenerateRequest good = respond_request("a", 2);
    Assay__V1__GenerateRequest bad = good;
    int32_t ids[] = {1, 4096};
    bad.ids = ids;
    bad.n_ids = 1;
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "one of prompt, messages and ids");
    bad.prompt = NULL;
    bad.n_ids = 2;
    want_status(f, &bad, ASSAY_OUT_OF_RANGE, "id 4096 at position 1");
    bad = good;
    bad.prompt = (char *)"";
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "no tokens");
    bad = good;
    bad.tools = (char *)"[]";
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "go with messages");
    bad = good;
    bad.prompt = NULL;
    bad.messages = (char *)"{";
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "messages");
    bad = good;
    bad.has_temperature = true;
    bad.temperature = -1;
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "temperature");
    bad = good;
    bad.has_cache_dtype = true;
    bad.cache_dtype = ASSAY__V1__DTYPE__DTYPE_U8;
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "cache_dtype");
    bad = good;
    bad.tokens_max = 0;
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "tokens_max is 0");
    char *empty[] = {(char *)""};
    bad = good;
    bad.stops = empty;
    bad.n_stops = 1;
    want_status(f, &bad, ASSAY_INVALID_ARGUMENT, "stop string 0 is empty");
    respond_await_quiet(f);
}

static void ceilings_hold(void **state)
{
    struct respond_fixture *f = *state;
    const Assay__V1__GenerateRequest good = respond_request("a", 2);
    Assay__V1__GenerateRequest bad = good;
    bad.tokens_max = RESPOND_TOKENS_MAX;
    want_status(f, &bad, ASSAY_RESOURCE_EXHAUSTED, "this worker takes");
    static char words[4 * RESPOND_TOKENS_MAX];
    for (size_t i = 0; i + 2 < sizeof words; i += 2)
        memcpy(words + i, " a", 2);
    bad = good;
    bad.prompt = words;
    want_status(f, &bad, ASSAY_RESOURCE_EXHAUSTED, "this worker takes");
    char *huge = calloc(1, ASSAY_GENERATE_TEXT_BYTES_MAX + 2);
    memset(huge, 'a', ASSAY_GENERATE_TEXT_BYTES_MAX + 1);
    bad.prompt = huge;
    want_status(f, &bad, ASSAY_RESOURCE_EXHAUSTED, "bytes");
    bad = good;
    char *stops[ASSAY_GENERATE_STOPS_MAX + 1];
    for (size_t i = 0; i < ASSAY_COUNT(stops); i++)
        stops[i] = (char *)"s";
    bad.stops = stops;
    bad.n_stops = ASSAY_COUNT(stops);
    want_status(f, &bad, ASSAY_RESOURCE_EXHAUSTED, "stop strings");
    stops[0] = huge;
    bad.n_stops = 1;
    want_status(f, &bad, ASSAY_RESOURCE_EXHAUSTED, "stop string 0");
    free(huge);
    struct assay_stream *streams[ASSAY_RESPOND_CALLS_MAX];
    for (size_t i = 0; i < ASSAY_COUNT(streams); i++)
        streams[i] = respond_open(f, &good, 8);
    while (atomic_load(&f->respond->calls) > 0 && atomic_load(&f->respond->tokens) == 0)
        respond_sleep_ms(1);
    size_t served = 0;
    for (size_t i = 0; i < ASSAY_COUNT(streams); i++) {
        struct answer *answer = respond_finish(streams[i]);
        served += answer->status == ASSAY_OK;
        respond_answer_free(answer);
    }
    assert_int_equal(served, ASSAY_COUNT(streams));
    atomic_fetch_add(&f->respond->calls, ASSAY_RESPOND_CALLS_MAX);
    want_status(f, &good, ASSAY_RESOURCE_EXHAUSTED, "256 calls are under way");
    atomic_fetch_sub(&f->respond->calls, ASSAY_RESPOND_CALLS_MAX);
}

static void models_are_checked(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest request = respond_request("a", 2);
    Assay__V1__VariantSpec spec = ASSAY__V1__VARIANT_SPEC__INIT;
    uint8_t id[ASSAY_DIGEST_BYTES] = {1};
    Assay__V1__Variant model = respond_variant(RESPOND_MODEL);
    request.model = &model;
    spec.scheme = (char *)"int8";
    model.spec = &spec;
    want_status(f, &request, ASSAY_FAILED_PRECONDITION, "this worker runs fp32, the model is of int8");
    model.spec = NULL;
    model.has_variant_id = true;
    model.variant_id = (ProtobufCBinaryData){3, id};
    want_status(f, &request, ASSAY_INVALID_ARGUMENT, "variant_id");
    model.variant_id.len = sizeof id;
    want_status(f, &request, ASSAY_FAILED_PRECONDITION, "not the variant");
    model = respond_variant("models/assay-tiny");
    want_status(f, &request, ASSAY_INVALID_ARGUMENT, "absolute path");
    model = respond_variant("/nowhere/at/all");
    want_status(f, &request, ASSAY_NOT_FOUND, "/nowhere/at/all");
    model = respond_variant(f->directory);
    want_status(f, &request, ASSAY_NOT_FOUND, "config.json");
    model = respond_variant(RESPOND_CLASSIFIER);
    want_status(f, &request, ASSAY_UNIMPLEMENTED, "bert");
    request.model = NULL;
    want_status(f, &request, ASSAY_INVALID_ARGUMENT, "model.artifact_dir");
    respond_await_quiet(f);
    assert_true(assay_lanes_models(f->respond->lanes) <= 2);
}

/* A copy of the tiny model by links. */
static void link_model(const struct respond_fixture *f, const char *name, char path[ASSAY_PATH_MAX])
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    struct assay_err err = ASSAY_ERR_INIT;
    respond_ok(assay_path_join(path, f->directory, name, &err), &err);
    respond_ok(assay_mkdirs(path, 0700, &err), &err);
    for (size_t i = 0; i < ASSAY_COUNT(files); i++) {
        char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
        respond_ok(assay_path_join(from, RESPOND_MODEL, files[i], &err), &err);
        respond_ok(assay_path_join(to, path, files[i], &err), &err);
        assert_int_equal(symlink(from, to), 0);
    }
}

static void an_idle_model_makes_room_and_a_busy_one_does_not(void **state)
{
    struct respond_fixture *f = *state;
    char dirs[2][ASSAY_PATH_MAX];
    link_model(f, "a", dirs[0]);
    link_model(f, "b", dirs[1]);
    Assay__V1__Variant models[] = {respond_variant(RESPOND_MODEL), respond_variant(dirs[0]), respond_variant(dirs[1])};
    Assay__V1__GenerateRequest request = respond_request(prompts[0], 8), longer = respond_request(prompts[1], 900);
    struct answer *wanted = respond_alone(&request);
    for (size_t i = 0; i < 6; i++) { /* three models in two places */
        request.model = &models[i % 3];
        struct answer *found = respond_ask(f, &request);
        respond_same(found, wanted);
        respond_answer_free(found);
        assert_true(assay_lanes_models(f->respond->lanes) <= 2);
    }
    struct assay_stream *busy[2];
    struct answer partial = {0};
    for (size_t i = 0; i < 2; i++) {
        longer.model = &models[i];
        busy[i] = respond_open(f, &longer, 2);
        assert_true(respond_read(busy[i], &partial));
    }
    request.model = &models[2];
    want_status(f, &request, ASSAY_RESOURCE_EXHAUSTED, "2 models are answering");
    for (size_t i = 0; i < 2; i++)
        assay_stream_close(busy[i]);
    free(partial.text);
    respond_answer_free(wanted);
    respond_await_quiet(f);
}

static void stopping_ends_what_is_under_way(void **state)
{
    struct respond_fixture *f = *state;
    Assay__V1__GenerateRequest request = respond_request(prompts[0], 900);
    struct assay_stream *streams[6]; /* four have a place, two wait */
    struct answer partial = {0};
    for (size_t i = 0; i < ASSAY_COUNT(streams); i++)
        streams[i] = respond_open(f, &request, 4);
    assert_true(respond_read(streams[0], &partial));
    free(partial.text);
    assay_respond_stop(f->respond);
    for (size_t i = 0; i < ASSAY_COUNT(streams); i++) {
        struct answer *answer = respond_finish(streams[i]);
        assert_int_equal(answer->status, ASSAY_UNAVAILABLE);
        respond_answer_free(answer);
    }
    want_status(f, &request, ASSAY_UNAVAILABLE, "shutting down");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESPOND_TEST(responses_do_not_depend_on_the_company),
        RESPOND_TEST(prompts_may_be_ids_or_messages),
        RESPOND_TEST(who_cancels_leaves_the_batch),
        RESPOND_TEST(a_client_that_is_gone_is_noticed),
        RESPOND_TEST(deadlines_end_responses),
        RESPOND_TEST(a_slow_reader_holds_nobody_up),
        RESPOND_TEST(a_reader_that_stands_still_is_given_up),
        RESPOND_TEST(requests_that_contradict_themselves_are_refused),
        RESPOND_TEST(ceilings_hold),
        RESPOND_TEST(models_are_checked),
        RESPOND_TEST(an_idle_model_makes_room_and_a_busy_one_does_not),
        RESPOND_TEST(stopping_ends_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
