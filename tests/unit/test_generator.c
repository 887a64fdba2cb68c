/* Requests that leave the batch, and caches of several kinds in one batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/nn/responder.h"

#define MODEL ASSAY_SOURCE_DIR "/models/assay-tiny"

enum { TOKENS_MAX = 24, PROMPT_TOKENS = 9 };

struct asked {
    size_t wanted_tokens; /* it is wanted until it has so many */
    enum assay_dtype kv;
    struct assay_sampling sampling;
    /* what came */
    int32_t ids[TOKENS_MAX];
    double logprobs[TOKENS_MAX];
    size_t tokens, ends;
    enum assay_finish finish;
    bool cancelled;
};

static struct assay_pool *pool;

static void want_ok(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

static bool on_text(void *arg, const char *text, size_t len, const struct assay_choice *choice)
{
    struct asked *asked = arg;
    (void)text;
    (void)len;
    if (choice) {
        asked->ids[asked->tokens] = choice->id;
        asked->logprobs[asked->tokens++] = choice->logprob;
    }
    return true;
}

static bool is_wanted(void *arg)
{
    const struct asked *asked = arg;
    return asked->tokens < asked->wanted_tokens;
}

static void on_end(void *arg, const struct assay_response *response)
{
    struct asked *asked = arg;
    asked->ends++;
    asked->finish = response->finish;
    asked->cancelled = response->cancelled;
}

/* Asks all at once, at most `at_once` of them under way together. */
static void answer(struct asked *asked, size_t count, size_t at_once, enum assay_dtype kv, bool has_kv)
{
    struct assay_responder *responder;
    struct assay_err err = ASSAY_ERR_INIT;
    want_ok(assay_responder_open(MODEL, pool, at_once, kv, &responder, &err), &err);
    for (size_t i = 0; i < count; i++) {
        int32_t prompt[PROMPT_TOKENS];
        for (size_t k = 0; k < PROMPT_TOKENS; k++)
            prompt[k] = (int32_t)((i * 31 + k * 7 + 5) % 1000);
        const struct assay_request request = {
            .prompt = prompt,
            .prompt_tokens = PROMPT_TOKENS,
            .tokens_max = TOKENS_MAX,
            .sampling = asked[i].sampling,
            .ignore_eos = true,
            .has_kv = has_kv,
            .kv = asked[i].kv,
            .is_wanted = is_wanted,
            .on_text = on_text,
            .on_end = on_end,
            .arg = &asked[i],
        };
        want_ok(assay_responder_add(responder, &request, &err), &err);
    }
    while (assay_responder_step(responder))
        ;
    assay_responder_close(responder);
}

static struct asked some(size_t index, enum assay_dtype kv)
{
    return (struct asked){
        .wanted_tokens = SIZE_MAX,
        .kv = kv,
        .sampling = {.temperature = 0.9, .top_k = 40, .top_p = 0.95, .repetition_penalty = 1.1, .seed = index},
    };
}

static void want_same(const struct asked *found, const struct asked *wanted)
{
    assert_int_equal(found->tokens, wanted->tokens);
    assert_memory_equal(found->ids, wanted->ids, found->tokens * sizeof *found->ids);
    assert_memory_equal(found->logprobs, wanted->logprobs, found->tokens * sizeof *found->logprobs);
}

static void who_is_not_wanted_leaves_and_nobody_notices(void **state)
{
    enum { COUNT = 7, AT_ONCE = 3 };
    (void)state;
    struct asked together[COUNT], all[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        together[i] = all[i] = some(i, ASSAY_F32);
    together[1].wanted_tokens = 4; /* under way */
    together[5].wanted_tokens = 0; /* while it waits */
    together[6].wanted_tokens = 0; /* the last in the queue */
    answer(together, COUNT, AT_ONCE, ASSAY_F32, false);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(together[i].ends, 1);
    assert_int_equal(together[1].tokens, 4);
    assert_int_equal(together[5].tokens, 0);
    assert_int_equal(together[6].tokens, 0);
    for (size_t i = 0; i < COUNT; i++) {
        bool left = i == 1 || i == 5 || i == 6;
        assert_int_equal(together[i].finish, left ? ASSAY_FINISH_STOPPED : ASSAY_FINISH_LENGTH);
        assert_int_equal(together[i].cancelled, left);
    }
    answer(all, COUNT, COUNT, ASSAY_F32, false);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(all[i].tokens, TOKENS_MAX);
        together[i].tokens = all[i].tokens = ASSAY_MIN(together[i].tokens, all[i].tokens);
        want_same(&together[i], &all[i]);
    }
}

static void caches_of_several_kinds_share_a_batch(void **state)
{
    static const enum assay_dtype kinds[] = {ASSAY_F32, ASSAY_F16, ASSAY_BF16, ASSAY_I8};
    (void)state;
    struct asked mixed[ASSAY_COUNT(kinds)];
    size_t different = 0;
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
        mixed[i] = some(i, kinds[i]);
    answer(mixed, ASSAY_COUNT(kinds), ASSAY_COUNT(kinds), ASSAY_F32, true);
    for (size_t k = 0; k < ASSAY_COUNT(kinds); k++) {
        struct asked pure[ASSAY_COUNT(kinds)];
        for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
            pure[i] = some(i, kinds[k]);
        answer(pure, ASSAY_COUNT(kinds), 2, kinds[k], false);
        want_same(&mixed[k], &pure[k]);
        for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
            different += i != k && memcmp(mixed[i].logprobs, pure[i].logprobs, sizeof pure[i].logprobs) != 0;
    }
    assert_true(different > 0); /* the kinds do differ */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_not_wanted_leaves_and_nobody_notices),
        cmocka_unit_test(caches_of_several_kinds_share_a_batch),
    };
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_pool_new(2, NULL, &pool, &err) != ASSAY_OK)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    assay_pool_free(pool);
    return failed;
}
