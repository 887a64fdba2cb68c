#include "tests/unit/test_wire_support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fs.h"

void wire_sleep_ms(int ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

int wire_await(const _Atomic int *value, int wanted)
{
    for (int i = 0; i < 2000 && *value != wanted; i++)
        wire_sleep_ms(1);
    return *value;
}

static void echo(struct assay_call *call)
{
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    Assay__V1__LeaseReply reply = ASSAY__V1__LEASE_REPLY__INIT;
    reply.has_lease_id = true;
    reply.lease_id = request->chunks_max;
    struct assay_attachment attachments[8];
    size_t count = ASSAY_MIN(assay_call_attachments(call), ASSAY_COUNT(attachments));
    for (size_t i = 0; i < count; i++) {
        struct assay_bytes bytes = assay_call_attachment(call, i);
        attachments[i] = (struct assay_attachment){.data = bytes.data, .bytes = bytes.bytes};
    }
    assay_call_reply(call, &reply.base, attachments, count);
}

struct job {
    struct wire *wire;
    struct assay_call *call;
};

static void start_thread(void *(*run)(void *), struct wire *wire, struct assay_call *call)
{
    struct job *job = malloc(sizeof *job);
    pthread_t thread;
    if (!job)
        abort();
    *job = (struct job){wire, call};
    wire->threads++;
    if (pthread_create(&thread, NULL, run, job) != 0)
        abort();
    pthread_detach(thread);
}

static void *echo_thread(void *arg)
{
    struct job *job = arg;
    struct wire *wire = job->wire;
    wire_sleep_ms(1);
    echo(job->call);
    free(job);
    wire->threads--;
    return NULL;
}

static void count_cancel(void *arg)
{
    struct wire *wire = arg;
    wire->cancels++;
}

static void lease(struct assay_call *call, void *service)
{
    struct wire *wire = service;
    const Assay__V1__LeaseRequest *request = assay_call_request(call);
    struct assay_err err = ASSAY_ERR_INIT;
    switch (request->service_id) {
    case LEASE_ECHO:
        echo(call);
        return;
    case LEASE_HOLD:
        assay_call_on_cancel(call, count_cancel, wire);
        wire->held = call;
        return;
    case LEASE_OTHER_THREAD:
        start_thread(echo_thread, wire, call);
        return;
    default:
        assay_err_set(&err, ASSAY_NOT_FOUND, "no lease %u in this test, found nothing", request->chunks_max);
        assay_call_fail(call, &err);
    }
}

static void *produce(void *arg)
{
    struct job *job = arg;
    struct wire *wire = job->wire;
    enum assay_status status = ASSAY_OK;
    for (int i = 0; i < wire->stream_total && status == ASSAY_OK; i++) {
        Assay__V1__ScoreReply reply = ASSAY__V1__SCORE_REPLY__INIT;
        reply.has_chunks_done = true;
        reply.chunks_done = (uint64_t)i + 1;
        status = assay_call_send(job->call, &reply.base, NULL, 0);
        wire->stream_sent += status == ASSAY_OK;
    }
    if (status == ASSAY_OK) {
        assay_call_end(job->call);
    } else {
        struct assay_err err = {.status = status, .text = "producer stopped"};
        assay_call_fail(job->call, &err);
    }
    free(job);
    wire->stream_result = (int)status;
    wire->threads--;
    return NULL;
}

static void score(struct assay_call *call, void *service)
{
    start_thread(produce, service, call);
}

static const assay_method_fn work_handlers[] = {lease, NULL};
static const assay_method_fn evaluator_handlers[] = {score};

void wire_add_services(struct wire *wire)
{
    assay_server_add(wire->server, &assay__v1__work__descriptor, work_handlers, wire);
    assay_server_add(wire->server, &assay__v1__evaluator__descriptor, evaluator_handlers, wire);
}

static void start_server(void *arg)
{
    struct wire *wire = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_server_new(wire->loop, wire->endpoint, &wire->server, &err) != ASSAY_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    wire_add_services(wire);
}

static void stop_server(void *arg)
{
    struct wire *wire = arg;
    assay_server_free(wire->server);
    wire->server = NULL;
}

void wire_start_server(struct wire *wire)
{
    assay_loop_call(wire->loop, start_server, wire);
}

void wire_stop_server(struct wire *wire)
{
    assay_loop_call(wire->loop, stop_server, wire);
}

int wire_setup(void **state)
{
    struct wire *wire = calloc(1, sizeof *wire);
    struct assay_err err = ASSAY_ERR_INIT;
    strcpy(wire->directory, "/tmp/assay-wire-XXXXXX");
    if (!mkdtemp(wire->directory))
        return -1;
    snprintf(wire->endpoint, sizeof wire->endpoint, "ipc://%s/socket", wire->directory);
    wire->stream_result = -1;
    if (assay_loop_new(&wire->loop, &err) != ASSAY_OK)
        return -1;
    wire_start_server(wire);
    if (assay_loop_start(wire->loop, &err) != ASSAY_OK ||
        assay_client_new(wire->loop, wire->endpoint, &wire->client, &err) != ASSAY_OK)
        return -1;
    *state = wire;
    return 0;
}

int wire_teardown(void **state)
{
    struct wire *wire = *state;
    assay_client_free(wire->client);
    wire_stop_server(wire);
    if (wire_await(&wire->threads, 0) != 0)
        return -1;
    assay_loop_stop_join(wire->loop);
    assay_loop_free(wire->loop);
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_remove_tree(wire->directory, &err) != ASSAY_OK)
        return -1;
    free(wire);
    return 0;
}

enum assay_status wire_lease(struct wire *wire, enum lease_op op, uint32_t value,
                             const struct assay_call_options *options, struct assay_reply **ret, struct assay_err *err)
{
    Assay__V1__LeaseRequest request = ASSAY__V1__LEASE_REQUEST__INIT;
    request.has_service_id = request.has_chunks_max = true;
    request.service_id = op;
    request.chunks_max = value;
    return assay_call_unary(wire->client, &assay__v1__work__descriptor, 0, &request.base, options, ret, err);
}

struct assay_call *wire_take_held(struct wire *wire)
{
    for (int i = 0; i < 20000; i++) {
        struct assay_call *call = wire->held;
        if (call) {
            wire->held = NULL;
            return call;
        }
        wire_sleep_ms(1);
    }
    fail_msg("no call arrived");
    return NULL;
}

void wire_answer_held(struct assay_call *call, uint32_t value)
{
    Assay__V1__LeaseReply reply = ASSAY__V1__LEASE_REPLY__INIT;
    reply.has_lease_id = true;
    reply.lease_id = value;
    assay_call_reply(call, &reply.base, NULL, 0);
}

void wire_assert_alive(struct wire *wire)
{
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_reply *reply = NULL;
    struct assay_call_options options = {.deadline_ms = 5000};
    if (wire_lease(wire, LEASE_ECHO, 77, &options, &reply, &err) != ASSAY_OK)
        fail_msg("%s", err.text);
    assert_int_equal(((const Assay__V1__LeaseReply *)assay_reply_message(reply))->lease_id, 77);
    assay_reply_free(reply);
}
