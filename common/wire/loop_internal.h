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

/* A socket the loop polls. Its descriptor tells only that commands came for it, so any other use of the socket may take
 * in what the descriptor would have told: it is followed by `touched`, and the loop asks the socket itself. */
struct assay_watch {
    void *socket;
    short events; /* may be changed on the loop's thread */
    /* Runs when one of the events may have come. It takes all that is there, or sets `touched`. */
    void (*fn)(void *arg);
    void *arg;
    bool touched;
    /* The loop's. */
    int fd;
    bool ready;
};

/* Loop thread, or while the loop does not run. */
enum assay_status assay_loop_watch(struct assay_loop *loop, struct assay_watch *watch,
                                   struct assay_err *err) ASSAY_MUST_USE;
void assay_loop_unwatch(struct assay_loop *loop, struct assay_watch *watch);

/* The ZeroMQ context. */
void *assay_loop_zmq(struct assay_loop *loop);
