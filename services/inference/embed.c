#include "services/inference/embed.h"

#include <stdlib.h>
#include <string.h>

#include "common/obs/spans.h"

struct texts_work {
    struct assay_lane_work work; /* first */
    struct assay_respond *respond;
    struct assay_call *call;
    const struct assay_texts_method *method;
    struct assay_text *texts; /* [count], behind them those of the pairs */
    bool paired;
    size_t count;
};

/* The call has been answered. */
static void finish(struct texts_work *texts)
{
    assay_respond_done(texts->respond);
    free(texts->texts);
    free(texts);
}

static void fail(struct assay_lane_work *work, const struct assay_err *err)
{
    struct texts_work *texts = (struct texts_work *)work;
    assay_call_fail(texts->call, err);
    finish(texts);
}

static enum assay_status run_texts(const struct texts_work *texts, const struct assay_sentences *sentences,
                                   size_t width, float *values, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < texts->count && status == ASSAY_OK; i += ASSAY_EMBED_TEXTS_AT_ONCE) {
        size_t count = ASSAY_MIN(texts->count - i, (size_t)ASSAY_EMBED_TEXTS_AT_ONCE);
        if (assay_call_cancelled(texts->call))
            return assay_err_set(err, ASSAY_CANCELLED, "the client is gone");
        if (assay_lanes_stopping(texts->respond->lanes))
            return assay_err_set(err, ASSAY_UNAVAILABLE, "the worker is shutting down");
        const struct assay_text *first = texts->texts + i;
        status = texts->method->run(sentences, first, texts->paired ? first + texts->count : NULL, count,
                                    values + i * width, err);
    }
    return status;
}

static enum assay_status make_values(const struct texts_work *texts, const struct assay_sentences *sentences,
                                     size_t width, float **ret, struct assay_err *err)
{
    if (width == 0)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "%s", texts->method->missing);
    if (width > ASSAY_EMBED_VALUES_MAX / texts->count)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED,
                             "%zu texts with %zu values each, at most %u values are answered at once", texts->count,
                             width, ASSAY_EMBED_VALUES_MAX);
    float *values = malloc(texts->count * width * sizeof *values);
    if (!values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", texts->count);
    enum assay_status status = run_texts(texts, sentences, width, values, err);
    if (status == ASSAY_OK)
        *ret = values;
    else
        free(values);
    return status;
}

static void run(struct assay_lane_work *work, struct assay_lane_model *model)
{
    struct texts_work *texts = (struct texts_work *)work;
    const struct assay_sentences *sentences = model->sentences;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_span span;
    size_t width = texts->method->width(sentences);
    float *values = NULL;
    assay_span_begin(&span, texts->method->span, assay_call_trace_id(texts->call));
    enum assay_status status = make_values(texts, sentences, width, &values, &err);
    assay_span_number(&span, "texts", (int64_t)texts->count);
    assay_span_text(&span, "status", assay_status_name(status));
    assay_span_end(&span);
    if (status != ASSAY_OK) {
        fail(work, &err);
        return;
    }
    uint64_t shape[2] = {texts->count, width};
    Assay__V1__Tensor tensor = ASSAY__V1__TENSOR__INIT;
    tensor.has_dtype = tensor.has_attachment = true;
    tensor.dtype = ASSAY__V1__DTYPE__DTYPE_F32;
    tensor.n_shape = ASSAY_COUNT(shape);
    tensor.shape = shape;
    atomic_fetch_add(&texts->respond->texts, texts->count);
    const struct assay_attachment attachment = {
        .data = values, .bytes = texts->count * width * sizeof *values, .release = assay_attachment_free};
    texts->method->reply(texts->call, sentences, &tensor, &attachment);
    finish(texts);
}

static enum assay_status check(char *const *texts, size_t count, char *const *pairs, size_t pairs_count,
                               struct assay_err *err)
{
    size_t bytes = 0;
    if (pairs_count != 0 && pairs_count != count)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%zu pairs beside %zu texts; wanted none, or as many",
                             pairs_count, count);
    if (count == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "there are no texts");
    if (count > ASSAY_EMBED_TEXTS_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%zu texts, at most %d are taken at once", count,
                             ASSAY_EMBED_TEXTS_MAX);
    for (size_t i = 0; i < count; i++)
        bytes += strlen(texts[i]) + (pairs_count ? strlen(pairs[i]) : 0);
    if (bytes > ASSAY_EMBED_BYTES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "texts of %zu bytes, at most %u are taken at once", bytes,
                             ASSAY_EMBED_BYTES_MAX);
    return ASSAY_OK;
}

void assay_texts_serve(struct assay_respond *respond, struct assay_call *call, const Assay__V1__Variant *model,
                       char *const *texts, size_t count, char *const *pairs, size_t pairs_count,
                       const struct assay_texts_method *method)
{
    struct assay_lane_source source;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = check(texts, count, pairs, pairs_count, &err);
    if (status == ASSAY_OK)
        status = assay_respond_admit(respond, call, model, ASSAY_LANE_TEXTS, &source, &err);
    if (status != ASSAY_OK) {
        assay_call_fail(call, &err);
        return;
    }
    struct texts_work *work = calloc(1, sizeof *work);
    if (work)
        work->texts = calloc(count + pairs_count, sizeof *work->texts);
    if (!work || !work->texts) {
        free(work);
        assay_respond_done(respond);
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", count);
        assay_call_fail(call, &err);
        return;
    }
    work->work.run = run;
    work->work.fail = fail;
    work->respond = respond;
    work->call = call;
    work->method = method;
    work->count = count;
    work->paired = pairs_count > 0;
    for (size_t i = 0; i < count; i++)
        work->texts[i] = (struct assay_text){texts[i], strlen(texts[i])};
    for (size_t i = 0; i < pairs_count; i++)
        work->texts[count + i] = (struct assay_text){pairs[i], strlen(pairs[i])};
    assay_respond_post(respond, &source, &work->work);
}

/* --- Embed --- */

static enum assay_status embed(const struct assay_sentences *sentences, const struct assay_text *texts,
                               const struct assay_text *pairs, size_t count, float *values, struct assay_err *err)
{
    (void)pairs; /* requests have none */
    return assay_sentences_embed(sentences, texts, count, values, err);
}

static void reply(struct assay_call *call, const struct assay_sentences *sentences, Assay__V1__Tensor *tensor,
                  const struct assay_attachment *values)
{
    Assay__V1__EmbedReply reply = ASSAY__V1__EMBED_REPLY__INIT;
    (void)sentences;
    reply.embeddings = tensor;
    assay_call_reply(call, &reply.base, values, 1);
}

void assay_respond_embed(struct assay_call *call, void *respond)
{
    static const struct assay_texts_method method = {
        .span = "embed",
        .width = assay_sentences_hidden,
        .run = embed,
        .reply = reply,
        .missing = "the model has no hidden states",
    };
    const Assay__V1__EmbedRequest *request = assay_call_request(call);
    assay_texts_serve(respond, call, request->model, request->texts, request->n_texts, NULL, 0, &method);
}
