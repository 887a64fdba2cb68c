#include "common/wire/trace_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/obs/spans.h"
#include "proto/trace.pb-c.h"

#define SPANS_DEFAULT 1024
#define SPANS_MAX 4096

static char process_name[64] = "assay";

void assay_trace_identify(const char *process)
{
    snprintf(process_name, sizeof process_name, "%s", process);
}

/* The messages of a reply, which point into the spans. */
struct spans_reply {
    struct assay_span *spans;
    Assay__V1__Span *messages;
    Assay__V1__Span **pointers;
    Assay__V1__SpanAttribute *attributes;
    Assay__V1__SpanAttribute **attribute_pointers;
};

static void release(struct spans_reply *reply)
{
    free(reply->spans);
    free(reply->messages);
    free(reply->pointers);
    free(reply->attributes);
    free(reply->attribute_pointers);
}

static bool allocate(struct spans_reply *reply, size_t max)
{
    size_t attributes = max * ASSAY_SPAN_ATTRIBUTES_MAX;
    *reply = (struct spans_reply){.spans = calloc(max, sizeof *reply->spans),
                                  .messages = calloc(max, sizeof *reply->messages),
                                  .pointers = calloc(max, sizeof *reply->pointers),
                                  .attributes = calloc(attributes, sizeof *reply->attributes),
                                  .attribute_pointers = calloc(attributes, sizeof *reply->attribute_pointers)};
    return reply->spans && reply->messages && reply->pointers && reply->attributes && reply->attribute_pointers;
}

static void fill_span(struct spans_reply *reply, size_t index)
{
    struct assay_span *span = &reply->spans[index];
    Assay__V1__Span *message = &reply->messages[index];
    assay__v1__span__init(message);
    reply->pointers[index] = message;
    message->has_sequence = message->has_begin_us = message->has_end_us = message->has_thread = true;
    message->sequence = span->sequence;
    message->name = (char *)(uintptr_t)span->name;
    message->trace_id = span->trace_id;
    message->begin_us = span->begin_us;
    message->end_us = span->end_us;
    message->thread = span->thread;
    message->thread_name = span->thread_name;
    message->has_overlaps = span->overlaps;
    message->overlaps = span->overlaps;
    size_t first = index * ASSAY_SPAN_ATTRIBUTES_MAX;
    for (size_t i = 0; i < span->attributes_count; i++) {
        Assay__V1__SpanAttribute *attribute = &reply->attributes[first + i];
        assay__v1__span_attribute__init(attribute);
        attribute->key = (char *)(uintptr_t)span->attributes[i].key;
        attribute->has_number = !span->attributes[i].is_text;
        attribute->number = span->attributes[i].number;
        attribute->text = span->attributes[i].is_text ? span->attributes[i].text : NULL;
        reply->attribute_pointers[first + i] = attribute;
    }
    message->n_attributes = span->attributes_count;
    message->attributes = reply->attribute_pointers + first;
}

/* Read together: of several tries the one between whose two looks the least time passed. */
static void read_clocks(int64_t *ret_monotonic_us, int64_t *ret_realtime_us)
{
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < 9; i++) {
        struct timespec before, wall, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        clock_gettime(CLOCK_REALTIME, &wall);
        clock_gettime(CLOCK_MONOTONIC, &after);
        int64_t begin_ns = before.tv_sec * 1000000000 + before.tv_nsec;
        int64_t took_ns = after.tv_sec * 1000000000 + after.tv_nsec - begin_ns;
        if (took_ns >= best_ns)
            continue;
        best_ns = took_ns;
        *ret_monotonic_us = (begin_ns + took_ns / 2) / 1000;
        *ret_realtime_us = (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000;
    }
}

static void spans(struct assay_call *call, void *service)
{
    (void)service;
    const Assay__V1__SpansRequest *request = assay_call_request(call);
    size_t max = request->has_spans_max ? request->spans_max : SPANS_DEFAULT;
    struct assay_err err = ASSAY_ERR_INIT;
    struct spans_reply messages;
    if (max == 0 || max > SPANS_MAX) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT, "spans_max: found %zu, wanted 1 to %d", max, SPANS_MAX);
        assay_call_fail(call, &err);
        return;
    }
    if (allocate(&messages, max)) {
        Assay__V1__SpansReply reply = ASSAY__V1__SPANS_REPLY__INIT;
        char host[256] = "unknown";
        gethostname(host, sizeof host - 1);
        reply.n_spans =
            assay_spans_read(request->trace_id, request->from, messages.spans, max, &reply.next, &reply.lost);
        reply.spans = messages.pointers;
        for (size_t i = 0; i < reply.n_spans; i++)
            fill_span(&messages, i);
        reply.has_next = reply.has_lost = reply.has_pid = reply.has_monotonic_us = reply.has_realtime_us = true;
        reply.process = process_name;
        reply.pid = (uint32_t)getpid();
        reply.host = host;
        read_clocks(&reply.monotonic_us, &reply.realtime_us);
        assay_call_reply(call, &reply.base, NULL, 0);
    } else {
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu spans", max);
        assay_call_fail(call, &err);
    }
    release(&messages);
}

void assay_trace_add(struct assay_server *server)
{
    static const assay_method_fn handlers[] = {spans};
    assay_server_add(server, &assay__v1__trace__descriptor, handlers, NULL);
}
