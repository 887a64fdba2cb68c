#include "cli/embed_remote.h"

#include <stdlib.h>
#include <string.h>

#include "common/wire/utf8.h"

/* Of one call: below what a worker takes at most, so that an interrupt is noticed and a worker's memory is not full of
 * one answer. */
#define CALL_TEXTS 1024
#define CALL_BYTES (4u << 20)

/* One call: texts [first, first + count). */
struct part {
    bool classify;
    size_t first, count;
    char **texts, **pairs; /* [count], NUL-terminated copies; the latter NULL: there are none */
};

void assay_embedded_release(struct assay_embedded *embedded)
{
    for (size_t i = 0; embedded->labels && i < embedded->width; i++)
        free(embedded->labels[i]);
    free(embedded->labels);
    free(embedded->values);
    *embedded = (struct assay_embedded){0};
}

static void part_release(struct part *part)
{
    char ***const lists[] = {&part->texts, &part->pairs};
    for (size_t k = 0; k < ASSAY_COUNT(lists); k++) {
        for (size_t i = 0; *lists[k] && i < CALL_TEXTS; i++)
            free((*lists[k])[i]);
        free(*lists[k]);
        *lists[k] = NULL;
    }
}

static enum assay_status copy(const struct assay_text *text, size_t index, char **ret, struct assay_err *err)
{
    if (memchr(text->text, '\0', text->len) || !assay_utf8_valid(text->text, text->len))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "text %zu is not UTF-8, or has a NUL; a worker takes none",
                             index);
    *ret = strndup(text->text, text->len);
    return *ret ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for text %zu", index);
}

/* As many texts as go into one call, from part->first on. */
static enum assay_status fill_part(struct part *part, const struct assay_texts *texts, struct assay_err *err)
{
    size_t bytes = 0;
    enum assay_status status = ASSAY_OK;
    part->count = 0;
    part->texts = calloc(CALL_TEXTS, sizeof *part->texts);
    part->pairs = texts->pairs ? calloc(CALL_TEXTS, sizeof *part->pairs) : NULL;
    if (!part->texts || (texts->pairs && !part->pairs))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", texts->count);
    for (size_t i = part->first; i < texts->count && part->count < CALL_TEXTS && status == ASSAY_OK; i++) {
        bytes += texts->at[i].len + (texts->pairs ? texts->pairs[i].len : 0);
        if (part->count > 0 && bytes > CALL_BYTES)
            break;
        status = copy(&texts->at[i], i, &part->texts[part->count], err);
        if (status == ASSAY_OK && texts->pairs)
            status = copy(&texts->pairs[i], i, &part->pairs[part->count], err);
        part->count++;
    }
    return status;
}

static enum assay_status call_part(struct assay_remote *remote, struct assay_respond_model *model,
                                   const struct part *part, struct assay_reply **ret, struct assay_err *err)
{
    Assay__V1__EmbedRequest embed = ASSAY__V1__EMBED_REQUEST__INIT;
    Assay__V1__ClassifyRequest classify = ASSAY__V1__CLASSIFY_REQUEST__INIT;
    embed.model = classify.model = &model->message;
    embed.n_texts = classify.n_texts = part->count;
    embed.texts = classify.texts = part->texts;
    classify.n_pairs = part->pairs ? part->count : 0;
    classify.pairs = part->pairs;
    return part->classify ? assay_respond_call(remote, ASSAY_RESPOND_CLASSIFY, &classify.base, ret, err)
                          : assay_respond_call(remote, ASSAY_RESPOND_EMBED, &embed.base, ret, err);
}

/* What all parts have alike comes with the first one. */
static enum assay_status begin(const Assay__V1__ClassifyReply *classes, size_t width, size_t count,
                               struct assay_embedded *embedded, struct assay_err *err)
{
    size_t values = 0;
    if (__builtin_mul_overflow(count, width, &values))
        return assay_err_set(err, ASSAY_INTERNAL, "the worker answers with %zu values for a text", width);
    embedded->values = calloc(values, sizeof *embedded->values);
    embedded->labels = classes ? calloc(width, sizeof *embedded->labels) : NULL;
    bool whole = embedded->values && (!classes || embedded->labels);
    embedded->width = width;
    for (size_t i = 0; classes && whole && i < width; i++)
        whole = (embedded->labels[i] = strdup(classes->labels[i])) != NULL;
    return whole ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", count);
}

static enum assay_status take(const struct part *part, const struct assay_reply *reply, size_t count,
                              struct assay_embedded *embedded, struct assay_err *err)
{
    const Assay__V1__ClassifyReply *classes = part->classify ? assay_reply_message(reply) : NULL;
    const Assay__V1__EmbedReply *embeddings = part->classify ? NULL : assay_reply_message(reply);
    const Assay__V1__Tensor *tensor = classes ? classes->probabilities : embeddings->embeddings;
    bool holds = tensor && tensor->dtype == ASSAY__V1__DTYPE__DTYPE_F32 && tensor->n_shape == 2 &&
                 tensor->shape[0] == part->count && tensor->shape[1] > 0 && tensor->has_attachment &&
                 tensor->attachment < assay_reply_attachments(reply);
    struct assay_bytes bytes = {0};
    size_t width = holds ? (size_t)tensor->shape[1] : 0;
    if (holds) {
        bytes = assay_reply_attachment(reply, tensor->attachment);
        holds = bytes.bytes / sizeof(float) / part->count == width &&
                bytes.bytes == part->count * width * sizeof(float) && (!classes || classes->n_labels == width) &&
                (!embedded->values || embedded->width == width);
    }
    if (!holds)
        return assay_err_set(err, ASSAY_INTERNAL, "the worker's answer does not fit the %zu texts it was asked for",
                             part->count);
    enum assay_status status = embedded->values ? ASSAY_OK : begin(classes, width, count, embedded, err);
    if (status == ASSAY_OK)
        memcpy(embedded->values + part->first * width, bytes.data, bytes.bytes);
    return status;
}

enum assay_status assay_embed_remote(const struct assay_respond_where *where, const char *model,
                                     const struct assay_texts *texts, bool classify, struct assay_embedded *ret,
                                     struct assay_err *err)
{
    struct assay_respond_model found;
    struct assay_remote remote = {0};
    struct part part = {.classify = classify};
    struct assay_embedded embedded = {0};
    enum assay_status status = assay_respond_model_read(model, &found, err);
    if (status == ASSAY_OK)
        status = assay_respond_connect(where, &found, &remote, err);
    while (status == ASSAY_OK && part.first < texts->count) {
        struct assay_reply *reply = NULL;
        status = fill_part(&part, texts, err);
        if (status == ASSAY_OK)
            status = call_part(&remote, &found, &part, &reply, err);
        if (status == ASSAY_OK)
            status = take(&part, reply, texts->count, &embedded, err);
        assay_reply_free(reply);
        part_release(&part);
        part.first += part.count;
    }
    assay_remote_close(&remote);
    if (status == ASSAY_OK)
        *ret = embedded;
    else
        assay_embedded_release(&embedded);
    return status;
}
