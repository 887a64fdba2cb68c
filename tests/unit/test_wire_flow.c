/* Retries, limits by peer, calls on behalf of others, a server that drains. */
#include "tests/unit/test_wire_support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "common/base/clock.h"
#include "common/wire/endpoint.h"
#include "common/wire/server_internal.h"

/* --- pure parts --- */

static void retries_need_a_status_an_attempt_and_tokens(void **state)
{
    (void)state;
    struct assay_throttle throttle = {0};
    const struct assay_retry_policy *policy = &assay_retry_default;
    assert_true(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
    assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_NOT_FOUND));
    assert_false(assay_retry_may(policy, &throttle, 5, ASSAY_UNAVAILABLE));
    assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_OK));
    throttle.missing = 0;
    /* Four failures may be retried; the fifth has half the tokens gone. */
    for (int i = 0; i < 4; i++)
        assert_true(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
    assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
    for (int i = 0; i < 100; i++)
        assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
    /* Ten tokens are missing: 60 successes give six back, and the next failure takes one. */
    for (int i = 0; i < 60; i++)
        assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_OK));
    assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
    for (int i = 0; i < 11; i++)
        assert_false(assay_retry_may(policy, &throttle, 1, ASSAY_OK));
    assert_true(assay_retry_may(policy, &throttle, 1, ASSAY_UNAVAILABLE));
}

static void backoff_doubles_up_to_its_ceiling_with_a_fifth_of_jitter(void **state)
{
    (void)state;
    const struct assay_retry_policy policy = {5, 100, 350, 2, 0};
    static const int64_t middle[] = {100, 200, 350, 350};
    for (unsigned attempt = 1; attempt <= 4; attempt++) {
        int64_t low = INT64_MAX, high = 0;
        for (uint32_t random = 0; random < 41; random++) {
            int64_t ms = assay_retry_backoff_ms(&policy, attempt, random);
            low = ASSAY_MIN(low, ms);
            high = ASSAY_MAX(high, ms);
        }
        assert_int_equal(low, middle[attempt - 1] * 80 / 100);
        assert_int_equal(high, middle[attempt - 1] * 120 / 100);
    }
}

static void a_bucket_gives_its_burst_and_then_its_rate(void **state)
{
    (void)state;
    struct assay_bucket bucket = {0};
    int taken = 0;
    for (int i = 0; i < 1000; i++)
        taken += assay_bucket_take(&bucket, 100, 20, 5000);
    assert_int_equal(taken, 20);
    for (int64_t ms = 5000; ms <= 6000; ms++)
        taken += assay_bucket_take(&bucket, 100, 20, ms);
    assert_true(taken >= 119 && taken <= 121);
    assert_false(assay_bucket_take(&bucket, 0, 0, 1000000));
    assert_true(assay_bucket_take(&bucket, 100, 20, 1001000));
}

/* --- calls --- */

struct retrying {
    struct wire *wire;
    const struct assay_retry_policy *policy;
    int64_t deadline_ms;
    enum assay_status status;
};

static void *call_with_retries(void *arg)
{
    struct retrying *retrying = arg;
    const struct assay_call_options options = {
        .deadline_ms = retrying->deadline_ms, .retry = retrying->policy, .owner = retrying};
    struct assay_reply *reply = NULL;
    retrying->status = wire_lease(retrying->wire, LEASE_ECHO, 1, &options, &reply, NULL);
    assay_reply_free(reply);
    return NULL;
}

static void drain(void *arg)
{
    assay_server_drain(arg);
}

static void a_call_is_made_again_until_the_server_is_back(void **state)
{
    struct wire *wire = *state;
    const struct assay_retry_policy often = {5, 300, 300, 1, 1u << ASSAY_UNAVAILABLE};
    struct retrying retrying = {wire, &often, 10000, ASSAY_UNKNOWN};
    pthread_t thread;
    assay_loop_call(wire->loop, drain, wire->server);
    assert_int_equal(pthread_create(&thread, NULL, call_with_retries, &retrying), 0);
    wire_sleep_ms(150);
    wire_stop_server(wire);
    wire_start_server(wire);
    pthread_join(thread, NULL);
    assert_int_equal(retrying.status, ASSAY_OK);
}

static void the_deadline_covers_all_attempts(void **state)
{
    struct wire *wire = *state;
    const struct assay_retry_policy slow = {5, 400, 400, 1, 1u << ASSAY_UNAVAILABLE};
    struct retrying retrying = {wire, &slow, 600, ASSAY_UNKNOWN};
    assay_loop_call(wire->loop, drain, wire->server);
    int64_t started_ms = assay_now_ms();
    call_with_retries(&retrying);
    assert_int_equal(retrying.status, ASSAY_UNAVAILABLE);
    assert_true(assay_now_ms() - started_ms < 1000);
}

static void a_pause_before_a_retry_is_cancelled_with_its_owner(void **state)
{
    struct wire *wire = *state;
    const struct assay_retry_policy slow = {5, 20000, 20000, 1, 1u << ASSAY_UNAVAILABLE};
    struct retrying retrying = {wire, &slow, 60000, ASSAY_UNKNOWN};
    pthread_t thread;
    assay_loop_call(wire->loop, drain, wire->server);
    int64_t started_ms = assay_now_ms();
    assert_int_equal(pthread_create(&thread, NULL, call_with_retries, &retrying), 0);
    wire_sleep_ms(300);
    assay_client_cancel_owned(wire->client, &retrying);
    pthread_join(thread, NULL);
    assert_int_equal(retrying.status, ASSAY_UNAVAILABLE);
    assert_true(assay_now_ms() - started_ms < 5000);
}

/* --- on behalf of another call --- */

struct nested {
    struct wire *wire;
    const struct assay_call *parent;
    enum assay_status status;
    int64_t took_ms;
};

static void *call_nested(void *arg)
{
    struct nested *nested = arg;
    const struct assay_call_options options = {.deadline_ms = 60000, .parent = nested->parent};
    struct assay_reply *reply = NULL;
    int64_t started_ms = assay_now_ms();
    nested->status = wire_lease(nested->wire, LEASE_HOLD, 1, &options, &reply, NULL);
    nested->took_ms = assay_now_ms() - started_ms;
    assay_reply_free(reply);
    return NULL;
}

struct outer {
    struct wire *wire;
    int64_t deadline_ms;
    const void *owner;
    enum assay_status status;
};

static void *call_outer(void *arg)
{
    struct outer *outer = arg;
    const struct assay_call_options options = {
        .deadline_ms = outer->deadline_ms, .owner = outer->owner, .trace_id = "0123456789abcdef0123456789abcdef"};
    struct assay_reply *reply = NULL;
    outer->status = wire_lease(outer->wire, LEASE_HOLD, 1, &options, &reply, NULL);
    assay_reply_free(reply);
    return NULL;
}

/* An outer call is held; a nested one is made for it, and held, too. What the server sees of the nested one. */
static void nest(struct wire *wire, int64_t outer_ms, bool cancel, struct nested *nested, int64_t *ret_left_ms)
{
    struct outer outer = {wire, outer_ms, &outer, ASSAY_UNKNOWN};
    pthread_t outer_thread, nested_thread;
    assert_int_equal(pthread_create(&outer_thread, NULL, call_outer, &outer), 0);
    struct assay_call *parent = wire_take_held(wire);
    nested->wire = wire;
    nested->parent = parent;
    assert_int_equal(pthread_create(&nested_thread, NULL, call_nested, nested), 0);
    struct assay_call *inner = wire_take_held(wire);
    *ret_left_ms = assay_call_time_left_ms(inner);
    assert_string_equal(assay_call_trace_id(inner), "0123456789abcdef0123456789abcdef");
    if (cancel)
        assay_client_cancel_owned(wire->client, &outer);
    pthread_join(outer_thread, NULL);
    pthread_join(nested_thread, NULL);
    for (int i = 0; i < 200 && !assay_call_cancelled(inner); i++)
        wire_sleep_ms(10);
    assert_true(assay_call_cancelled(inner));
    wire_answer_held(inner, 1);
    wire_answer_held(parent, 1);
}

static void a_nested_call_has_the_time_that_is_left(void **state)
{
    struct nested nested = {.status = ASSAY_UNKNOWN};
    int64_t left_ms = 0;
    nest(*state, 700, false, &nested, &left_ms);
    assert_true(left_ms > 0 && left_ms <= 700);
    assert_int_equal(nested.status, ASSAY_DEADLINE_EXCEEDED);
    assert_true(nested.took_ms < 2000);
}

static void a_nested_call_ends_with_the_one_that_it_is_for(void **state)
{
    struct nested nested = {.status = ASSAY_UNKNOWN};
    int64_t left_ms = 0;
    nest(*state, 30000, true, &nested, &left_ms);
    assert_int_equal(nested.status, ASSAY_CANCELLED);
    assert_true(nested.took_ms < 3000);
}

/* --- who is there --- */

static uint64_t messages(const struct wire *wire)
{
    struct assay_server_counts counts;
    assay_server_counts(wire->server, &counts);
    return counts.messages;
}

static void a_client_asks_only_when_it_is_not_answered(void **state)
{
    struct wire *wire = *state;
    struct outer outer = {wire, 60000, NULL, ASSAY_UNKNOWN};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_outer, &outer), 0);
    struct assay_call *held = wire_take_held(wire);
    uint64_t before = messages(wire);
    int64_t begun_ms = assay_now_ms(), took_ms, longest_ms = 0;
    for (int i = 0; i < 12; i++, longest_ms = ASSAY_MAX(longest_ms, took_ms)) {
        took_ms = -assay_now_ms();
        wire_sleep_ms(400);
        wire_assert_alive(wire);
        took_ms += assay_now_ms();
    }
    assert_true(assay_now_ms() - begun_ms > ASSAY_WIRE_PING_BUSY_MS + 1000);
    if (longest_ms < ASSAY_WIRE_PING_MS) /* else the machine stood still, and the client was right to ask */
        assert_int_equal(messages(wire) - before, 12);
    before = messages(wire);
    wire_sleep_ms(ASSAY_WIRE_PING_MS + 2000);
    assert_true(messages(wire) > before);
    wire_answer_held(held, 1);
    pthread_join(thread, NULL);
    assert_int_equal(outer.status, ASSAY_OK);
}

struct forgetful {
    void *socket;
    _Atomic int requests;
};

/* Keeps the first call, and refuses the second as another instance, which has never heard of the first. */
static void *be_forgetful(void *arg)
{
    struct forgetful *server = arg;
    while (server->requests < 2) {
        zmq_pollitem_t item = {.socket = server->socket, .events = ZMQ_POLLIN};
        struct assay_frames frames;
        if (zmq_poll(&item, 1, 10000) < 1 || !assay_frames_recv(&frames, server->socket, true))
            break;
        Assay__V1__Header *header = assay_header_unpack(zmq_msg_data(&frames.parts[0]), zmq_msg_size(&frames.parts[0]));
        bool is_ping = header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_PING;
        Assay__V1__Header answer = ASSAY__V1__HEADER__INIT;
        answer.has_kind = answer.has_call_id = answer.has_instance = answer.has_status = true;
        answer.kind = is_ping ? ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG : ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY;
        answer.call_id = header->call_id;
        answer.instance = is_ping ? 1 : 2;
        answer.status = is_ping ? ASSAY_OK : ASSAY_NOT_FOUND;
        server->requests += !is_ping;
        if (is_ping || server->requests == 2)
            (void)assay_header_send(&answer, server->socket, zmq_msg_data(&frames.id), zmq_msg_size(&frames.id));
        assay__v1__header__free_unpacked(header, NULL);
        assay_frames_clear(&frames);
    }
    return NULL;
}

static void a_reply_of_another_instance_ends_the_calls_that_it_does_not_know(void **state)
{
    struct wire *wire = *state;
    struct forgetful server = {0};
    struct wire other = {0};
    struct outer outer = {&other, 60000, NULL, ASSAY_UNKNOWN};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    pthread_t serving, calling;
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "ipc://%s/forgetful", wire->directory);
    void *zmq = zmq_ctx_new();
    assert_int_equal(assay_socket_new(zmq, ZMQ_ROUTER, 1000, &server.socket, &err), ASSAY_OK);
    assert_int_equal(zmq_bind(server.socket, endpoint), 0);
    assert_int_equal(pthread_create(&serving, NULL, be_forgetful, &server), 0);
    assert_int_equal(assay_client_new(wire->loop, endpoint, &other.client, &err), ASSAY_OK);
    assert_int_equal(pthread_create(&calling, NULL, call_outer, &outer), 0);
    assert_int_equal(wire_await(&server.requests, 1), 1);
    int64_t begun_ms = assay_now_ms();
    assert_int_equal(wire_lease(&other, LEASE_ECHO, 1, NULL, &reply, &err), ASSAY_NOT_FOUND);
    pthread_join(calling, NULL);
    assert_int_equal(outer.status, ASSAY_UNAVAILABLE);
    assert_true(assay_now_ms() - begun_ms < 2000); /* not by silence */
    pthread_join(serving, NULL);
    assay_client_free(other.client);
    zmq_close(server.socket);
    zmq_ctx_term(zmq);
}

/* --- a server that drains, limits --- */

static void a_draining_server_answers_what_is_under_way_and_takes_nothing_new(void **state)
{
    struct wire *wire = *state;
    struct outer outer = {wire, 10000, NULL, ASSAY_UNKNOWN};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_outer, &outer), 0);
    struct assay_call *held = wire_take_held(wire);
    assay_loop_call(wire->loop, drain, wire->server);
    assert_int_equal(wire_lease(wire, LEASE_ECHO, 1, NULL, &reply, &err), ASSAY_UNAVAILABLE);
    assert_non_null(strstr(err.text, "going down"));
    Assay__V1__HealthCheckRequest check = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    assert_int_equal(assay_call_unary(wire->client, &assay__v1__health__descriptor, 0, &check.base, NULL, &reply, &err),
                     ASSAY_OK);
    const Assay__V1__HealthCheckReply *health = assay_reply_message(reply);
    assert_int_equal(health->status, ASSAY__V1__SERVING_STATUS__SERVING_STATUS_NOT_SERVING);
    assay_reply_free(reply);
    wire_answer_held(held, 3);
    pthread_join(thread, NULL);
    assert_int_equal(outer.status, ASSAY_OK);
    struct assay_server_counts counts;
    assay_server_counts(wire->server, &counts);
    assert_int_equal(counts.refused[ASSAY_REFUSED_DRAINING], 1);
}

struct new_limits {
    struct assay_server *server;
    struct assay_server_limits limits;
};

static void set_limits(void *arg)
{
    const struct new_limits *new_limits = arg;
    assay_server_set_limits(new_limits->server, &new_limits->limits);
}

static uint64_t refused(const struct wire *wire, enum assay_refusal refusal)
{
    struct assay_server_counts counts;
    assay_server_counts(wire->server, &counts);
    return counts.refused[refusal];
}

static void limits_of_a_peer_hold(void **state)
{
    struct wire *wire = *state;
    struct new_limits few = {wire->server, ASSAY_SERVER_LIMITS_DEFAULT};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    struct outer outer = {wire, 10000, NULL, ASSAY_UNKNOWN};
    pthread_t thread;
    few.limits.calls = 1;
    assay_loop_call(wire->loop, set_limits, &few);
    assert_int_equal(pthread_create(&thread, NULL, call_outer, &outer), 0);
    struct assay_call *held = wire_take_held(wire);
    assert_int_equal(wire_lease(wire, LEASE_ECHO, 1, NULL, &reply, &err), ASSAY_RESOURCE_EXHAUSTED);
    assert_int_equal(refused(wire, ASSAY_REFUSED_PEER_CALLS), 1);
    wire_answer_held(held, 1);
    pthread_join(thread, NULL);
    few.limits.calls = 100;
    few.limits.messages_per_s = 20;
    assay_loop_call(wire->loop, set_limits, &few);
    int over = 0;
    for (int i = 0; i < 100; i++) {
        enum assay_status status = wire_lease(wire, LEASE_ECHO, 1, NULL, &reply, &err);
        over += status == ASSAY_RESOURCE_EXHAUSTED;
        if (status == ASSAY_OK)
            assay_reply_free(reply);
    }
    assert_true(over > 0 && over < 100);
    assert_true(refused(wire, ASSAY_REFUSED_RATE) >= (uint64_t)over); /* a PING may be among them */
    few.limits.messages_per_s = 10000;
    few.limits.message_bytes = 100;
    assay_loop_call(wire->loop, set_limits, &few);
    static const char large[200];
    const struct assay_attachment attachment = {.data = large, .bytes = sizeof large};
    const struct assay_call_options options = {.deadline_ms = 300, .attachments = &attachment, .attachments_count = 1};
    assert_int_equal(wire_lease(wire, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_DEADLINE_EXCEEDED);
    assert_int_equal(refused(wire, ASSAY_REFUSED_BYTES), 1);
    wire_assert_alive(wire);
}

static void a_peer_that_sends_garbage_is_cut_off_and_others_are_served(void **state)
{
    struct wire *wire = *state;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    int zero = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    assert_int_equal(zmq_connect(socket, wire->endpoint), 0);
    for (int i = 0; i < 20000; i++)
        assert_int_equal(zmq_send(socket, "nonsense", 8, 0), 8);
    struct assay_server_counts counts = {0};
    for (int i = 0; i < 500 && counts.cut == 0; i++) {
        wire_assert_alive(wire);
        wire_sleep_ms(2);
        assay_server_counts(wire->server, &counts);
    }
    assert_true(counts.cut >= 1);
    assert_true(counts.refused[ASSAY_REFUSED_HEADER] >= ASSAY_WIRE_PEER_GARBAGE_MAX);
    wire_assert_alive(wire);
    zmq_close(socket);
    zmq_ctx_term(context);
}

static void connections_beyond_the_limit_are_cut(void **state)
{
    struct wire *wire = *state;
    struct new_limits few = {wire->server, ASSAY_SERVER_LIMITS_DEFAULT};
    wire_assert_alive(wire);
    few.limits.connections = 4;
    assay_loop_call(wire->loop, set_limits, &few);
    void *context = zmq_ctx_new(), *sockets[12];
    int zero = 0;
    for (size_t i = 0; i < ASSAY_COUNT(sockets); i++) {
        sockets[i] = zmq_socket(context, ZMQ_DEALER);
        zmq_setsockopt(sockets[i], ZMQ_LINGER, &zero, sizeof zero);
        assert_int_equal(zmq_connect(sockets[i], wire->endpoint), 0);
    }
    for (int i = 0; i < 300 && refused(wire, ASSAY_REFUSED_CONNECTIONS) == 0; i++)
        wire_sleep_ms(10);
    assert_true(refused(wire, ASSAY_REFUSED_CONNECTIONS) > 0);
    wire_assert_alive(wire);
    for (size_t i = 0; i < ASSAY_COUNT(sockets); i++)
        zmq_close(sockets[i]);
    zmq_ctx_term(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retries_need_a_status_an_attempt_and_tokens),
        cmocka_unit_test(backoff_doubles_up_to_its_ceiling_with_a_fifth_of_jitter),
        cmocka_unit_test(a_bucket_gives_its_burst_and_then_its_rate),
        WIRE_TEST(a_call_is_made_again_until_the_server_is_back),
        WIRE_TEST(the_deadline_covers_all_attempts),
        WIRE_TEST(a_pause_before_a_retry_is_cancelled_with_its_owner),
        WIRE_TEST(a_nested_call_has_the_time_that_is_left),
        WIRE_TEST(a_nested_call_ends_with_the_one_that_it_is_for),
        WIRE_TEST(a_client_asks_only_when_it_is_not_answered),
        WIRE_TEST(a_reply_of_another_instance_ends_the_calls_that_it_does_not_know),
        WIRE_TEST(a_draining_server_answers_what_is_under_way_and_takes_nothing_new),
        WIRE_TEST(limits_of_a_peer_hold),
        WIRE_TEST(a_peer_that_sends_garbage_is_cut_off_and_others_are_served),
        WIRE_TEST(connections_beyond_the_limit_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
