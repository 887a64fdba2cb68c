/* Membership, with a coordinator that is only a table of answers. */
#include "tests/unit/test_wire_support.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/wire/member.h"

struct fake {
    struct wire *wire;
    _Atomic int registrations, heartbeats, forget, mute;
    _Atomic int bad; /* messages that were not as they should be */
    struct assay_call *muted;
};

static void on_register(struct assay_call *call, void *service)
{
    struct fake *fake = service;
    const Assay__V1__RegisterRequest *request = assay_call_request(call);
    if (request->pid != (uint32_t)getpid() || !request->host || !*request->host ||
        strcmp(request->endpoint, "ipc:///somewhere") != 0 || strcmp(request->precision, "int8") != 0)
        fake->bad++;
    Assay__V1__RegisterReply reply = ASSAY__V1__REGISTER_REPLY__INIT;
    reply.has_service_id = reply.has_heartbeat_ms = true;
    reply.service_id = 100 + (uint64_t)++fake->registrations;
    reply.heartbeat_ms = 10;
    assay_call_reply(call, &reply.base, NULL, 0);
}

static void on_heartbeat(struct assay_call *call, void *service)
{
    struct fake *fake = service;
    const Assay__V1__HeartbeatRequest *request = assay_call_request(call);
    if (fake->mute) {
        fake->mute = 0;
        fake->muted = call;
        return;
    }
    if (request->service_id != 100 + (uint64_t)fake->registrations || !request->counters ||
        request->counters->rss_bytes < 100000 || request->counters->chunks_run != 42)
        fake->bad++;
    Assay__V1__HeartbeatReply reply = ASSAY__V1__HEARTBEAT_REPLY__INIT;
    reply.has_unknown = true;
    reply.unknown = fake->forget != 0;
    fake->forget = 0;
    fake->heartbeats++;
    assay_call_reply(call, &reply.base, NULL, 0);
}

static const assay_method_fn handlers[64] = {on_register, on_heartbeat};

static void add_coordinator(void *arg)
{
    struct fake *fake = arg;
    assay_server_add(fake->wire->server, &assay__v1__coordinator__descriptor, handlers, fake);
}

static void fill(void *arg, Assay__V1__ServiceCounters *counters)
{
    _Atomic int *calls = arg;
    (*calls)++;
    counters->has_chunks_run = true;
    counters->chunks_run = 42;
}

static _Atomic int fills;

static struct assay_member *start(struct wire *wire, struct fake *fake)
{
    assert_true(assay__v1__coordinator__descriptor.n_methods <= ASSAY_COUNT(handlers));
    fake->wire = wire;
    assay_loop_call(wire->loop, add_coordinator, fake);
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    char endpoint[] = "ipc:///somewhere", precision[] = "int8";
    registration.has_kind = true;
    registration.kind = ASSAY__V1__SERVICE_KIND__SERVICE_KIND_INFERENCE;
    registration.endpoint = endpoint;
    registration.precision = precision;
    struct assay_member *member = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    assert_int_equal(assay_member_start(wire->client, &registration, fill, &fills, &member, &err), ASSAY_OK);
    memset(endpoint, 'x', strlen(endpoint)); /* the registration is copied */
    return member;
}

static void await_at_least(const _Atomic int *value, int wanted)
{
    for (int i = 0; i < 3000 && *value < wanted; i++)
        wire_sleep_ms(1);
    assert_true(*value >= wanted);
}

static void a_member_registers_and_sends_heartbeats_with_its_counts(void **state)
{
    static struct fake fake; /* a heartbeat under way may arrive while the server is taken down */
    struct assay_member *member = start(*state, &fake);
    assert_int_equal(assay_member_id(member, 5000), 101);
    await_at_least(&fake.heartbeats, 3);
    assay_member_stop(member);
    assert_int_equal(fake.registrations, 1);
    assert_int_equal(fake.bad, 0);
    assert_true(fills >= 3);
}

static void a_member_that_was_forgotten_registers_again(void **state)
{
    static struct fake fake; /* a heartbeat under way may arrive while the server is taken down */
    struct assay_member *member = start(*state, &fake);
    assert_int_equal(assay_member_id(member, 5000), 101);
    fake.forget = 1;
    await_at_least(&fake.registrations, 2);
    assert_int_equal(assay_member_id(member, 5000), 102);
    assay_member_forgotten(member, 101); /* an id of the past changes nothing */
    assert_int_equal(assay_member_id(member, 0), 102);
    assay_member_forgotten(member, 102);
    assert_int_equal(assay_member_id(member, 5000), 103);
    assay_member_stop(member);
    assert_int_equal(fake.bad, 0);
}

static void a_member_registers_with_a_coordinator_that_was_restarted(void **state)
{
    struct wire *wire = *state;
    static struct fake fake; /* a heartbeat under way may arrive while the server is taken down */
    struct assay_member *member = start(wire, &fake);
    assert_int_equal(assay_member_id(member, 5000), 101);
    fake.mute = 1;
    for (int i = 0; i < 2000 && fake.mute; i++)
        wire_sleep_ms(1);
    wire_stop_server(wire);
    struct assay_err err = {.status = ASSAY_ABORTED};
    assay_call_fail(fake.muted, &err);
    wire_start_server(wire);
    assay_loop_call(wire->loop, add_coordinator, &fake);
    await_at_least(&fake.registrations, 2);
    assay_member_stop(member);
}

static void stopping_a_member_does_not_wait_for_a_silent_coordinator(void **state)
{
    struct wire *wire = *state;
    static struct fake fake = {.mute = 1};
    struct assay_member *member = start(wire, &fake);
    for (int i = 0; i < 2000 && fake.mute; i++)
        wire_sleep_ms(1);
    int64_t before_ms = assay_now_ms();
    assay_member_stop(member);
    assert_true(assay_now_ms() - before_ms < 1000);
    struct assay_err err = {.status = ASSAY_ABORTED};
    assay_call_fail(fake.muted, &err);
}

static void no_id_is_zero(void **state)
{
    struct wire *wire = *state;
    Assay__V1__RegisterRequest registration = ASSAY__V1__REGISTER_REQUEST__INIT;
    struct assay_member *member = NULL;
    assert_int_equal(assay_member_start(wire->client, &registration, NULL, NULL, &member, NULL), ASSAY_OK);
    assert_int_equal(assay_member_id(member, 50), 0); /* this server has no coordinator */
    assay_member_stop(member);
}

static void *request_shutdown(void *arg)
{
    wire_sleep_ms(20);
    assay_shutdown_request();
    return arg;
}

static void shutdown_waits_for_the_signal_or_the_request(void **state)
{
    (void)state;
    kill(getpid(), SIGINT);
    assert_int_equal(assay_shutdown_wait(), SIGINT);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, request_shutdown, NULL), 0);
    assert_int_equal(assay_shutdown_wait(), SIGTERM);
    pthread_join(thread, NULL);
}

int main(void)
{
    assay_shutdown_prepare();
    const struct CMUnitTest tests[] = {
        WIRE_TEST(a_member_registers_and_sends_heartbeats_with_its_counts),
        WIRE_TEST(a_member_that_was_forgotten_registers_again),
        WIRE_TEST(a_member_registers_with_a_coordinator_that_was_restarted),
        WIRE_TEST(stopping_a_member_does_not_wait_for_a_silent_coordinator),
        WIRE_TEST(no_id_is_zero),
        cmocka_unit_test(shutdown_waits_for_the_signal_or_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
