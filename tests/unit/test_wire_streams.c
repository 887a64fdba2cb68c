/* Server streams, and health, which has one. */
#include "tests/unit/test_wire_support.h"

#include <string.h>

#include "common/base/clock.h"

static struct assay_stream *open_score(struct wire *wire, int total, uint32_t credit,
                                       const struct assay_call_options *options)
{
    wire->stream_total = total;
    Assay__V1__ScoreRequest request = ASSAY__V1__SCORE_REQUEST__INIT;
    struct assay_stream *stream = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_stream_open(wire->client, &assay__v1__evaluator__descriptor, 0, &request.base, options,
                                       credit, &stream, &err),
                     ASSAY_OK);
    return stream;
}

static uint64_t number_of(const struct assay_reply *reply)
{
    return ((const Assay__V1__ScoreReply *)assay_reply_message(reply))->chunks_done;
}

/* The producer is never ahead of the consumer by more than the credit. */
static void drain(struct wire *wire, struct assay_stream *stream, int total, int credit)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    for (int i = 0; i < total; i++) {
        int sent = wire->stream_sent;
        if (sent - i > credit)
            fail_msg("message %d: %d were sent, credit is %d", i, sent, credit);
        assert_int_equal(assay_stream_next(stream, 5000, &reply, &err), ASSAY_OK);
        assert_non_null(reply);
        assert_int_equal(number_of(reply), i + 1);
        assay_reply_free(reply);
    }
    assert_int_equal(assay_stream_next(stream, 5000, &reply, &err), ASSAY_OK);
    assert_null(reply);
}

static void ten_thousand_messages_come_in_order_within_the_credit(void **state)
{
    struct wire *wire = *state;
    struct assay_stream *stream = open_score(wire, 10000, 4, NULL);
    drain(wire, stream, 10000, 4);
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(assay_stream_next(stream, 0, &reply, &err), ASSAY_OK);
    assert_null(reply);
    assay_stream_close(stream);
    assert_int_equal(wire->stream_result, ASSAY_OK);
}

static void a_credit_of_one_is_enough(void **state)
{
    struct assay_stream *stream = open_score(*state, 200, 1, NULL);
    drain(*state, stream, 200, 1);
    assay_stream_close(stream);
}

static void a_slow_consumer_blocks_the_producers_thread(void **state)
{
    struct wire *wire = *state;
    struct assay_stream *stream = open_score(wire, 100, 3, NULL);
    assert_int_equal(wire_await(&wire->stream_sent, 3), 3);
    wire_sleep_ms(100);
    assert_int_equal(wire->stream_sent, 3);
    assert_int_equal(wire->stream_result, -1);
    wire_assert_alive(wire); /* the loop is not what is blocked */
    drain(wire, stream, 100, 3);
    assay_stream_close(stream);
}

static void closing_a_stream_wakes_its_blocked_producer(void **state)
{
    struct wire *wire = *state;
    struct assay_stream *stream = open_score(wire, 100, 2, NULL);
    assert_int_equal(wire_await(&wire->stream_sent, 2), 2);
    assay_stream_close(stream);
    assert_int_equal(wire_await(&wire->stream_result, ASSAY_CANCELLED), ASSAY_CANCELLED);
}

static void nothing_within_the_wait_is_no_end(void **state)
{
    struct wire *wire = *state;
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    struct assay_stream *stream = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(
        assay_stream_open(wire->client, &assay__v1__health__descriptor, 1, &request.base, NULL, 4, &stream, &err),
        ASSAY_OK);
    assert_int_equal(assay_stream_next(stream, 5000, &reply, &err), ASSAY_OK);
    assay_reply_free(reply);
    strcpy(err.text, "untouched");
    assert_int_equal(assay_stream_next(stream, 30, &reply, &err), ASSAY_DEADLINE_EXCEEDED);
    assert_string_equal(err.text, "");
    assay_stream_close(stream);
}

static void the_deadline_of_a_stream_covers_all_of_it(void **state)
{
    struct wire *wire = *state;
    struct assay_call_options options = {.deadline_ms = 150};
    struct assay_stream *stream = open_score(wire, 100, 1, &options);
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    int64_t before_ms = assay_now_ms();
    enum assay_status status = ASSAY_OK;
    while (status == ASSAY_OK && assay_now_ms() - before_ms < 3000) {
        status = assay_stream_next(stream, -1, &reply, &err);
        if (status == ASSAY_OK)
            assay_reply_free(reply);
        wire_sleep_ms(20);
    }
    assert_int_equal(status, ASSAY_DEADLINE_EXCEEDED);
    assert_string_not_equal(err.text, "");
    assay_stream_close(stream);
    assert_int_equal(wire_await(&wire->stream_result, ASSAY_CANCELLED), ASSAY_CANCELLED);
}

static void a_stream_outlives_its_client_as_cancelled(void **state)
{
    struct wire *wire = *state;
    struct assay_stream *stream = open_score(wire, 100, 2, NULL);
    assert_int_equal(wire_await(&wire->stream_sent, 2), 2);
    assay_client_free(wire->client);
    wire->client = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(assay_stream_next(stream, -1, &reply, &err), ASSAY_CANCELLED);
    assay_stream_close(stream);
    assert_int_equal(wire_await(&wire->stream_result, ASSAY_CANCELLED), ASSAY_CANCELLED);
}

static void a_stream_called_as_unary_is_refused(void **state)
{
    struct wire *wire = *state;
    wire->stream_total = 0;
    Assay__V1__ScoreRequest request = ASSAY__V1__SCORE_REQUEST__INIT;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(
        assay_call_unary(wire->client, &assay__v1__evaluator__descriptor, 0, &request.base, NULL, &reply, &err),
        ASSAY_UNIMPLEMENTED);
    wire_await(&wire->stream_result, ASSAY_OK);
}

static enum assay_status check_health(struct wire *wire, const char *service, Assay__V1__ServingStatus *ret)
{
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)(uintptr_t)service;
    struct assay_reply *reply = NULL;
    enum assay_status status =
        assay_call_unary(wire->client, &assay__v1__health__descriptor, 0, &request.base, NULL, &reply, NULL);
    if (status == ASSAY_OK)
        *ret = ((const Assay__V1__HealthCheckReply *)assay_reply_message(reply))->status;
    assay_reply_free(status == ASSAY_OK ? reply : NULL);
    return status;
}

static void set_not_serving(void *server)
{
    assay_server_set_serving(server, false);
}

static void set_serving(void *server)
{
    assay_server_set_serving(server, true);
}

static void health_check_tells_serving_from_not_and_from_unknown(void **state)
{
    struct wire *wire = *state;
    Assay__V1__ServingStatus status;
    assert_int_equal(check_health(wire, NULL, &status), ASSAY_OK);
    assert_int_equal(status, ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING);
    assert_int_equal(check_health(wire, "assay.v1.Work", &status), ASSAY_OK);
    assert_int_equal(status, ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING);
    assert_int_equal(check_health(wire, "assay.v1.Nothing", &status), ASSAY_NOT_FOUND);
    assay_loop_call(wire->loop, set_not_serving, wire->server);
    assert_int_equal(check_health(wire, "", &status), ASSAY_OK);
    assert_int_equal(status, ASSAY__V1__SERVING_STATUS__SERVING_STATUS_NOT_SERVING);
}

static Assay__V1__ServingStatus next_health(struct assay_stream *stream)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(assay_stream_next(stream, 5000, &reply, &err), ASSAY_OK);
    assert_non_null(reply);
    Assay__V1__ServingStatus status = ((const Assay__V1__HealthCheckReply *)assay_reply_message(reply))->status;
    assay_reply_free(reply);
    return status;
}

static void health_watch_sends_each_change(void **state)
{
    struct wire *wire = *state;
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    struct assay_stream *known = NULL, *unknown = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    const ProtobufCServiceDescriptor *health = &assay__v1__health__descriptor;
    assert_int_equal(assay_stream_open(wire->client, health, 1, &request.base, NULL, 1, &known, &err), ASSAY_OK);
    request.service = (char *)(uintptr_t) "assay.v1.Nothing";
    assert_int_equal(assay_stream_open(wire->client, health, 1, &request.base, NULL, 1, &unknown, &err), ASSAY_OK);
    assert_int_equal(next_health(unknown), ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVICE_UNKNOWN);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(next_health(known), ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING);
        assay_loop_call(wire->loop, set_not_serving, wire->server);
        assert_int_equal(next_health(known), ASSAY__V1__SERVING_STATUS__SERVING_STATUS_NOT_SERVING);
        assay_loop_call(wire->loop, set_serving, wire->server);
    }
    assert_int_equal(next_health(known), ASSAY__V1__SERVING_STATUS__SERVING_STATUS_SERVING);
    wire_stop_server(wire);
    struct assay_reply *reply = NULL;
    assert_int_equal(assay_stream_next(known, 5000, &reply, &err), ASSAY_UNAVAILABLE);
    assay_stream_close(known);
    assay_stream_close(unknown);
    wire_start_server(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(ten_thousand_messages_come_in_order_within_the_credit),
        WIRE_TEST(a_credit_of_one_is_enough),
        WIRE_TEST(a_slow_consumer_blocks_the_producers_thread),
        WIRE_TEST(closing_a_stream_wakes_its_blocked_producer),
        WIRE_TEST(nothing_within_the_wait_is_no_end),
        WIRE_TEST(the_deadline_of_a_stream_covers_all_of_it),
        WIRE_TEST(a_stream_outlives_its_client_as_cancelled),
        WIRE_TEST(a_stream_called_as_unary_is_refused),
        WIRE_TEST(health_check_tells_serving_from_not_and_from_unknown),
        WIRE_TEST(health_watch_sends_each_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
