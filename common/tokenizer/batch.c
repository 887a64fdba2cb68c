#include "common/tokenizer/batch.h"

#include <pthread.h>
#include <stdlib.h>

struct job {
    const struct assay_tokenizer *tokenizer;
    const struct assay_text *texts, *pairs;
    size_t tokens_max;
    struct assay_encoded *encoded;
    pthread_mutex_t lock; /* guards what follows */
    size_t failed;        /* the first text that failed; SIZE_MAX: none */
    struct assay_err err;
};

static void encode_one(void *arg, size_t index, size_t thread)
{
    struct job *job = arg;
    struct assay_err err = ASSAY_ERR_INIT;
    struct assay_encoded *encoded = &job->encoded[index];
    const struct assay_text none = {NULL, 0}, *text = &job->texts[index];
    const struct assay_text *pair = job->pairs ? &job->pairs[index] : &none;
    (void)thread;
    if (assay_tokenizer_encode_within(job->tokenizer, text->text, text->len, pair->text, pair->len, job->tokens_max,
                                      &encoded->ids, &encoded->types, &encoded->tokens, &err) == ASSAY_OK)
        return;
    pthread_mutex_lock(&job->lock);
    if (index < job->failed) {
        job->failed = index;
        job->err = err;
    }
    pthread_mutex_unlock(&job->lock);
}

void assay_encoded_release(struct assay_encoded *encoded, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(encoded[i].ids);
        free(encoded[i].types);
        encoded[i] = (struct assay_encoded){0};
    }
}

enum assay_status assay_tokenizer_encode_all(const struct assay_tokenizer *tokenizer, const struct assay_text *texts,
                                             const struct assay_text *pairs, size_t count, size_t tokens_max,
                                             struct assay_pool *pool, struct assay_encoded *encoded,
                                             struct assay_err *err)
{
    struct job job = {.tokenizer = tokenizer,
                      .texts = texts,
                      .pairs = pairs,
                      .tokens_max = tokens_max,
                      .encoded = encoded,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .failed = SIZE_MAX};
    for (size_t i = 0; i < count; i++)
        encoded[i] = (struct assay_encoded){0};
    assay_pool_run(pool, count, encode_one, &job);
    if (job.failed == SIZE_MAX)
        return ASSAY_OK;
    assay_encoded_release(encoded, count);
    assay_err_prefix(&job.err, "text %zu", job.failed);
    return assay_err_set(err, job.err.status, "%s", job.err.text);
}
