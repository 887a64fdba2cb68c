/* What servers and clients need of their loop. */
#pragma once

#include "common/wire/loop.h"

/* A post that needs no memory: it is part of its owner, and is queued at most once at a time. */
struct assay_wake {
    assay_loop_fn fn;
    void *arg;
    struct assay_wake *next;
    bool queued;
};

/* Any thread; the wake lives until it has run or was taken back. */
void assay_loop_wake(struct assay_loop *loop, struct assay_wake *wake);
/* Loop thread, or while the loop does not run: takes a queued wake back. */
void assay_loop_unwake(struct assay_loop *loop, struct assay_wake *wake);

/* A socket the loop polls; `events` may be changed on the loop's thread. */
struct assay_watch {
    void *socket;
    short events;
    void (*fn)(void *arg, short revents);
    void *arg;
};

/* Loop thread, or while the loop does not run. */
enum assay_status assay_loop_watch(struct assay_loop *loop, struct assay_watch *watch,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_loop_unwatch(struct assay_loop *loop, struct assay_watch *watch);

/* The ZeroMQ context. */
void *assay_loop_zmq(struct assay_loop *loop);
