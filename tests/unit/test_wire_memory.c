/* The n-th allocation of ours fails, for every n: a status, never a crash, a leak or a call that hangs. Linked so that
 * malloc, calloc and realloc of the layers go through the functions below; ZeroMQ's own do not. */
#include "tests/unit/test_wire_support.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static _Atomic int countdown; /* allocations until the one that fails; below zero: none does */

static bool fails(void)
{
    if (countdown < 0 || countdown-- != 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return fails() ? NULL : __real_realloc(old, bytes);
}

static _Atomic int released;

static void count_release(void *data, void *hint)
{
    (void)data;
    (void)hint;
    released++;
}

/* OK, or a failure that says that memory was out. */
static void assert_expected(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK && status != ASSAY_RESOURCE_EXHAUSTED)
        fail_msg("%s: %s", assay_status_name(status), err->text);
}

static void exchange(struct wire *wire)
{
    static const char bytes[5000];
    struct assay_attachment attachments[2] = {{.data = bytes, .bytes = sizeof bytes, .release = count_release},
                                              {.data = bytes, .bytes = 3, .release = count_release}};
    struct assay_call_options options = {.deadline_ms = 4000, .attachments = attachments, .attachments_count = 2};
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    released = 0;
    enum assay_status status = wire_lease(wire, LEASE_ECHO, 5, &options, &reply, &err);
    assert_expected(status, &err);
    assert_true((status == ASSAY_OK) == (reply != NULL));
    assay_reply_free(reply);
    assert_int_equal(wire_await(&released, 2), 2);

    Assay__V1__HealthCheckRequest request = ASSAY__V1__HEALTH_CHECK_REQUEST__INIT;
    struct assay_call_options watch_options = {.deadline_ms = 4000};
    struct assay_stream *stream = NULL;
    status = assay_stream_open(wire->client, &assay__v1__health__descriptor, 1, &request.base, &watch_options, 2,
                               &stream, &err);
    assert_expected(status, &err);
    if (status != ASSAY_OK)
        return;
    reply = NULL;
    status = assay_stream_next(stream, -1, &reply, &err);
    assert_expected(status, &err);
    assay_reply_free(reply);
    assay_stream_close(stream);
}

static void a_failed_allocation_fails_one_call_at_most(void **state)
{
    struct wire *wire = *state;
    int n = 0;
    do {
        countdown = n++;
        exchange(wire);
    } while (countdown < 0 && n < 1000); /* until an exchange needs fewer than n */
    countdown = -1;
    assert_in_range(n, 20, 999);
    wire_assert_alive(wire);
}

static void servers_and_clients_that_cannot_be_made_say_so(void **state)
{
    struct wire *wire = *state;
    int n = 0;
    enum assay_status server_status, client_status;
    do {
        struct assay_err err = ASSAY_ERR_INIT;
        struct assay_loop *loop = NULL;
        struct assay_server *server = NULL;
        struct assay_client *client = NULL;
        countdown = n++;
        server_status = client_status = assay_loop_new(&loop, &err);
        if (loop)
            server_status = assay_server_new(loop, "tcp://127.0.0.1:*", &server, &err);
        if (server)
            client_status = assay_client_new(loop, assay_server_endpoint(server), &client, &err);
        countdown = -1;
        assert_expected(server_status, &err);
        assert_expected(client_status, &err);
        assay_client_free(client);
        assay_server_free(server);
        assay_loop_free(loop);
    } while ((server_status != ASSAY_OK || client_status != ASSAY_OK) && n < 100);
    assert_in_range(n, 5, 99);
    wire_assert_alive(wire);
}

static void count_post(void *arg)
{
    _Atomic int *count = arg;
    (*count)++;
}

static void posts_run_without_memory(void **state)
{
    struct wire *wire = *state;
    _Atomic int ran = 0;
    for (int i = 0; i < 200; i++) {
        countdown = 0;
        assay_loop_post(wire->loop, count_post, &ran);
    }
    countdown = -1;
    assert_int_equal(wire_await(&ran, 200), 200);
}

int main(void)
{
    countdown = -1;
    const struct CMUnitTest tests[] = {
        WIRE_TEST(a_failed_allocation_fails_one_call_at_most),
        WIRE_TEST(servers_and_clients_that_cannot_be_made_say_so),
        WIRE_TEST(posts_run_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
