#include "cli/trace_collect.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/words.h"
#include "proto/trace.pb-c.h"

#define CALL_MS 5000
#define SPANS_AT_ONCE 1024
#define METHOD_SPANS 0

/* What one process answered. */
struct answer {
    struct assay_reply **replies;
    size_t count;
    int64_t offset_us; /* from its monotonic clock to the time since 1970 */
};

struct collection {
    struct assay_trace *trace;
    struct answer *answers; /* one a process */
};

/* --- asking --- */

static enum assay_status keep(struct answer *answer, struct assay_reply *reply, struct assay_err *err)
{
    struct assay_reply **grown = realloc(answer->replies, (answer->count + 1) * sizeof(struct assay_reply *));
    if (!grown) {
        assay_reply_free(reply);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for spans");
    }
    answer->replies = grown;
    answer->replies[answer->count++] = reply;
    return ASSAY_OK;
}

/* All spans of the job that one process has. */
static enum assay_status read_spans(struct assay_client *client, const char *job, struct assay_trace_process *process,
                                    struct answer *answer, struct assay_err *err)
{
    const struct assay_call_options options = {.deadline_ms = CALL_MS};
    uint64_t from = 1;
    for (;;) {
        Assay__V1__SpansRequest request = ASSAY__V1__SPANS_REQUEST__INIT;
        struct assay_reply *reply = NULL;
        request.trace_id = (char *)(uintptr_t)job;
        request.has_from = request.has_spans_max = true;
        request.from = from;
        request.spans_max = SPANS_AT_ONCE;
        enum assay_status status =
            assay_call_unary(client, &assay__v1__trace__descriptor, METHOD_SPANS, &request.base, &options, &reply, err);
        if (status != ASSAY_OK)
            return status;
        const Assay__V1__SpansReply *message = assay_reply_message(reply);
        bool more = message->n_spans > 0 && message->next > from;
        process->spans += message->n_spans;
        process->lost = ASSAY_MAX(process->lost, message->lost);
        process->pid = message->pid;
        snprintf(process->name, sizeof process->name, "%s", assay_word_or(message->process, "?"));
        snprintf(process->host, sizeof process->host, "%s", assay_word_or(message->host, "?"));
        answer->offset_us = message->realtime_us - message->monotonic_us;
        from = message->next;
        status = keep(answer, reply, err);
        if (status != ASSAY_OK || !more)
            return status;
    }
}

/* A process that does not answer is part of the result, not a failure. */
static enum assay_status ask(struct collection *collection, const char *name, const char *endpoint,
                             struct assay_client *connected)
{
    struct assay_trace *trace = collection->trace;
    struct assay_trace_process *process = &trace->processes[trace->processes_count];
    struct answer *answer = &collection->answers[trace->processes_count];
    struct assay_remote remote = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = ASSAY_OK;
    trace->processes_count++;
    snprintf(process->name, sizeof process->name, "%s", name);
    if (!connected)
        status = assay_remote_open(&remote, endpoint, &err);
    if (status == ASSAY_OK)
        status = read_spans(connected ? connected : remote.client, trace->job, process, answer, &err);
    if (status != ASSAY_OK)
        snprintf(process->why_missing, sizeof process->why_missing, "%.255s", err.text);
    assay_remote_close(&remote);
    return status;
}

static enum assay_status ask_all(struct collection *collection, struct assay_remote *remote, const char *endpoint,
                                 const Assay__V1__ListServicesReply *services, struct assay_err *err)
{
    size_t most = ASSAY_MIN(services->n_services, (size_t)ASSAY_TRACE_PROCESSES_MAX - 1) + 1;
    struct assay_trace *trace = collection->trace;
    trace->processes = calloc(most, sizeof *trace->processes);
    collection->answers = calloc(most, sizeof *collection->answers);
    if (!trace->processes || !collection->answers)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the spans of %zu processes", most);
    enum assay_status ignored = ask(collection, "coordinator", endpoint, remote->client);
    for (size_t i = 0; i + 1 < most; i++) {
        const Assay__V1__RegisterRequest *who = services->services[i]->registration;
        char name[96];
        if (!who || !who->endpoint)
            continue;
        snprintf(name, sizeof name, "%s%s%.32s", assay_word_service(who),
                 who->precision && who->precision[0] ? " " : "", assay_word_or(who->precision, ""));
        ignored = ask(collection, name, who->endpoint, NULL);
    }
    (void)ignored;
    return ASSAY_OK;
}

/* --- JSON --- */

static void print_text(struct assay_buf *out, const char *text)
{
    assay_buf_str(out, "\"");
    for (const char *at = text ? text : ""; *at; at++) {
        if (*at == '"' || *at == '\\')
            assay_buf_printf(out, "\\%c", *at);
        else if ((unsigned char)*at < 0x20)
            assay_buf_printf(out, "\\u%04x", (unsigned)(unsigned char)*at);
        else
            assay_buf_append(out, at, 1);
    }
    assay_buf_str(out, "\"");
}

/* A call is called by its method. */
static const char *name_of(const Assay__V1__Span *span)
{
    bool is_call = span->name && strncmp(span->name, "rpc.", 4) == 0;
    for (size_t i = 0; is_call && i < span->n_attributes; i++)
        if (span->attributes[i]->key && strcmp(span->attributes[i]->key, "method") == 0 && span->attributes[i]->text)
            return span->attributes[i]->text;
    return assay_word_or(span->name, "?");
}

static void print_args(struct assay_buf *out, const Assay__V1__Span *span)
{
    assay_buf_str(out, "\"args\":{");
    for (size_t i = 0; i < span->n_attributes; i++) {
        const Assay__V1__SpanAttribute *attribute = span->attributes[i];
        assay_buf_str(out, i ? "," : "");
        print_text(out, attribute->key);
        assay_buf_str(out, ":");
        if (attribute->text)
            print_text(out, attribute->text);
        else
            assay_buf_printf(out, "%" PRId64, attribute->number);
    }
    assay_buf_str(out, "}");
}

static void print_span(struct collection *collection, size_t index, const Assay__V1__Span *span)
{
    struct assay_buf *out = &collection->trace->json;
    int64_t at_us = span->begin_us + collection->answers[index].offset_us - collection->trace->begin_us;
    assay_buf_str(out, ",\n{\"name\":");
    print_text(out, name_of(span));
    assay_buf_str(out, ",\"cat\":");
    print_text(out, span->name);
    assay_buf_printf(out, ",\"pid\":%zu,\"tid\":%" PRIu32 ",\"ts\":%" PRId64 ",", index + 1, span->thread, at_us);
    print_args(out, span);
    if (!span->overlaps) {
        assay_buf_printf(out, ",\"ph\":\"X\",\"dur\":%" PRId64 "}", span->end_us - span->begin_us);
        return;
    }
    assay_buf_printf(out, ",\"ph\":\"b\",\"id\":\"%zu.%" PRIu64 "\"}", index + 1, span->sequence);
    assay_buf_str(out, ",\n{\"name\":");
    print_text(out, name_of(span));
    assay_buf_str(out, ",\"cat\":");
    print_text(out, span->name);
    assay_buf_printf(out,
                     ",\"pid\":%zu,\"tid\":%" PRIu32 ",\"ts\":%" PRId64 ",\"ph\":\"e\",\"id\":\"%zu.%" PRIu64 "\"}",
                     index + 1, span->thread, at_us + span->end_us - span->begin_us, index + 1, span->sequence);
}

static void print_metadata(struct assay_buf *out, const char *what, size_t pid, uint32_t tid, const char *name)
{
    assay_buf_printf(out, "%s{\"name\":\"%s\",\"ph\":\"M\",\"pid\":%zu,\"tid\":%" PRIu32 ",\"args\":{\"name\":",
                     out->len > 0 && out->data[out->len - 1] == '[' ? "\n" : ",\n", what, pid, tid);
    print_text(out, name);
    assay_buf_str(out, "}}");
}

/* Names the threads that have spans on a track, each once. */
static void print_threads(struct assay_buf *out, size_t index, const struct answer *answer)
{
    enum { THREADS_MAX = 256 };
    uint32_t named[THREADS_MAX];
    size_t count = 0;
    for (size_t r = 0; r < answer->count; r++) {
        const Assay__V1__SpansReply *reply = assay_reply_message(answer->replies[r]);
        for (size_t i = 0; i < reply->n_spans; i++) {
            const Assay__V1__Span *span = reply->spans[i];
            bool is_named = span->overlaps;
            for (size_t k = 0; k < count && !is_named; k++)
                is_named = named[k] == span->thread;
            if (is_named || count == THREADS_MAX)
                continue;
            named[count++] = span->thread;
            print_metadata(out, "thread_name", index + 1, span->thread, span->thread_name);
        }
    }
}

static void print_processes(struct collection *collection)
{
    struct assay_trace *trace = collection->trace;
    for (size_t i = 0; i < trace->processes_count; i++) {
        const struct assay_trace_process *process = &trace->processes[i];
        char name[512];
        if (process->why_missing[0])
            snprintf(name, sizeof name, "%s (missing)", process->name);
        else
            snprintf(name, sizeof name, "%s (process %" PRIu32 " on %s)", process->name, process->pid, process->host);
        print_metadata(&trace->json, "process_name", i + 1, 0, name);
        print_threads(&trace->json, i, &collection->answers[i]);
    }
}

static void print_missing(struct assay_trace *trace)
{
    struct assay_buf *out = &trace->json;
    bool some = false;
    assay_buf_str(out, "\"missing\":[");
    for (size_t i = 0; i < trace->processes_count; i++) {
        const struct assay_trace_process *process = &trace->processes[i];
        if (!process->why_missing[0] && !process->lost)
            continue;
        assay_buf_str(out, some ? ",{\"process\":" : "{\"process\":");
        print_text(out, process->name);
        assay_buf_str(out, ",\"reason\":");
        if (process->why_missing[0])
            print_text(out, process->why_missing);
        else
            assay_buf_printf(out, "\"%" PRIu64 " older spans have left its memory\"", process->lost);
        assay_buf_str(out, "}");
        some = true;
    }
    assay_buf_str(out, "]");
}

/* The first begin and the last end on the common clock. */
static void find_bounds(struct collection *collection)
{
    struct assay_trace *trace = collection->trace;
    trace->begin_us = INT64_MAX;
    for (size_t p = 0; p < trace->processes_count; p++) {
        const struct answer *answer = &collection->answers[p];
        for (size_t r = 0; r < answer->count; r++) {
            const Assay__V1__SpansReply *reply = assay_reply_message(answer->replies[r]);
            for (size_t i = 0; i < reply->n_spans; i++) {
                trace->begin_us = ASSAY_MIN(trace->begin_us, reply->spans[i]->begin_us + answer->offset_us);
                trace->end_us = ASSAY_MAX(trace->end_us, reply->spans[i]->end_us + answer->offset_us);
            }
            trace->spans_count += reply->n_spans;
        }
    }
}

static void print_all(struct collection *collection)
{
    struct assay_trace *trace = collection->trace;
    assay_buf_printf(&trace->json,
                     "{\"displayTimeUnit\":\"ms\",\n\"otherData\":{\"job\":\"%s\",\"begin_us\":%" PRId64 ",",
                     trace->job, trace->begin_us);
    print_missing(trace);
    assay_buf_str(&trace->json, "},\n\"traceEvents\":[");
    print_processes(collection);
    for (size_t p = 0; p < trace->processes_count; p++) {
        const struct answer *answer = &collection->answers[p];
        for (size_t r = 0; r < answer->count; r++) {
            const Assay__V1__SpansReply *reply = assay_reply_message(answer->replies[r]);
            for (size_t i = 0; i < reply->n_spans; i++)
                print_span(collection, p, reply->spans[i]);
        }
    }
    assay_buf_str(&trace->json, "\n]}\n");
}

static void release_answers(struct collection *collection)
{
    for (size_t p = 0; collection->answers && p < collection->trace->processes_count; p++) {
        for (size_t r = 0; r < collection->answers[p].count; r++)
            assay_reply_free(collection->answers[p].replies[r]);
        free(collection->answers[p].replies);
    }
    free(collection->answers);
}

enum assay_status assay_trace_collect(struct assay_remote *remote, const char *endpoint, const char *job,
                                      struct assay_trace *trace, struct assay_err *err)
{
    Assay__V1__ListServicesRequest request = ASSAY__V1__LIST_SERVICES_REQUEST__INIT;
    struct collection collection = {.trace = trace};
    struct assay_reply *services = NULL;
    snprintf(trace->job, sizeof trace->job, "%s", job);
    enum assay_status status =
        assay_remote_call(remote, ASSAY_COORDINATOR_LIST_SERVICES, &request.base, CALL_MS, &services, err);
    if (status == ASSAY_OK)
        status = ask_all(&collection, remote, endpoint, assay_reply_message(services), err);
    if (status == ASSAY_OK)
        find_bounds(&collection);
    if (status == ASSAY_OK && trace->spans_count == 0)
        status =
            assay_err_set(err, ASSAY_NOT_FOUND,
                          "no process of the stack remembers job %s: spans are kept in memory, and it ran before they "
                          "started or has not begun",
                          job);
    if (status == ASSAY_OK) {
        print_all(&collection);
        status = assay_buf_check(&trace->json, err);
    }
    release_answers(&collection);
    assay_reply_free(services);
    return status;
}

void assay_trace_release(struct assay_trace *trace)
{
    free(trace->processes);
    assay_buf_release(&trace->json);
}
