/* Unary calls. */
#include "tests/unit/test_wire_support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

static void a_call_returns_the_reply(void **state)
{
    wire_assert_alive(*state);
}

static void a_failed_call_has_the_servers_status_and_sentence(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(*state, LEASE_FAIL, 9, NULL, &reply, &err), ASSAY_NOT_FOUND);
    assert_int_equal(err.status, ASSAY_NOT_FOUND);
    assert_string_equal(err.text, "no lease 9 in this test, found nothing");
    assert_null(reply);
}

static _Atomic int released;

static void count_release(void *data, void *hint)
{
    released++;
    assay_attachment_free(data, hint);
}

static unsigned char *pattern(size_t bytes, unsigned seed)
{
    unsigned char *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)((i * 2654435761u + seed) >> 13);
    return data;
}

static void attachments_arrive_byte_by_byte_both_ways(void **state)
{
    static const size_t sizes[] = {2 * 1024 * 1024, 0, 1, 33, 34, 100, 8191, 3 * 1024 * 1024 + 5};
    unsigned char *wanted[ASSAY_COUNT(sizes)];
    struct assay_attachment attachments[ASSAY_COUNT(sizes)];
    released = 0;
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++) {
        wanted[i] = pattern(sizes[i], (unsigned)i);
        attachments[i] = (struct assay_attachment){
            .data = pattern(sizes[i], (unsigned)i), .bytes = sizes[i], .release = count_release};
    }
    struct assay_call_options options = {
        .deadline_ms = 10000, .attachments = attachments, .attachments_count = ASSAY_COUNT(sizes)};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(*state, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_OK);
    assert_int_equal(assay_reply_attachments(reply), ASSAY_COUNT(sizes));
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++) {
        struct assay_bytes bytes = assay_reply_attachment(reply, i);
        assert_int_equal(bytes.bytes, sizes[i]);
        assert_int_equal((uintptr_t)bytes.data % 8, 0);
        if (sizes[i] > 0)
            assert_memory_equal(bytes.data, wanted[i], sizes[i]);
        free(wanted[i]);
    }
    assay_reply_free(reply);
    assert_int_equal(wire_await(&released, ASSAY_COUNT(sizes)), ASSAY_COUNT(sizes));
}

static void attachments_are_released_when_the_call_cannot_be_made(void **state)
{
    struct assay_attachment attachments[64];
    released = 0;
    for (size_t i = 0; i < ASSAY_COUNT(attachments); i++)
        attachments[i] = (struct assay_attachment){.data = malloc(1), .bytes = 1, .release = count_release};
    struct assay_call_options options = {.attachments = attachments, .attachments_count = ASSAY_COUNT(attachments)};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(*state, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_RESOURCE_EXHAUSTED);
    assert_int_equal(released, 64);
}

static void an_unknown_method_is_unimplemented(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__CompleteRequest complete = ASSAY__V1__COMPLETE_REQUEST__INIT;
    assert_int_equal(
        assay_call_unary(wire->client, &assay__v1__work__descriptor, 1, &complete.base, NULL, &reply, &err),
        ASSAY_UNIMPLEMENTED);
    assert_non_null(strstr(err.text, "assay.v1.Work/Complete"));
}

static void a_deadline_ends_the_call_on_time_though_the_handler_holds_it(void **state)
{
    struct wire *wire = *state;
    struct assay_call_options options = {.deadline_ms = 600};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    wire_assert_alive(wire); /* connected: what follows is the call's own time */
    int64_t before_ms = assay_now_ms();
    assert_int_equal(wire_lease(wire, LEASE_HOLD, 1, &options, &reply, &err), ASSAY_DEADLINE_EXCEEDED);
    int64_t took_ms = assay_now_ms() - before_ms;
    assert_true(took_ms >= 599);
    assert_true(took_ms < 3000);
    struct assay_call *call = wire_take_held(wire);
    assert_int_equal(wire_await(&wire->cancels, 1), 1);
    assert_true(assay_call_cancelled(call));
    assert_true(assay_call_time_left_ms(call) < 10);
    wire_answer_held(call, 1); /* too late, and safe */
    wire_assert_alive(wire);
}

struct caller {
    pthread_t thread;
    struct wire *wire;
    enum lease_op op;
    const struct assay_call_options *options;
    enum assay_status status;
    struct assay_err err;
};

static void *call_thread(void *arg)
{
    struct caller *caller = arg;
    struct assay_reply *reply = NULL;
    caller->status = wire_lease(caller->wire, caller->op, 1, caller->options, &reply, &caller->err);
    assay_reply_free(reply);
    return NULL;
}

static void call_in_thread(struct caller *caller)
{
    assert_int_equal(pthread_create(&caller->thread, NULL, call_thread, caller), 0);
}

static void cancelling_the_client_reaches_the_handler(void **state)
{
    struct wire *wire = *state;
    struct caller caller = {.wire = wire, .op = LEASE_HOLD};
    call_in_thread(&caller);
    struct assay_call *call = wire_take_held(wire);
    assert_false(assay_call_cancelled(call));
    assay_client_cancel_all(wire->client);
    pthread_join(caller.thread, NULL);
    assert_int_equal(caller.status, ASSAY_CANCELLED);
    assert_int_equal(wire_await(&wire->cancels, 1), 1);
    assert_true(assay_call_cancelled(call));
    wire_answer_held(call, 1);
    wire_assert_alive(wire);
}

static void freeing_the_client_ends_its_calls(void **state)
{
    struct wire *wire = *state;
    struct caller callers[4];
    for (size_t i = 0; i < ASSAY_COUNT(callers); i++) {
        callers[i] = (struct caller){.wire = wire, .op = LEASE_HOLD};
        call_in_thread(&callers[i]);
        wire_answer_held(wire_take_held(wire), 1);
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].status, ASSAY_OK);
    }
    call_in_thread(&callers[0]);
    struct assay_call *call = wire_take_held(wire);
    assay_client_free(wire->client);
    wire->client = NULL;
    pthread_join(callers[0].thread, NULL);
    assert_int_equal(callers[0].status, ASSAY_CANCELLED);
    assert_int_equal(wire_await(&wire->cancels, 1), 1);
    wire_answer_held(call, 1);
}

static void a_call_may_be_answered_from_another_thread(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(*state, LEASE_OTHER_THREAD, 1, NULL, &reply, &err), ASSAY_OK);
    assay_reply_free(reply);
}

static void *many_calls(void *arg)
{
    struct caller *caller = arg;
    for (uint32_t i = 0; i < 100; i++) {
        struct assay_reply *reply = NULL;
        enum lease_op op = i % 10 == 9 ? LEASE_OTHER_THREAD : LEASE_ECHO;
        caller->status = wire_lease(caller->wire, op, i, NULL, &reply, &caller->err);
        if (caller->status != ASSAY_OK)
            return NULL;
        uint64_t got = ((const Assay__V1__LeaseReply *)assay_reply_message(reply))->lease_id;
        assay_reply_free(reply);
        if (got != i) {
            caller->status = ASSAY_DATA_LOSS;
            return NULL;
        }
    }
    return NULL;
}

static void eight_threads_call_at_once_and_each_gets_its_own_replies(void **state)
{
    struct caller callers[8];
    for (size_t i = 0; i < ASSAY_COUNT(callers); i++) {
        callers[i] = (struct caller){.wire = *state};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, many_calls, &callers[i]), 0);
    }
    for (size_t i = 0; i < ASSAY_COUNT(callers); i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].status, ASSAY_OK);
    }
}

static void a_call_ends_unavailable_when_the_server_stops(void **state)
{
    struct wire *wire = *state;
    struct caller caller = {.wire = wire, .op = LEASE_HOLD};
    call_in_thread(&caller);
    struct assay_call *call = wire_take_held(wire);
    wire_stop_server(wire);
    pthread_join(caller.thread, NULL);
    assert_int_equal(caller.status, ASSAY_UNAVAILABLE);
    assert_true(assay_call_cancelled(call));
    wire_answer_held(call, 1); /* its server is gone */
    wire_start_server(wire);
    wire_assert_alive(wire);
}

static void wait_for_ready_waits_for_a_server_that_comes_later(void **state)
{
    struct wire *wire = *state;
    wire_stop_server(wire);
    struct assay_call_options options = {.deadline_ms = 5000, .wait_for_ready = true};
    struct caller caller = {.wire = wire, .op = LEASE_ECHO, .options = &options};
    call_in_thread(&caller);
    wire_sleep_ms(100);
    wire_start_server(wire);
    pthread_join(caller.thread, NULL);
    assert_int_equal(caller.status, ASSAY_OK);
}

static void deadlines_hold_while_no_server_is_there(void **state)
{
    struct wire *wire = *state;
    wire_stop_server(wire);
    struct assay_call_options options = {.deadline_ms = 100, .wait_for_ready = true};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(wire, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_DEADLINE_EXCEEDED);
    wire_start_server(wire);
    wire_assert_alive(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(a_call_returns_the_reply),
        WIRE_TEST(a_failed_call_has_the_servers_status_and_sentence),
        WIRE_TEST(attachments_arrive_byte_by_byte_both_ways),
        WIRE_TEST(attachments_are_released_when_the_call_cannot_be_made),
        WIRE_TEST(an_unknown_method_is_unimplemented),
        WIRE_TEST(a_deadline_ends_the_call_on_time_though_the_handler_holds_it),
        WIRE_TEST(cancelling_the_client_reaches_the_handler),
        WIRE_TEST(freeing_the_client_ends_its_calls),
        WIRE_TEST(a_call_may_be_answered_from_another_thread),
        WIRE_TEST(eight_threads_call_at_once_and_each_gets_its_own_replies),
        WIRE_TEST(a_call_ends_unavailable_when_the_server_stops),
        WIRE_TEST(wait_for_ready_waits_for_a_server_that_comes_later),
        WIRE_TEST(deadlines_hold_while_no_server_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
