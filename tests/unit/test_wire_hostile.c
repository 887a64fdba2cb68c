/* Peers that do not keep to the protocol. */
#include "tests/unit/test_wire_support.h"

#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/wire/envelope.h"
#include "common/wire/methods.h"
#include "common/wire/utf8.h"
#include "proto/control.pb-c.h"

struct raw {
    void *context, *socket;
};

static struct raw raw_open(const struct wire *wire)
{
    struct raw raw = {.context = zmq_ctx_new()};
    raw.socket = zmq_socket(raw.context, ZMQ_DEALER);
    int zero = 0, wait_ms = 20000;
    zmq_setsockopt(raw.socket, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(raw.socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    assert_int_equal(zmq_connect(raw.socket, wire->endpoint), 0);
    return raw;
}

static void raw_close(struct raw *raw)
{
    zmq_close(raw->socket);
    zmq_ctx_term(raw->context);
}

static void raw_send(struct raw *raw, const void *bytes, size_t count, bool more)
{
    assert_int_equal(zmq_send(raw->socket, bytes, count, more ? ZMQ_SNDMORE : 0), (int)count);
}

static Assay__V1__Header request_header(uint64_t id)
{
    Assay__V1__Header header = ASSAY__V1__HEADER__INIT;
    header.has_version = header.has_kind = header.has_call_id = true;
    header.version = 1;
    header.kind = ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST;
    header.call_id = id;
    header.method = (char *)(uintptr_t) "assay.v1.Work/Lease";
    return header;
}

static void raw_header(struct raw *raw, const Assay__V1__Header *header, bool more)
{
    uint8_t packed[32768];
    assert_true(assay__v1__header__get_packed_size(header) <= sizeof packed);
    raw_send(raw, packed, assay__v1__header__pack(header, packed), more);
}

/* The status of the next answer; -1 when none comes. */
static int raw_status(struct raw *raw, uint64_t id)
{
    uint8_t bytes[4096];
    int count = zmq_recv(raw->socket, bytes, sizeof bytes, 0);
    if (count < 0)
        return -1;
    Assay__V1__Header *header = assay_header_unpack(bytes, (size_t)count);
    assert_non_null(header);
    assert_int_equal(header->call_id, id);
    int status = (int)header->status;
    assay__v1__header__free_unpacked(header, NULL);
    return status;
}

/* All that was sent before this has been handled by the server when it returns. */
static void raw_sync(struct raw *raw)
{
    Assay__V1__Header ping = request_header(4711);
    ping.kind = ASSAY__V1__FRAME_KIND__FRAME_KIND_PING;
    ping.method = NULL;
    raw_header(raw, &ping, false);
    assert_int_equal(raw_status(raw, 4711), ASSAY_OK);
}

struct count {
    struct assay_server *server;
    uint64_t dropped;
};

static void read_dropped(void *arg)
{
    struct count *count = arg;
    count->dropped = assay_server_dropped(count->server);
}

static uint64_t dropped(struct wire *wire)
{
    struct count count = {.server = wire->server};
    assay_loop_call(wire->loop, read_dropped, &count);
    return count.dropped;
}

static void garbage_is_dropped_counted_and_disturbs_nobody(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    unsigned seed = 12345;
    const int messages = 500;
    for (int i = 0; i < messages; i++) {
        int parts = 1 + (int)(rand_r(&seed) % 5);
        for (int p = 0; p < parts; p++) {
            unsigned char bytes[300];
            size_t count = (size_t)rand_r(&seed) % sizeof bytes;
            for (size_t b = 0; b < count; b++)
                bytes[b] = (unsigned char)(rand_r(&seed) >> 7);
            raw_send(&raw, bytes, count, p + 1 < parts);
        }
        if (i % 50 == 0)
            wire_assert_alive(wire);
    }
    raw_sync(&raw);
    assert_int_equal(dropped(wire), messages);
    wire_assert_alive(wire);
    raw_close(&raw);
}

static void too_many_parts_are_dropped(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    Assay__V1__Header header = request_header(1);
    raw_header(&raw, &header, true);
    for (int i = 0; i < 1000; i++)
        raw_send(&raw, "x", 1, i < 999);
    raw_sync(&raw);
    assert_int_equal(dropped(wire), 1);
    wire_assert_alive(wire);
    raw_close(&raw);
}

static void parts_that_differ_from_the_header_are_answered_internal(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    uint64_t sizes[2] = {3, 4};
    Assay__V1__Header header = request_header(1);
    raw_header(&raw, &header, false); /* no payload */
    assert_int_equal(raw_status(&raw, 1), ASSAY_INTERNAL);
    header.call_id = 2;
    raw_header(&raw, &header, true); /* an attachment that the header does not name */
    raw_send(&raw, "", 0, true);
    raw_send(&raw, "abc", 3, false);
    assert_int_equal(raw_status(&raw, 2), ASSAY_INTERNAL);
    header.call_id = 3;
    header.n_attachment_bytes = 1;
    header.attachment_bytes = sizes;
    raw_header(&raw, &header, true); /* another size */
    raw_send(&raw, "", 0, true);
    raw_send(&raw, "abcd", 4, false);
    assert_int_equal(raw_status(&raw, 3), ASSAY_INTERNAL);
    header.call_id = 4;
    header.n_attachment_bytes = 2;
    raw_header(&raw, &header, true); /* one too few */
    raw_send(&raw, "", 0, true);
    raw_send(&raw, "abc", 3, false);
    assert_int_equal(raw_status(&raw, 4), ASSAY_INTERNAL);
    wire_assert_alive(wire);
    raw_close(&raw);
}

static void a_payload_that_does_not_unpack_is_answered_internal(void **state)
{
    struct raw raw = raw_open(*state);
    Assay__V1__Header header = request_header(1);
    raw_header(&raw, &header, true);
    raw_send(&raw, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, false);
    assert_int_equal(raw_status(&raw, 1), ASSAY_INTERNAL);
    raw_close(&raw);
}

static void a_deadline_that_has_passed_is_answered_so(void **state)
{
    struct raw raw = raw_open(*state);
    Assay__V1__Header header = request_header(1);
    header.has_time_left_ms = true;
    raw_header(&raw, &header, true);
    raw_send(&raw, "", 0, false);
    assert_int_equal(raw_status(&raw, 1), ASSAY_DEADLINE_EXCEEDED);
    raw_close(&raw);
}

static void a_second_request_with_the_id_of_an_open_call_is_dropped(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    Assay__V1__LeaseRequest lease = ASSAY__V1__LEASE_REQUEST__INIT;
    lease.has_service_id = true;
    lease.service_id = LEASE_HOLD;
    uint8_t packed[64];
    size_t bytes = assay__v1__lease_request__pack(&lease, packed);
    Assay__V1__Header header = request_header(1);
    for (int i = 0; i < 2; i++) {
        raw_header(&raw, &header, true);
        raw_send(&raw, packed, bytes, false);
    }
    raw_sync(&raw);
    assert_int_equal(dropped(wire), 1);
    wire_answer_held(wire_take_held(wire), 1);
    assert_int_equal(raw_status(&raw, 1), ASSAY_OK);
    raw_close(&raw);
}

static void credit_cancel_and_answers_from_strangers_do_nothing(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    for (int kind = 2; kind <= 9; kind++) {
        Assay__V1__Header header = request_header(99);
        header.kind = (Assay__V1__FrameKind)kind;
        header.has_credit = header.has_instance = true;
        header.credit = 4000000000u;
        if (kind != ASSAY__V1__FRAME_KIND__FRAME_KIND_PING)
            raw_header(&raw, &header, false);
    }
    raw_sync(&raw);
    wire_assert_alive(wire);
    raw_close(&raw);
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

/* More calls than a server takes, and the peer that made them vanishes without a word. */
static void calls_beyond_the_ceiling_are_refused(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    struct new_limits many = {wire->server, ASSAY_SERVER_LIMITS_DEFAULT};
    many.limits.calls = 2 * ASSAY_WIRE_INFLIGHT_MAX;
    assay_loop_call(wire->loop, set_limits, &many);
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    uint8_t packed[16];
    size_t bytes = assay__v1__health_check_request__pack(&request, packed);
    Assay__V1__Header header = request_header(0);
    header.method = (char *)(uintptr_t) "assay.v1.Health/Watch";
    for (uint64_t i = 1; i <= ASSAY_WIRE_INFLIGHT_MAX + 1; i++) {
        header.call_id = i;
        raw_header(&raw, &header, true);
        raw_send(&raw, packed, bytes, false);
    }
    assert_int_equal(raw_status(&raw, ASSAY_WIRE_INFLIGHT_MAX + 1), ASSAY_RESOURCE_EXHAUSTED);
    header.kind = ASSAY__V1__FRAME_KIND__FRAME_KIND_CANCEL;
    for (uint64_t i = 1; i <= 100; i++) {
        header.call_id = i;
        raw_header(&raw, &header, false);
    }
    raw_sync(&raw);
    wire_assert_alive(wire);
    raw_close(&raw);
}

/* The instance in the next PONG and its id; false when nothing comes. */
static bool raw_pong(struct raw *raw, uint64_t *ret_id, uint64_t *ret_instance)
{
    uint8_t bytes[256];
    int count = zmq_recv(raw->socket, bytes, sizeof bytes, 0);
    if (count < 0)
        return false;
    Assay__V1__Header *header = assay_header_unpack(bytes, (size_t)count);
    assert_non_null(header);
    assert_int_equal(header->kind, ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG);
    *ret_id = header->call_id;
    *ret_instance = header->instance;
    assay__v1__header__free_unpacked(header, NULL);
    return true;
}

struct drops {
    struct assay_server *server;
    uint64_t count;
};

static void read_drops(void *arg)
{
    struct drops *drops = arg;
    drops->count = assay_server_dropped(drops->server);
}

/* Messages of one peer are read in order: once a nonsense sent last has been dropped, all before it have been read. */
static void wait_until_read(struct wire *wire, struct raw *raw)
{
    struct drops before = {wire->server, 0}, now = {wire->server, 0};
    assay_loop_call(wire->loop, read_drops, &before);
    assert_int_equal(zmq_send(raw->socket, "nonsense", 8, 0), 8);
    for (int waited_ms = 0; now.count <= before.count && waited_ms < 20000; waited_ms += 10) {
        wire_sleep_ms(10);
        assay_loop_call(wire->loop, read_drops, &now);
    }
    assert_true(now.count > before.count);
}

/* What waits for it is bounded; what it misses it can tell from another instance. */
static void a_peer_that_does_not_read_is_given_up_and_disturbs_nobody(void **state)
{
    struct wire *wire = *state;
    struct raw raw = raw_open(wire);
    Assay__V1__Header ping = request_header(0);
    ping.kind = ASSAY__V1__FRAME_KIND__FRAME_KIND_PING;
    ping.method = NULL;
    for (ping.call_id = 1; ping.call_id <= 40000; ping.call_id++)
        raw_header(&raw, &ping, false);
    wire_assert_alive(wire);
    wait_until_read(wire, &raw);
    int wait_ms = 300;
    zmq_setsockopt(raw.socket, ZMQ_RCVTIMEO, &wait_ms, sizeof wait_ms);
    uint64_t id, first = 0, instance = 0, last_id = 0, pongs = 0;
    while (raw_pong(&raw, &id, &instance)) {
        first = first ? first : instance;
        assert_true(id > last_id);
        last_id = id;
        pongs++;
    }
    /* At least what one pipe holds came, and not all. */
    assert_true(pongs >= ASSAY_WIRE_HWM && pongs < 40000);
    raw_header(&raw, &ping, false);
    assert_true(raw_pong(&raw, &id, &instance));
    assert_int_equal(id, 40001);
    assert_true(instance != first);
    wire_assert_alive(wire);
    raw_close(&raw);
}

static void invalid_utf8_in_any_string_is_refused(void **state)
{
    struct raw raw = raw_open(*state);
    Assay__V1__Header header = request_header(1);
    header.method = (char *)(uintptr_t) "assay.v1.Health/Check";
    static const char *const bad[] = {"\n\x02\xc0\x80", "\n\x03\xed\xa0\x80", "\n\x01\x80", "\n\x04\xf4\x90\x80\x80",
                                      "\n\x02\xe2\x82"};
    for (size_t i = 0; i < ASSAY_COUNT(bad); i++) {
        header.call_id = i + 1;
        raw_header(&raw, &header, true);
        raw_send(&raw, bad[i], strlen(bad[i]), false);
        assert_int_equal(raw_status(&raw, i + 1), ASSAY_INTERNAL);
    }
    header.call_id = 100;
    raw_header(&raw, &header, true);
    raw_send(&raw, "\n\x04\xf0\x9f\x98\x80", 6, false);
    assert_int_equal(raw_status(&raw, 100), ASSAY_NOT_FOUND);
    raw_close(&raw);
}

static void utf8_is_checked_in_nested_and_repeated_messages(void **state)
{
    (void)state;
    Assay__V1__Parameter good = ASSAY__V1__PARAMETER__INIT, bad = ASSAY__V1__PARAMETER__INIT;
    good.key = (char *)(uintptr_t) "gr\xc3\xb6\xc3\x9f"
                                   "e";
    bad.value = (char *)(uintptr_t) "\xff";
    Assay__V1__Parameter *parameters[] = {&good, &bad};
    Assay__V1__VariantSpec spec = ASSAY__V1__VARIANT_SPEC__INIT, *specs[] = {&spec};
    spec.parameters = parameters;
    spec.n_parameters = 1;
    Assay__V1__SubmitJobRequest job = ASSAY__V1__SUBMIT_JOB_REQUEST__INIT;
    job.variants = specs;
    job.n_variants = 1;
    const char *field = NULL;
    assert_true(assay_utf8_message(&job.base, &field));
    spec.n_parameters = 2;
    assert_false(assay_utf8_message(&job.base, &field));
    assert_string_equal(field, "value");
    char text[] = "a\xff\xc3\xb6\xe2\x82";
    assay_utf8_repair(text);
    assert_string_equal(text, "a?\xc3\xb6??");
}

static void headers_beyond_their_limits_are_no_headers(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    Assay__V1__Metadata entry = ASSAY__V1__METADATA__INIT, *entries[9];
    for (size_t i = 0; i < ASSAY_COUNT(entries); i++)
        entries[i] = &entry;
    uint8_t packed[32768];
    for (int i = 0; i < 14; i++) {
        Assay__V1__Header header = request_header(1);
        entry = (Assay__V1__Metadata)ASSAY__V1__METADATA__INIT;
        entry.key = (char *)(uintptr_t) "key";
        entry.has_value = true;
        entry.value = (ProtobufCBinaryData){1000, (uint8_t *)text};
        header.metadata = entries;
        header.n_metadata = 1;
        bool fits = i < 2;
        header.trace_id = (char *)(uintptr_t) "0123456789abcdef0123456789abcdef";
        header.n_metadata = i == 1 ? 8 : i == 2 ? 9 : 1;
        if (i == 3)
            entry.value.len = 1025;
        if (i == 4)
            entry.key = (char *)(uintptr_t) "Key";
        if (i == 5)
            entry.key = text;
        if (i == 6)
            header.method = text;
        if (i == 7)
            header.sentence = text;
        if (i == 8)
            header.trace_id = (char *)(uintptr_t) "0123456789abcdef";
        if (i == 9)
            header.version = 2;
        if (i == 10)
            header.has_call_id = false;
        if (i == 11)
            header.method = NULL;
        if (i == 12)
            header.kind = (Assay__V1__FrameKind)77;
        if (i == 13)
            header.has_kind = false;
        Assay__V1__Header *found = assay_header_unpack(packed, assay__v1__header__pack(&header, packed));
        if ((found != NULL) != fits)
            fail_msg("case %d", i);
        if (found)
            assay__v1__header__free_unpacked(found, NULL);
    }
}

static void the_descriptor_set_tells_streams_from_unary_methods(void **state)
{
    (void)state;
    assert_false(assay_method_is_stream(&assay__v1__health__descriptor, 0));
    assert_true(assay_method_is_stream(&assay__v1__health__descriptor, 1));
    assert_false(assay_method_is_stream(&assay__v1__work__descriptor, 0));
    assert_true(assay_method_is_stream(&assay__v1__evaluator__descriptor, 0));
    const ProtobufCServiceDescriptor *coordinator = &assay__v1__coordinator__descriptor;
    for (unsigned i = 0; i < coordinator->n_methods; i++)
        assert_int_equal(assay_method_is_stream(coordinator, i),
                         strncmp(coordinator->methods[i].name, "Watch", 5) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(garbage_is_dropped_counted_and_disturbs_nobody),
        WIRE_TEST(too_many_parts_are_dropped),
        WIRE_TEST(parts_that_differ_from_the_header_are_answered_internal),
        WIRE_TEST(a_payload_that_does_not_unpack_is_answered_internal),
        WIRE_TEST(a_deadline_that_has_passed_is_answered_so),
        WIRE_TEST(a_second_request_with_the_id_of_an_open_call_is_dropped),
        WIRE_TEST(credit_cancel_and_answers_from_strangers_do_nothing),
        WIRE_TEST(calls_beyond_the_ceiling_are_refused),
        WIRE_TEST(a_peer_that_does_not_read_is_given_up_and_disturbs_nobody),
        WIRE_TEST(invalid_utf8_in_any_string_is_refused),
        cmocka_unit_test(utf8_is_checked_in_nested_and_repeated_messages),
        cmocka_unit_test(headers_beyond_their_limits_are_no_headers),
        cmocka_unit_test(the_descriptor_set_tells_streams_from_unary_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
