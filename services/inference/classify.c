/* Classify */
#include <stdlib.h>

#include "services/inference/embed.h"

static void reply(struct assay_call *call, const struct assay_sentences *sentences, Assay__V1__Tensor *tensor,
                  const struct assay_attachment *values)
{
    Assay__V1__ClassifyReply reply = ASSAY__V1__CLASSIFY_REPLY__INIT;
    size_t count = assay_sentences_labels(sentences);
    char **labels = calloc(count, sizeof *labels);
    if (!labels) {
        struct assay_err err;
        values->release((void *)(uintptr_t)values->data, values->hint);
        assay_err_set(&err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu labels", count);
        assay_call_fail(call, &err);
        return;
    }
    for (size_t i = 0; i < count; i++)
        labels[i] = (char *)(uintptr_t)assay_sentences_label(sentences, i);
    reply.n_labels = count;
    reply.labels = labels;
    reply.probabilities = tensor;
    assay_call_reply(call, &reply.base, values, 1);
    free(labels);
}

void assay_respond_classify(struct assay_call *call, void *respond)
{
    static const struct assay_texts_method method = {
        .span = "classify",
        .width = assay_sentences_labels,
        .run = assay_sentences_classify,
        .reply = reply,
        .missing = "the model has no classifier; wanted one ForSequenceClassification",
    };
    const Assay__V1__ClassifyRequest *request = assay_call_request(call);
    assay_texts_serve(respond, call, request->model, request->texts, request->n_texts, request->pairs, request->n_pairs,
                      &method);
}
