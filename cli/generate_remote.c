#include "cli/generate_remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/date.h"
#include "cli/generate_prompts.h"
#include "cli/interrupt.h"
#include "cli/respond_remote.h"
#include "common/base/buf.h"
#include "common/formats/json.h"

/* Messages of one stream under way, and one look for them when there are none. */
#define CREDIT 64
#define TURN_MS 20

/* One prompt on its way. */
struct ask {
    struct assay_stream *stream; /* NULL before and after */
    struct assay_buf text;       /* of the response, where it is not printed as it comes */
};

struct run {
    const struct assay_generate_options *options;
    struct assay_respond_model model;
    struct assay_remote remote;
    struct assay_conversations prompts;
    Assay__V1__GenerateRequest request; /* what all prompts share */
    struct ask *asks;                   /* [prompts] */
    size_t begun, ended;                /* of them; the first `begun` have begun */
    bool streams;                       /* print the text as it comes */
};

/* --- the request --- */

static enum assay_status read_cache_dtype(const char *name, Assay__V1__Dtype *ret, struct assay_err *err)
{
    enum assay_dtype kv;
    enum assay_status status = assay_generate_read_kv(name, &kv, err);
    if (status == ASSAY_OK)
        *ret = kv == ASSAY_F16    ? ASSAY__V1__DTYPE__DTYPE_F16
               : kv == ASSAY_BF16 ? ASSAY__V1__DTYPE__DTYPE_BF16
               : kv == ASSAY_I8   ? ASSAY__V1__DTYPE__DTYPE_I8
                                  : ASSAY__V1__DTYPE__DTYPE_F32;
    return status;
}

static enum assay_status fill_request(struct run *run, struct assay_err *err)
{
    const struct assay_generate_options *o = run->options;
    Assay__V1__GenerateRequest *r = &run->request;
    assay__v1__generate_request__init(r);
    r->model = &run->model.message;
    r->has_tokens_max = r->has_temperature = r->has_top_k = r->has_top_p = r->has_min_p = true;
    r->has_repetition_penalty = r->has_ignore_eos = r->has_cache_dtype = true;
    r->tokens_max = (uint32_t)o->tokens_max;
    r->temperature = o->temperature;
    r->top_k = (uint32_t)o->top_k;
    r->top_p = o->top_p;
    r->min_p = o->min_p;
    r->repetition_penalty = o->repetition_penalty;
    r->ignore_eos = o->ignore_eos;
    return read_cache_dtype(o->kv, &r->cache_dtype, err);
}

static enum assay_status begin(struct run *run, size_t index, struct assay_err *err)
{
    Assay__V1__GenerateRequest request = run->request;
    request.has_seed = true;
    request.seed = (uint64_t)run->options->seed + index;
    if (run->prompts.are_messages) {
        enum assay_status status = assay_date_read(run->options->date, &request.now_s, err);
        if (status != ASSAY_OK)
            return status;
        request.messages = run->prompts.at[index];
        request.has_now_s = true;
    } else {
        request.prompt = run->prompts.at[index];
    }
    return assay_stream_open(run->remote.client, &assay__v1__respond__descriptor, ASSAY_RESPOND_GENERATE, &request.base,
                             NULL, CREDIT, &run->asks[index].stream, err);
}

/* --- what comes --- */

static const char *finish_name(Assay__V1__Finish finish)
{
    switch (finish) {
    case ASSAY__V1__FINISH__FINISH_EOS:
        return "eos";
    case ASSAY__V1__FINISH__FINISH_LENGTH:
        return "length";
    case ASSAY__V1__FINISH__FINISH_STOP:
        return "stop";
    default:
        return "unknown";
    }
}

/* One line a message. */
static enum assay_status print_json(size_t index, const Assay__V1__GenerateReply *reply, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "prompt", (double)index);
    cJSON_AddStringToObject(line, "text", reply->text ? reply->text : "");
    /* An empty list has no array to be made of. */
    cJSON *ids = reply->n_ids ? cJSON_CreateIntArray(reply->ids, (int)reply->n_ids) : cJSON_CreateArray();
    cJSON *logprobs =
        reply->n_logprobs ? cJSON_CreateDoubleArray(reply->logprobs, (int)reply->n_logprobs) : cJSON_CreateArray();
    cJSON_AddItemToObject(line, "ids", ids);
    cJSON_AddItemToObject(line, "logprobs", logprobs);
    if (reply->has_elapsed_us)
        cJSON_AddNumberToObject(line, "elapsed_seconds", (double)reply->elapsed_us * 1e-6);
    if (reply->has_finish) {
        cJSON_AddStringToObject(line, "finish", finish_name(reply->finish));
        cJSON_AddNumberToObject(line, "prompt_tokens", reply->prompt_tokens);
        cJSON_AddNumberToObject(line, "response_tokens", reply->response_tokens);
        cJSON_AddNumberToObject(line, "queue_seconds", (double)reply->queue_us * 1e-6);
        cJSON_AddNumberToObject(line, "first_token_seconds", (double)reply->first_token_us * 1e-6);
        cJSON_AddNumberToObject(line, "seconds", (double)reply->total_us * 1e-6);
    }
    assay_auto(assay_free_ptr) char *text = cJSON_PrintUnformatted(line);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the result");
    puts(text);
    fflush(stdout);
    return ASSAY_OK;
}

static enum assay_status take(struct run *run, size_t index, const Assay__V1__GenerateReply *reply,
                              struct assay_err *err)
{
    if (run->options->json)
        return print_json(index, reply, err);
    const char *text = reply->text ? reply->text : "";
    if (run->streams) {
        fputs(text, stdout);
        fflush(stdout);
        return ASSAY_OK;
    }
    assay_buf_str(&run->asks[index].text, text);
    return assay_buf_check(&run->asks[index].text, err);
}

/* Whatever one stream has, waiting up to wait_ms for it. *ret_came: something came. */
static enum assay_status look(struct run *run, size_t index, int64_t wait_ms, bool *ret_came, struct assay_err *err)
{
    struct ask *ask = &run->asks[index];
    struct assay_reply *reply = NULL;
    struct assay_err why = ASSAY_ERR_INIT;
    enum assay_status status = assay_stream_next(ask->stream, wait_ms, &reply, &why);
    if (status == ASSAY_DEADLINE_EXCEEDED && !why.text[0])
        return ASSAY_OK;
    *ret_came = true;
    if (status == ASSAY_OK && reply) {
        status = take(run, index, assay_reply_message(reply), err);
        assay_reply_free(reply);
        return status;
    }
    assay_stream_close(ask->stream);
    ask->stream = NULL;
    run->ended++;
    return status == ASSAY_OK ? ASSAY_OK : assay_err_set(err, status, "%s", why.text);
}

/* Reads all streams that are open; waits a little for the first when none has anything. */
static enum assay_status read_streams(struct run *run, struct assay_err *err)
{
    bool came = false;
    size_t first = run->begun;
    for (size_t i = 0; i < run->begun; i++) {
        if (!run->asks[i].stream)
            continue;
        first = ASSAY_MIN(first, i);
        enum assay_status status = look(run, i, 0, &came, err);
        if (status != ASSAY_OK)
            return status;
    }
    return came || first == run->begun ? ASSAY_OK : look(run, first, TURN_MS, &came, err);
}

static void print_texts(const struct run *run)
{
    for (size_t i = 0; i < run->prompts.count && !run->options->json && !run->streams; i++)
        printf("=== %s, prompt %zu ===\n%s\n", run->options->model, i + 1, assay_buf_cstr(&run->asks[i].text));
    if (run->streams && !run->options->json)
        putchar('\n');
}

static enum assay_status answer_all(struct run *run, struct assay_err *err)
{
    run->streams = run->prompts.count == 1;
    run->asks = calloc(run->prompts.count, sizeof *run->asks);
    if (!run->asks)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu prompts", run->prompts.count);
    enum assay_status status = ASSAY_OK;
    while (status == ASSAY_OK && run->ended < run->prompts.count) {
        if (assay_interrupt_wait(0))
            return assay_err_set(err, ASSAY_CANCELLED, "interrupted");
        if (run->begun < run->prompts.count && run->begun - run->ended < (size_t)run->options->batch)
            status = begin(run, run->begun++, err);
        else
            status = read_streams(run, err);
    }
    if (status != ASSAY_OK)
        return status;
    print_texts(run);
    return fflush(stdout) != 0 || ferror(stdout) ? assay_err_errno(err, errno, "cannot write the result") : ASSAY_OK;
}

enum assay_status assay_generate_remote(const struct assay_generate_options *options, struct assay_err *err)
{
    struct run run = {.options = options};
    const char **stops = NULL;
    size_t stops_count = 0;
    void *json = NULL;
    enum assay_status status = assay_stops_read(options->stop, &stops, &stops_count, &json, err);
    if (status == ASSAY_OK)
        status = assay_conversations_read(options, &run.prompts, err);
    if (status == ASSAY_OK)
        status = assay_respond_model_read(options->model, &run.model, err);
    if (status == ASSAY_OK)
        status = fill_request(&run, err);
    if (status == ASSAY_OK)
        status = assay_respond_connect(&options->where, &run.model, &run.remote, err);
    if (status == ASSAY_OK) {
        run.request.stops = (char **)(uintptr_t)stops;
        run.request.n_stops = stops_count;
        status = answer_all(&run, err);
    }
    for (size_t i = 0; run.asks && i < run.prompts.count; i++) {
        assay_stream_close(run.asks[i].stream);
        assay_buf_release(&run.asks[i].text);
    }
    assay_remote_close(&run.remote);
    assay_conversations_release(&run.prompts);
    free(run.asks);
    free(stops);
    cJSON_Delete(json);
    return status;
}
