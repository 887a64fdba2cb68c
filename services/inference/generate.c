/* Generate: from a call to a place in its model's batch, and back. */
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/obs/spans.h"
#include "services/inference/generate_request.h"
#include "services/inference/generate_stream.h"
#include "services/inference/respond_internal.h"

struct generate_work {
    struct assay_lane_work work; /* first */
    struct assay_respond *respond;
    const Assay__V1__GenerateRequest *request; /* valid until the stream has ended */
    struct assay_generate_stream *stream;
    struct assay_generate_totals totals;
    struct assay_span span;
};

/* Ends the stream and the work. */
static void end(struct generate_work *generate, const struct assay_err *err)
{
    assay_span_number(&generate->span, "prompt_tokens", generate->totals.prompt_tokens);
    assay_span_number(&generate->span, "tokens", generate->totals.response_tokens);
    assay_span_text(&generate->span, "status", assay_status_name(err ? err->status : ASSAY_OK));
    assay_span_end(&generate->span);
    assay_generate_stream_end(generate->stream, err ? NULL : &generate->totals, err);
    free(generate);
}

static void fail(struct assay_lane_work *work, const struct assay_err *err)
{
    end((struct generate_work *)work, err);
}

static bool is_wanted(void *arg)
{
    const struct generate_work *generate = arg;
    return assay_generate_stream_wanted(generate->stream) && !assay_lanes_stopping(generate->respond->lanes);
}

static bool on_text(void *arg, const char *text, size_t len, const struct assay_choice *choice)
{
    struct generate_work *generate = arg;
    if (choice)
        atomic_fetch_add(&generate->respond->tokens, 1);
    assay_generate_stream_push(generate->stream, text, len, choice);
    return is_wanted(generate);
}

static void on_end(void *arg, const struct assay_response *response)
{
    struct generate_work *generate = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    generate->totals.response_tokens = (uint32_t)response->tokens;
    if (response->err)
        err = *response->err;
    else if (response->cancelled && assay_lanes_stopping(generate->respond->lanes))
        assay_err_set(&err, ASSAY_UNAVAILABLE, "the worker is shutting down");
    else if (response->cancelled)
        assay_err_set(&err, ASSAY_CANCELLED, "the response is not wanted any more");
    else if (response->finish == ASSAY_FINISH_EOS)
        generate->totals.finish = ASSAY__V1__FINISH__FINISH_EOS;
    else if (response->finish == ASSAY_FINISH_STOPPED)
        generate->totals.finish = ASSAY__V1__FINISH__FINISH_STOP;
    else
        generate->totals.finish = ASSAY__V1__FINISH__FINISH_LENGTH;
    end(generate, err.status == ASSAY_OK ? NULL : &err);
}

/* The lane's thread: the prompt becomes ids, and waits for a place in the batch. */
static void run(struct assay_lane_work *work, struct assay_lane_model *model)
{
    struct generate_work *generate = (struct generate_work *)work;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_request request;
    const struct assay_chat *chat = NULL;
    int32_t *ids = NULL;
    enum assay_status status = ASSAY_OK;
    assay_generate_options(generate->request, &request);
    if (!is_wanted(generate))
        status = assay_err_set(&err, ASSAY_CANCELLED, "the response is not wanted any more");
    if (status == ASSAY_OK && generate->request->messages)
        status = assay_lane_chat(model, &chat, &err);
    if (status == ASSAY_OK)
        status = assay_generate_prompt(generate->request, assay_responder_tokenizer(model->responder), chat,
                                       generate->respond->options.tokens_max, &ids, &request.prompt_tokens, &err);
    if (status == ASSAY_OK) {
        generate->totals.prompt_tokens = (uint32_t)request.prompt_tokens;
        generate->totals.queue_us = (uint64_t)(assay_now_us() - assay_generate_stream_begin_us(generate->stream));
        request.prompt = ids;
        request.is_wanted = is_wanted;
        request.on_text = on_text;
        request.on_end = on_end;
        request.arg = generate;
        status = assay_responder_add(model->responder, &request, &err);
    }
    free(ids);
    if (status != ASSAY_OK)
        end(generate, &err);
}

void assay_respond_generate(struct assay_call *call, void *service)
{
    struct assay_respond *respond = service;
    struct assay_lane_source source;
    struct assay_err err = ASSAY_ERR_INIT;
    const Assay__V1__GenerateRequest *request = assay_call_request(call);
    enum assay_status status = assay_generate_check(request, respond->options.tokens_max, &err);
    if (status == ASSAY_OK)
        status = assay_respond_admit(respond, call, request->model, ASSAY_LANE_RESPONSES, &source, &err);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        return;
    }
    struct generate_work *generate = calloc(1, sizeof *generate);
    if (generate)
        generate->stream = assay_generate_stream_new(respond->options.lanes.loop, call, respond->options.stall_ms,
                                                     assay_respond_done, respond);
    if (!generate || !generate->stream) {
        free(generate);
        assay_respond_done(respond);
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response");
        assay_call_fail(call, &err);
        return;
    }
    generate->work.run = run;
    generate->work.fail = fail;
    generate->respond = respond;
    generate->request = request;
    assay_span_begin(&generate->span, "generate", assay_call_trace_id(call));
    generate->span.overlaps = true;
    assay_respond_post(respond, &source, &generate->work);
}
