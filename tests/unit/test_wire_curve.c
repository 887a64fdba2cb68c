/* Servers and clients with keys, over tcp on the loopback. */
#include "tests/unit/test_wire_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/wire/security.h"

/* A server with keys, and clients on loops of their own. */
struct curve {
    char directory[64], keys[96], server_key[ASSAY_PATH_MAX], server_pub[ASSAY_PATH_MAX];
    char endpoint[ASSAY_ADDRESSES_BYTES_MAX];
    struct wire wire; /* its loop, its server */
};

struct caller {
    struct assay_loop *loop;
    struct assay_client *client;
};

static void must(enum assay_status status, const struct assay_err *err)
{
    if (status != ASSAY_OK)
        fail_msg("%s", err->text);
}

/* A key pair in the directory; its public key is allowed when `allowed`. */
static void make_key(struct curve *curve, const char *name, enum assay_role role, bool allowed, char *ret_secret)
{
    char secret[ASSAY_PATH_MAX], public[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    struct assay_key_pair pair;
    struct assay_err err = ASSAY_ERR_INIT;
    assay_key_pair_new(role, &pair);
    must(assay_key_write(curve->directory, name, &pair, secret, public, &err), &err);
    snprintf(to, sizeof to, "%s/%s.pub", curve->keys, name);
    if (allowed)
        assert_int_equal(link(public, to), 0);
    strcpy(ret_secret, secret);
}

static void allow(struct curve *curve, const char *name, bool allowed)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    snprintf(from, sizeof from, "%s/%s.pub", curve->directory, name);
    snprintf(to, sizeof to, "%s/%s.pub", curve->keys, name);
    assert_int_equal(allowed ? link(from, to) : unlink(to), 0);
}

static int set_up(void **state)
{
    struct curve *curve = calloc(1, sizeof *curve);
    struct assay_err err = ASSAY_ERR_INIT;
    strcpy(curve->directory, "/tmp/assay-curve-XXXXXX");
    if (!mkdtemp(curve->directory))
        return -1;
    snprintf(curve->keys, sizeof curve->keys, "%s/allowed", curve->directory);
    must(assay_mkdirs(curve->keys, 0700, &err), &err);
    make_key(curve, "server", ASSAY_ROLE_ADMIN, false, curve->server_key);
    snprintf(curve->server_pub, sizeof curve->server_pub, "%s/server.pub", curve->directory);
    const struct assay_security_options options = {.server_key = curve->server_key, .keys = curve->keys};
    char listen[160];
    snprintf(listen, sizeof listen, "ipc://%s/socket,tcp://127.0.0.1:*", curve->directory);
    must(assay_loop_new(&curve->wire.loop, &err), &err);
    must(assay_loop_secure(curve->wire.loop, &options, &err), &err);
    must(assay_server_new(curve->wire.loop, listen, &curve->wire.server, &err), &err);
    wire_add_services(&curve->wire);
    must(assay_loop_start(curve->wire.loop, &err), &err);
    snprintf(curve->endpoint, sizeof curve->endpoint, "%s", assay_server_endpoint(curve->wire.server));
    *state = curve;
    return 0;
}

static int tear_down(void **state)
{
    struct curve *curve = *state;
    assay_loop_stop_join(curve->wire.loop);
    assay_server_free(curve->wire.server);
    assay_loop_free(curve->wire.loop);
    enum assay_status status = assay_remove_tree(curve->directory, NULL);
    free(curve);
    return status == ASSAY_OK ? 0 : -1;
}

/* secret NULL: without keys. */
static struct caller connect_with(const char *endpoint, const char *secret)
{
    struct caller caller = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    const struct assay_security_options options = {.key = secret};
    must(assay_loop_new(&caller.loop, &err), &err);
    if (secret)
        must(assay_loop_secure(caller.loop, &options, &err), &err);
    must(assay_client_new(caller.loop, endpoint, &caller.client, &err), &err);
    must(assay_loop_start(caller.loop, &err), &err);
    return caller;
}

static void disconnect(struct caller *caller)
{
    assay_client_free(caller->client);
    assay_loop_stop_join(caller->loop);
    assay_loop_free(caller->loop);
}

static enum assay_status lease(struct caller *caller, enum lease_op op, int64_t deadline_ms, bool wait_for_ready,
                               struct assay_err *err)
{
    struct wire wire = {.client = caller->client};
    struct assay_call_options options = {.deadline_ms = deadline_ms, .wait_for_ready = wait_for_ready};
    struct assay_reply *reply = NULL;
    enum assay_status status = wire_lease(&wire, op, 7, &options, &reply, err);
    assay_reply_free(reply);
    return status;
}

/* The endpoint without what stands before the comma, and without the key when !with_key. */
static void tcp_of(const struct curve *curve, bool with_key, char *ret)
{
    strcpy(ret, strchr(curve->endpoint, ',') + 1);
    if (!with_key)
        *strchr(ret, '#') = '\0';
}

static uint64_t refused(const struct curve *curve, enum assay_refusal refusal)
{
    struct assay_server_counts counts;
    assay_server_counts(curve->wire.server, &counts);
    return counts.refused[refusal];
}

static void an_allowed_key_calls_what_its_role_may(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char secret[ASSAY_PATH_MAX];
    make_key(curve, "w1", ASSAY_ROLE_WORKER, true, secret);
    wire_sleep_ms(1300);
    struct caller worker = connect_with(curve->endpoint, secret);
    must(lease(&worker, LEASE_ECHO, 5000, false, &err), &err);
    disconnect(&worker);
    make_key(curve, "c1", ASSAY_ROLE_CLIENT, true, secret);
    wire_sleep_ms(1300);
    struct caller client = connect_with(curve->endpoint, secret);
    assert_int_equal(lease(&client, LEASE_ECHO, 5000, false, &err), ASSAY_PERMISSION_DENIED);
    assert_non_null(strstr(err.text, "role client"));
    assert_int_equal(refused(curve, ASSAY_REFUSED_ROLE), 1);
    disconnect(&client);
}

static void the_owner_on_ipc_needs_no_key(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct caller owner = connect_with(curve->endpoint, NULL);
    must(lease(&owner, LEASE_ECHO, 5000, false, &err), &err);
    disconnect(&owner);
}

static void a_stranger_s_key_and_no_key_get_in_nowhere(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char secret[ASSAY_PATH_MAX], endpoint[ASSAY_ADDRESSES_BYTES_MAX], wrong[ASSAY_PATH_MAX];
    make_key(curve, "stranger", ASSAY_ROLE_ADMIN, false, secret);
    struct caller stranger = connect_with(curve->endpoint, secret);
    int64_t started_ms = assay_now_ms();
    assert_int_equal(lease(&stranger, LEASE_ECHO, 20000, false, &err), ASSAY_UNAUTHENTICATED);
    assert_true(assay_now_ms() - started_ms < 4000);
    assert_non_null(strstr(err.text, "not allowed"));
    disconnect(&stranger);
    tcp_of(curve, false, endpoint);
    struct caller plain = connect_with(endpoint, NULL);
    assert_int_not_equal(lease(&plain, LEASE_ECHO, 1500, true, &err), ASSAY_OK);
    disconnect(&plain);
    /* Another server's key: the handshake does not get anywhere. */
    make_key(curve, "other", ASSAY_ROLE_ADMIN, false, wrong);
    make_key(curve, "w1", ASSAY_ROLE_WORKER, true, secret);
    wire_sleep_ms(1300);
    char other_pub[ASSAY_PATH_MAX], with_key[ASSAY_PATH_MAX];
    snprintf(other_pub, sizeof other_pub, "%s/other.pub", curve->directory);
    must(assay_endpoint_with_key(endpoint, other_pub, with_key, &err), &err);
    struct caller misled = connect_with(with_key, secret);
    assert_int_not_equal(lease(&misled, LEASE_ECHO, 1500, true, &err), ASSAY_OK);
    disconnect(&misled);
    assert_true(refused(curve, ASSAY_REFUSED_HANDSHAKE) >= 2);
    struct assay_server_counts counts;
    assay_server_counts(curve->wire.server, &counts);
    assert_int_equal(counts.calls, 0);
    assert_int_equal(counts.messages, 0);
}

static void a_key_that_is_allowed_later_gets_in_then(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char secret[ASSAY_PATH_MAX];
    make_key(curve, "late", ASSAY_ROLE_WORKER, false, secret);
    struct caller late = connect_with(curve->endpoint, secret);
    assert_int_equal(lease(&late, LEASE_ECHO, 5000, false, &err), ASSAY_UNAUTHENTICATED);
    allow(curve, "late", true);
    must(lease(&late, LEASE_ECHO, 10000, true, &err), &err);
    disconnect(&late);
}

static void a_revoked_key_is_cut_off_within_seconds(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    char secret[ASSAY_PATH_MAX];
    make_key(curve, "w1", ASSAY_ROLE_WORKER, true, secret);
    wire_sleep_ms(1300);
    struct caller worker = connect_with(curve->endpoint, secret);
    must(lease(&worker, LEASE_ECHO, 5000, false, &err), &err);
    allow(curve, "w1", false);
    int64_t started_ms = assay_now_ms();
    enum assay_status status = lease(&worker, LEASE_HOLD, 20000, false, &err);
    assert_true(status == ASSAY_UNAVAILABLE || status == ASSAY_UNAUTHENTICATED);
    assert_true(assay_now_ms() - started_ms < 4000);
    struct assay_call *held = wire_take_held(&curve->wire);
    assert_true(assay_call_cancelled(held));
    wire_answer_held(held, 1);
    assert_int_equal(lease(&worker, LEASE_ECHO, 5000, false, &err), ASSAY_UNAUTHENTICATED);
    struct assay_server_counts counts;
    assay_server_counts(curve->wire.server, &counts);
    assert_int_equal(counts.cut, 1);
    disconnect(&worker);
}

static void keys_that_are_missing_are_named(void **state)
{
    struct curve *curve = *state;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_loop *loop;
    struct assay_client *client = NULL;
    char endpoint[ASSAY_ADDRESSES_BYTES_MAX];
    must(assay_loop_new(&loop, &err), &err);
    tcp_of(curve, true, endpoint);
    assert_int_equal(assay_client_new(loop, endpoint, &client, &err), ASSAY_PERMISSION_DENIED);
    assert_int_equal(assay_client_new(loop, "tcp://10.1.2.3:4", &client, &err), ASSAY_PERMISSION_DENIED);
    const struct assay_security_options half = {.server_key = curve->server_key};
    assert_int_equal(assay_loop_secure(loop, &half, &err), ASSAY_INVALID_ARGUMENT);
    assay_loop_free(loop);
}

#define CURVE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CURVE_TEST(an_allowed_key_calls_what_its_role_may),     CURVE_TEST(the_owner_on_ipc_needs_no_key),
        CURVE_TEST(a_stranger_s_key_and_no_key_get_in_nowhere), CURVE_TEST(a_key_that_is_allowed_later_gets_in_then),
        CURVE_TEST(a_revoked_key_is_cut_off_within_seconds),    CURVE_TEST(keys_that_are_missing_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
