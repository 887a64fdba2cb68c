/* A stack of loop, server and client in one process, over an ipc socket in a private directory. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/wire/client.h"
#include "common/wire/server.h"
#include "proto/metric.pb-c.h"
#include "proto/rpc.pb-c.h"
#include "proto/work.pb-c.h"

/* What Work/Lease does here, by LeaseRequest.service_id. */
enum lease_op {
    LEASE_ECHO = 1,     /* lease_id = chunks_max; attachments come back */
    LEASE_FAIL,         /* NOT_FOUND with a sentence */
    LEASE_HOLD,         /* the call goes to wire->held */
    LEASE_OTHER_THREAD, /* echo from a thread of its own */
};

struct wire {
    char directory[64];
    char endpoint[96];
    struct assay_loop *loop;
    struct assay_server *server;
    struct assay_client *client;
    _Atomic int threads; /* of handlers: teardown waits for them */
    _Atomic(struct assay_call *) held;
    _Atomic int cancels; /* on_cancel callbacks of held calls */
    /* Evaluator/Score: a thread sends `stream_total` messages, then ends. */
    _Atomic int stream_total, stream_sent, stream_over_credit;
    _Atomic int stream_result; /* status with which the producer ended, -1 while it runs */
};

int wire_setup(void **state);
int wire_teardown(void **state);

void wire_add_services(struct wire *wire);
/* Frees the server, and makes another on the same endpoint. On the loop's thread. */
void wire_stop_server(struct wire *wire);
void wire_start_server(struct wire *wire);

enum assay_status wire_lease(struct wire *wire, enum lease_op op, uint32_t value,
                             const struct assay_call_options *options, struct assay_reply **ret, struct assay_err *err);
/* Waits up to 20 s for the call that LEASE_HOLD keeps, and takes it. */
struct assay_call *wire_take_held(struct wire *wire);
/* Ends a held call. */
void wire_answer_held(struct assay_call *call, uint32_t value);
/* An echo call that must come back. */
void wire_assert_alive(struct wire *wire);
/* Sleeps until *value == wanted, at most 2 s; the last value. */
int wire_await(const _Atomic int *value, int wanted);
void wire_sleep_ms(int ms);

#define WIRE_TEST(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
