#include "common/nn/sentences.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/nn/pooling.h"
#include "common/tokenizer/tokenizer.h"

/* Tokens and texts of one batch: products are compute-bound from here on. */
#define BATCH_TOKENS 4096
#define BATCH_TEXTS 256
#define LABEL_BYTES 128

struct assay_sentences {
    struct assay_pool *pool;
    const struct assay_encoder *encoder; /* one of these two, the other one is NULL */
    const struct assay_model *decoder;
    struct assay_encoder *own_encoder; /* NULL: somebody else's */
    struct assay_model *own_decoder;
    struct assay_tokenizer *tokenizer;
    struct assay_pooling pooling;
    char (*labels)[LABEL_BYTES]; /* [labels] or NULL */
    bool each_label;             /* a sigmoid for each */
};

static void close_sentences(struct assay_sentences **sentences)
{
    assay_sentences_close(*sentences);
}

static void close_checkpoint(struct assay_checkpoint **checkpoint)
{
    assay_checkpoint_close(*checkpoint);
}

static enum assay_status read_labels(struct assay_sentences *s, const cJSON *config, const char *dir,
                                     struct assay_err *err)
{
    size_t count = assay_sentences_labels(s);
    if (count == 0)
        return ASSAY_OK;
    s->labels = calloc(count, sizeof *s->labels);
    if (!s->labels)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu labels", count);
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "id2label");
    for (size_t i = 0; i < count; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(names, key));
        if (name)
            snprintf(s->labels[i], LABEL_BYTES, "%s", name);
        else
            snprintf(s->labels[i], LABEL_BYTES, "LABEL_%zu", i);
    }
    const char *problem = NULL;
    enum assay_status status = assay_json_get_string(config, dir, "problem_type", false, &problem, err);
    if (status != ASSAY_OK)
        return status;
    if (problem && strcmp(problem, "single_label_classification") != 0 &&
        strcmp(problem, "multi_label_classification") != 0)
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s/config.json: problem_type \"%s\" is not implemented", dir,
                             problem);
    s->each_label = count == 1 || (problem && strcmp(problem, "multi_label_classification") == 0);
    return ASSAY_OK;
}

static enum assay_status load_own(struct assay_sentences *s, const struct assay_checkpoint *checkpoint,
                                  struct assay_err *err)
{
    bool decodes = assay_model_is(assay_checkpoint_config(checkpoint));
    enum assay_status status = decodes ? assay_model_load(checkpoint, s->pool, &s->own_decoder, err)
                                       : assay_encoder_load(checkpoint, s->pool, &s->own_encoder, err);
    s->encoder = s->own_encoder;
    s->decoder = s->own_decoder;
    return status;
}

static enum assay_status read_pooling(struct assay_sentences *s, const char *dir, struct assay_err *err)
{
    size_t positions =
        s->decoder ? assay_model_config(s->decoder)->positions_max : assay_encoder_config(s->encoder)->positions;
    enum assay_status status = assay_pooling_read(dir, positions, &s->pooling, err);
    if (status == ASSAY_OK && s->decoder && !s->pooling.is_stated)
        return assay_err_set(
            err, ASSAY_FAILED_PRECONDITION,
            "%s is a decoder: it has no labels, and no modules.json says how its tokens become an embedding", dir);
    return status;
}

/* With `encoder` or `decoder`, or neither to load it. */
static enum assay_status open_over(const char *dir, const struct assay_encoder *encoder,
                                   const struct assay_model *decoder, struct assay_pool *pool,
                                   struct assay_sentences **ret, struct assay_err *err)
{
    assay_auto(close_sentences) struct assay_sentences *s = calloc(1, sizeof *s);
    assay_auto(close_checkpoint) struct assay_checkpoint *checkpoint = NULL;
    if (!s)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %s", dir);
    s->pool = pool;
    s->encoder = encoder;
    s->decoder = decoder;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK && !encoder && !decoder)
        status = load_own(s, checkpoint, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_open(dir, &s->tokenizer, err);
    if (status == ASSAY_OK)
        status = read_pooling(s, dir, err);
    if (status == ASSAY_OK)
        status = read_labels(s, assay_checkpoint_config(checkpoint), dir, err);
    if (status != ASSAY_OK)
        return status;
    *ret = s;
    s = NULL;
    return ASSAY_OK;
}

enum assay_status assay_sentences_open(const char *dir, struct assay_pool *pool, struct assay_sentences **ret,
                                       struct assay_err *err)
{
    return open_over(dir, NULL, NULL, pool, ret, err);
}

enum assay_status assay_sentences_over(const char *dir, const struct assay_encoder *encoder,
                                       const struct assay_model *decoder, struct assay_pool *pool,
                                       struct assay_sentences **ret, struct assay_err *err)
{
    return open_over(dir, encoder, decoder, pool, ret, err);
}

enum assay_status assay_sentences_has_decoder(const char *dir, bool *ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_json_delete) cJSON *config = NULL;
    enum assay_status status = assay_path_join(path, dir, "config.json", err);
    if (status == ASSAY_OK)
        status = assay_json_load(path, &config, err);
    if (status == ASSAY_OK)
        *ret = assay_model_is(config);
    return status;
}

void assay_sentences_close(struct assay_sentences *sentences)
{
    if (!sentences)
        return;
    assay_encoder_free(sentences->own_encoder);
    assay_model_free(sentences->own_decoder);
    assay_tokenizer_close(sentences->tokenizer);
    free(sentences->labels);
    free(sentences);
}

size_t assay_sentences_hidden(const struct assay_sentences *sentences)
{
    return sentences->decoder ? assay_model_config(sentences->decoder)->hidden
                              : assay_encoder_config(sentences->encoder)->hidden;
}

size_t assay_sentences_labels(const struct assay_sentences *sentences)
{
    return sentences->decoder ? 0 : assay_encoder_config(sentences->encoder)->labels;
}

const char *assay_sentences_label(const struct assay_sentences *sentences, size_t index)
{
    return sentences->labels[index];
}

/* What becomes of the hidden states of a batch: texts [first, first + count) of all. */
typedef enum assay_status (*batch_fn)(const struct assay_sentences *s, const struct assay_encoder_sequence *sequences,
                                      size_t first, size_t count, float *results, struct assay_err *err);

struct inputs {
    const struct assay_text *texts, *pairs; /* the latter may be NULL */
    batch_fn fn;
};

static enum assay_status embed_batch(const struct assay_sentences *s, const struct assay_encoder_sequence *sequences,
                                     size_t first, size_t count, float *results, struct assay_err *err)
{
    (void)err;
    size_t hidden = assay_sentences_hidden(s);
    for (size_t i = 0; i < count; i++)
        assay_pooling_apply(&s->pooling, sequences[i].hidden, sequences[i].tokens, hidden,
                            results + (first + i) * hidden);
    return ASSAY_OK;
}

static void to_probabilities(const struct assay_sentences *s, float *scores)
{
    size_t labels = assay_sentences_labels(s);
    double highest = -INFINITY, sum = 0;
    for (size_t i = 0; i < labels; i++)
        highest = fmax(highest, (double)scores[i]);
    for (size_t i = 0; i < labels; i++)
        sum += exp((double)scores[i] - highest);
    for (size_t i = 0; i < labels; i++)
        scores[i] = (float)(s->each_label ? 1 / (1 + exp(-(double)scores[i])) : exp((double)scores[i] - highest) / sum);
}

static enum assay_status classify_batch(const struct assay_sentences *s, const struct assay_encoder_sequence *sequences,
                                        size_t first, size_t count, float *results, struct assay_err *err)
{
    size_t hidden = assay_sentences_hidden(s), labels = assay_sentences_labels(s);
    assay_auto(assay_free_ptr) float *rows = malloc(2 * count * hidden * sizeof *rows);
    if (!rows)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", count);
    float *pooled = rows + count * hidden, *scores = results + first * labels;
    for (size_t i = 0; i < count; i++)
        memcpy(rows + i * hidden, sequences[i].hidden, hidden * sizeof *rows);
    enum assay_status status = assay_encoder_pooler(s->encoder, s->pool, rows, count, pooled, err);
    if (status == ASSAY_OK)
        status = assay_encoder_scores(s->encoder, s->pool, pooled, count, scores, err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        to_probabilities(s, scores + i * labels);
    return status;
}

/* The last hidden states of a decoder, behind its final norm. */
static enum assay_status decode(const struct assay_sentences *s, const struct assay_encoder_sequence *sequences,
                                size_t count, struct assay_err *err)
{
    struct assay_sequence decoded[BATCH_TEXTS];
    for (size_t i = 0; i < count; i++)
        decoded[i] = (struct assay_sequence){.ids = sequences[i].ids,
                                             .tokens = sequences[i].tokens,
                                             .end = sequences[i].tokens,
                                             .hidden = sequences[i].hidden};
    return assay_model_forward(s->decoder, s->pool, decoded, count, NULL, err);
}

/* Runs texts [first, first + count), whose ids are there. */
static enum assay_status run_batch(const struct assay_sentences *s, const struct assay_encoded *encoded, size_t first,
                                   size_t count, batch_fn fn, float *results, struct assay_err *err)
{
    struct assay_encoder_sequence sequences[BATCH_TEXTS];
    size_t hidden = assay_sentences_hidden(s), tokens = 0;
    for (size_t i = 0; i < count; i++)
        tokens += encoded[i].tokens;
    assay_auto(assay_free_ptr) float *states = malloc(ASSAY_MAX(tokens, (size_t)1) * hidden * sizeof *states);
    if (!states)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu tokens", tokens);
    bool typed = s->encoder && assay_encoder_config(s->encoder)->types > 1;
    for (size_t i = 0, at = 0; i < count; at += encoded[i++].tokens * hidden)
        sequences[i] = (struct assay_encoder_sequence){.ids = encoded[i].ids,
                                                       .types = typed ? encoded[i].types : NULL,
                                                       .tokens = encoded[i].tokens,
                                                       .hidden = states + at};
    enum assay_status status = s->decoder ? decode(s, sequences, count, err)
                                          : assay_encoder_forward(s->encoder, s->pool, sequences, count, err);
    return status == ASSAY_OK ? fn(s, sequences, first, count, results, err) : status;
}

/* Texts [first, first + count), at most BATCH_TEXTS of them: as many batches as their tokens want. */
static enum assay_status run_group(const struct assay_sentences *s, const struct inputs *inputs, size_t first,
                                   size_t count, float *results, struct assay_err *err)
{
    struct assay_encoded encoded[BATCH_TEXTS];
    enum assay_status status =
        assay_tokenizer_encode_all(s->tokenizer, inputs->texts + first, inputs->pairs ? inputs->pairs + first : NULL,
                                   count, s->pooling.tokens_max, s->pool, encoded, err);
    if (status != ASSAY_OK)
        return status;
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        if (encoded[i].tokens == 0)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a text of %zu bytes has no tokens",
                                   inputs->texts[first + i].len);
    for (size_t i = 0, length; i < count && status == ASSAY_OK; i += length) {
        size_t tokens = encoded[i].tokens;
        for (length = 1; i + length < count && tokens < BATCH_TOKENS; length++)
            tokens += encoded[i + length].tokens;
        status = run_batch(s, encoded + i, first + i, length, inputs->fn, results, err);
    }
    assay_encoded_release(encoded, count);
    return status;
}

static enum assay_status run_all(const struct assay_sentences *s, const struct inputs *inputs, size_t count,
                                 float *results, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < count && status == ASSAY_OK; i += BATCH_TEXTS)
        status = run_group(s, inputs, i, ASSAY_MIN(count - i, (size_t)BATCH_TEXTS), results, err);
    return status;
}

enum assay_status assay_sentences_embed(const struct assay_sentences *sentences, const struct assay_text *texts,
                                        size_t count, float *embeddings, struct assay_err *err)
{
    const struct inputs inputs = {texts, NULL, embed_batch};
    return run_all(sentences, &inputs, count, embeddings, err);
}

enum assay_status assay_sentences_classify(const struct assay_sentences *sentences, const struct assay_text *texts,
                                           const struct assay_text *pairs, size_t count, float *probabilities,
                                           struct assay_err *err)
{
    const struct inputs inputs = {texts, pairs, classify_batch};
    if (assay_sentences_labels(sentences) == 0)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION,
                             "the model has no classifier; wanted one ForSequenceClassification");
    return run_all(sentences, &inputs, count, probabilities, err);
}
