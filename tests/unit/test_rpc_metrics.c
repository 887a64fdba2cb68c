/* Calls as they are counted and traced, at both sides. */
#include "tests/unit/test_wire_support.h"

#include <stdlib.h>
#include <string.h>

#include "common/obs/spans.h"
#include "common/wire/observer.h"
#include "common/wire/rpc_metrics.h"
#include "common/wire/trace_service.h"
#include "proto/record.pb-c.h"
#include "proto/trace.pb-c.h"

#define TRACE "00112233445566778899aabbccddeeff"

static struct assay_metrics *metrics;

static int setup(void **state)
{
    metrics = assay_metrics_new();
    assay_rpc_metrics_install(metrics);
    assay_trace_identify("test process");
    return wire_setup(state);
}

static int teardown(void **state)
{
    int failed = wire_teardown(state);
    assay_rpc_metrics_install(NULL);
    assay_metrics_free(metrics);
    return failed;
}

static bool is_printed(const char *wanted)
{
    struct assay_buf text = ASSAY_BUF_INIT;
    assay_metrics_print(metrics, &text);
    bool found = strstr(assay_buf_cstr(&text), wanted) != NULL;
    assay_buf_release(&text);
    return found;
}

/* The server's side of a call may end a moment after its answer has come. */
static void await_printed(const char *wanted)
{
    for (int i = 0; i < 200; i++) {
        if (is_printed(wanted))
            return;
        wire_sleep_ms(10);
    }
    struct assay_buf text = ASSAY_BUF_INIT;
    assay_metrics_print(metrics, &text);
    fail_msg("not printed: %s\nfound:\n%s", wanted, assay_buf_cstr(&text));
}

static void calls_count_by_method_and_code_at_both_sides(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wire_lease(*state, LEASE_ECHO, 1, NULL, &reply, &err), ASSAY_OK);
        assay_reply_free(reply);
    }
    assert_int_equal(wire_lease(*state, LEASE_FAIL, 1, NULL, &reply, &err), ASSAY_NOT_FOUND);
    assert_true(is_printed("assay_rpc_client_calls_total{method=\"Work/Lease\",code=\"OK\"} 3\n"));
    assert_true(is_printed("assay_rpc_client_calls_total{method=\"Work/Lease\",code=\"NOT_FOUND\"} 1\n"));
    assert_true(is_printed("assay_rpc_client_duration_seconds_count{method=\"Work/Lease\"} 4\n"));
    await_printed("assay_rpc_server_calls_total{method=\"Work/Lease\",code=\"OK\"} 3\n");
    await_printed("assay_rpc_server_calls_total{method=\"Work/Lease\",code=\"NOT_FOUND\"} 1\n");
    await_printed("assay_rpc_server_duration_seconds_count{method=\"Work/Lease\"} 4\n");
    await_printed("assay_rpc_calls_in_flight{side=\"server\"} 0\n");
    await_printed("assay_rpc_calls_in_flight{side=\"client\"} 0\n");
}

/* A call with a short deadline is not spent on the connection. */
static void connect_first(struct wire *wire)
{
    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 20000, .wait_for_ready = true};
    struct assay_reply *reply = NULL;
    assert_int_equal(
        assay_call_unary(wire->client, &assay__v1__health__descriptor, 0, &request.base, &options, &reply, NULL),
        ASSAY_OK);
    assay_reply_free(reply);
}

static void cancelled_and_late_calls_count_once_with_their_code(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    const struct assay_call_options options = {.deadline_ms = 300};
    connect_first(*state);
    assert_int_equal(wire_lease(*state, LEASE_HOLD, 1, &options, &reply, &err), ASSAY_DEADLINE_EXCEEDED);
    struct assay_call *held = wire_take_held(*state);
    assert_true(is_printed("assay_rpc_client_calls_total{method=\"Work/Lease\",code=\"DEADLINE_EXCEEDED\"} 1\n"));
    await_printed("assay_rpc_calls_in_flight{side=\"server\"} 1\n");
    wire_sleep_ms(100);
    wire_answer_held(held, 1); /* too late to count as well done */
    await_printed("assay_rpc_calls_in_flight{side=\"server\"} 0\n");
    await_printed("assay_rpc_server_duration_seconds_count{method=\"Work/Lease\"} 1\n");
    assert_false(is_printed("assay_rpc_server_calls_total{method=\"Work/Lease\",code=\"OK\"}"));
}

static void unknown_methods_share_one_name(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__PutRecordsRequest request = ASSAY__V1__PUT_RECORDS_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 5000};
    assert_int_equal(
        assay_call_unary(wire->client, &assay__v1__records__descriptor, 0, &request.base, &options, &reply, &err),
        ASSAY_UNIMPLEMENTED);
    await_printed("assay_rpc_server_calls_total{method=\"unknown\",code=\"UNIMPLEMENTED\"} 1\n");
    assert_false(is_printed("assay_rpc_server_calls_total{method=\"Records/Put\""));
}

static void bytes_are_counted_with_their_attachments(void **state)
{
    static const char bytes[100000];
    const struct assay_attachment attachment = {.data = bytes, .bytes = sizeof bytes};
    const struct assay_call_options options = {.deadline_ms = 5000, .attachments = &attachment, .attachments_count = 1};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    assert_int_equal(wire_lease(*state, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_OK);
    assay_reply_free(reply);
    await_printed("assay_rpc_received_bytes_total{side=\"server\",method=\"Work/Lease\"} 1000");
    await_printed("assay_rpc_sent_bytes_total{side=\"server\",method=\"Work/Lease\"} 1000");
    await_printed("assay_rpc_sent_bytes_total{side=\"client\",method=\"Work/Lease\"} 1000");
    await_printed("assay_rpc_received_bytes_total{side=\"client\",method=\"Work/Lease\"} 1000");
}

static struct assay_reply *read_spans(struct wire *wire, const char *trace_id)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__SpansRequest request = ASSAY__V1__SPANS_REQUEST__INIT;
    const struct assay_call_options options = {.deadline_ms = 5000};
    request.trace_id = (char *)(uintptr_t)trace_id;
    if (assay_call_unary(wire->client, &assay__v1__trace__descriptor, 0, &request.base, &options, &reply, &err) !=
        ASSAY_OK)
        fail_msg("%s", err.text);
    return reply;
}

static void calls_with_a_trace_id_become_spans_that_the_server_tells(void **state)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    const struct assay_call_options options = {.deadline_ms = 5000, .trace_id = TRACE};
    assert_int_equal(wire_lease(*state, LEASE_ECHO, 1, &options, &reply, &err), ASSAY_OK);
    assay_reply_free(reply);
    await_printed("assay_rpc_server_calls_total{method=\"Work/Lease\",code=\"OK\"} 1\n");
    reply = read_spans(*state, TRACE);
    const Assay__V1__SpansReply *spans = assay_reply_message(reply);
    assert_string_equal(spans->process, "test process");
    assert_true(spans->monotonic_us > 0 && spans->realtime_us > 1500000000000000);
    assert_int_equal(spans->n_spans, 2);
    for (size_t i = 0; i < 2; i++) {
        const Assay__V1__Span *span = spans->spans[i];
        assert_string_equal(span->trace_id, TRACE);
        assert_string_equal(span->attributes[0]->key, "method");
        assert_string_equal(span->attributes[0]->text, "Work/Lease");
        assert_string_equal(span->attributes[1]->text, "OK");
        assert_true(span->begin_us <= span->end_us && span->end_us <= spans->monotonic_us);
    }
    assert_string_not_equal(spans->spans[0]->name, spans->spans[1]->name);
    assay_reply_free(reply);
}

static void a_request_for_too_many_spans_is_refused(void **state)
{
    struct wire *wire = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    Assay__V1__SpansRequest request = ASSAY__V1__SPANS_REQUEST__INIT;
    request.has_spans_max = true;
    request.spans_max = 4097;
    assert_int_equal(
        assay_call_unary(wire->client, &assay__v1__trace__descriptor, 0, &request.base, NULL, &reply, &err),
        ASSAY_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_count_by_method_and_code_at_both_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_and_late_calls_count_once_with_their_code, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_methods_share_one_name, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_are_counted_with_their_attachments, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_with_a_trace_id_become_spans_that_the_server_tells, setup, teardown),
        cmocka_unit_test_setup_teardown(a_request_for_too_many_spans_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
