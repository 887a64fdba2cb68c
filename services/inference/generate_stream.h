/* The way out of one Generate call: tokens come from the thread that computes, messages leave on the loop's thread as
 * far as the client's credit goes. Without credit what comes is put together in one message, so that a slow reader
 * holds nobody up and costs the memory of its tokens, which the request bounds. */
#pragma once

#include "common/nn/responder.h"
#include "common/wire/server.h"
#include "proto/respond.pb-c.h"

struct assay_generate_stream;

struct assay_generate_totals {
    Assay__V1__Finish finish;
    uint32_t prompt_tokens, response_tokens;
    uint64_t queue_us;
};

/* Loop thread. Takes the call over, unless memory is out (NULL). A client that grants nothing for stall_ms while
 * something waits for it is given up (RESOURCE_EXHAUSTED). gone(arg) is called once, on the loop's thread, when
 * the call has been answered; the stream must have been ended. */
struct assay_generate_stream *assay_generate_stream_new(struct assay_loop *loop, struct assay_call *call,
                                                        int64_t stall_ms, assay_loop_fn gone, void *arg);
/* Any thread: when the call came (monotonic). */
int64_t assay_generate_stream_begin_us(const struct assay_generate_stream *stream);

/* The thread that computes: */
/* False when nobody wants more: cancelled, past its deadline, or out of memory. */
bool assay_generate_stream_wanted(const struct assay_generate_stream *stream);
/* A piece of text, which may be empty, and a token; choice may be NULL. */
void assay_generate_stream_push(struct assay_generate_stream *stream, const char *text, size_t len,
                                const struct assay_choice *choice);
/* Once, last. `err` NULL: it ended well, with `totals`. The stream is not to be touched afterwards. */
void assay_generate_stream_end(struct assay_generate_stream *stream, const struct assay_generate_totals *totals,
                               const struct assay_err *err);
