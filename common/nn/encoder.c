/* The forward pass of encoders: embeddings, layers that norm behind their sums, pooler and classifier. */
#include "common/nn/encoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/encoder_impl.h"

/* Rows of one piece of work where rows are independent. */
#define ROWS 16

struct pass {
    const struct assay_encoder *encoder;
    struct assay_pool *pool;
    const struct assay_encoder_sequence *sequences;
    struct assay_attention_span *spans;
    size_t count, rows;
    struct assay_attention_shape shape;
    float *x, *q, *k, *v, *out, *inner, *attention;
    const struct assay_norm_weights *norm; /* of the rows under way */
    size_t *sequence_of, *position_of;     /* [rows]; the latter among the rows of the table */
};

typedef void (*row_fn)(const struct pass *pass, size_t row);

struct row_work {
    const struct pass *pass;
    row_fn fn;
};

static void run_rows(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct row_work *work = arg;
    size_t end = ASSAY_MIN((index + 1) * ROWS, work->pass->rows);
    for (size_t row = index * ROWS; row < end; row++)
        work->fn(work->pass, row);
}

static void each_row(const struct pass *pass, row_fn fn)
{
    struct row_work work = {pass, fn};
    assay_pool_run(pass->pool, (pass->rows + ROWS - 1) / ROWS, run_rows, &work);
}

static void normalize(const struct assay_encoder *e, const struct assay_norm_weights *norm, const float *x, float *y)
{
    e->kernels->vector->layernorm(e->config.hidden, x, norm->weight, norm->bias, e->config.norm_eps, y);
}

static void begin_row(const struct pass *pass, size_t row)
{
    const struct assay_encoder *e = pass->encoder;
    size_t hidden = e->config.hidden, sequence = pass->sequence_of[row];
    size_t token = row - pass->spans[sequence].first;
    const struct assay_encoder_sequence *s = &pass->sequences[sequence];
    float *x = pass->x + row * hidden;
    memcpy(x, e->words + (size_t)s->ids[token] * hidden, hidden * sizeof *x);
    if (e->types)
        e->kernels->vector->add(hidden, e->types + (s->types ? (size_t)s->types[token] : 0) * hidden, x);
    e->kernels->vector->add(hidden, e->positions + pass->position_of[row] * hidden, x);
    normalize(e, &e->embedding_norm, x, x);
}

/* x = norm(out + x). */
static void close_row(const struct pass *pass, size_t row)
{
    size_t hidden = pass->encoder->config.hidden;
    float *x = pass->x + row * hidden;
    pass->encoder->kernels->vector->add(hidden, pass->out + row * hidden, x);
    normalize(pass->encoder, pass->norm, x, x);
}

static void activate_row(const struct pass *pass, size_t row)
{
    size_t n = pass->encoder->config.intermediate;
    pass->encoder->activation(n, pass->inner + row * n);
}

static void finish_row(const struct pass *pass, size_t row)
{
    size_t hidden = pass->encoder->config.hidden, sequence = pass->sequence_of[row];
    size_t position = row - pass->spans[sequence].first;
    memcpy(pass->sequences[sequence].hidden + position * hidden, pass->x + row * hidden, hidden * sizeof *pass->x);
}

static void multiply(const struct assay_encoder *e, struct assay_pool *pool, const struct assay_linear_weights *w,
                     size_t rows, const float *from, float *to)
{
    assay_gemm(e->kernels, pool, rows, from, w->panels.k, &w->panels, w->bias, to, w->panels.n);
}

static void run_layer(struct pass *pass, const struct assay_encoder_layer *layer)
{
    const struct assay_encoder *e = pass->encoder;
    const struct assay_linear_weights *w = layer->linears;
    size_t rows = pass->rows;
    multiply(e, pass->pool, &w[ASSAY_ENCODER_Q], rows, pass->x, pass->q);
    multiply(e, pass->pool, &w[ASSAY_ENCODER_K], rows, pass->x, pass->k);
    multiply(e, pass->pool, &w[ASSAY_ENCODER_V], rows, pass->x, pass->v);
    /* The room of q is free once it was read; the sums of values go to inner, which is not smaller. */
    assay_attention(e->kernels, pass->pool, &pass->shape, pass->spans, pass->count, pass->q, pass->k, pass->v,
                    pass->inner, pass->attention);
    multiply(e, pass->pool, &w[ASSAY_ENCODER_O], rows, pass->inner, pass->out);
    pass->norm = &layer->attention_norm;
    each_row(pass, close_row);
    multiply(e, pass->pool, &w[ASSAY_ENCODER_UP], rows, pass->x, pass->inner);
    each_row(pass, activate_row);
    multiply(e, pass->pool, &w[ASSAY_ENCODER_DOWN], rows, pass->inner, pass->out);
    pass->norm = &layer->output_norm;
    each_row(pass, close_row);
}

static enum assay_status check_sequences(struct pass *pass, struct assay_err *err)
{
    const struct assay_encoder_config *c = &pass->encoder->config;
    for (size_t i = 0; i < pass->count; i++) {
        const struct assay_encoder_sequence *s = &pass->sequences[i];
        if (s->tokens < 1 || s->tokens > c->positions)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu has %zu tokens, the encoder takes 1 to %zu", i,
                                 s->tokens, c->positions);
        for (size_t t = 0; t < s->tokens; t++) {
            if (s->ids[t] < 0 || (size_t)s->ids[t] >= c->vocab)
                return assay_err_set(err, ASSAY_OUT_OF_RANGE,
                                     "sequence %zu: id %d at position %zu, the encoder has %zu", i, (int)s->ids[t], t,
                                     c->vocab);
            if (c->types > 0 && s->types && (s->types[t] < 0 || (size_t)s->types[t] >= c->types))
                return assay_err_set(err, ASSAY_OUT_OF_RANGE,
                                     "sequence %zu: type %d at position %zu, the encoder has %zu", i, (int)s->types[t],
                                     t, c->types);
        }
        pass->spans[i] = (struct assay_attention_span){pass->rows, s->tokens};
        if (__builtin_add_overflow(pass->rows, s->tokens, &pass->rows))
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a batch of more tokens than memory could hold");
    }
    return ASSAY_OK;
}

/* Tokens that pad stand at one place and do not count. */
static void place_rows(struct pass *pass)
{
    const int32_t pad = pass->encoder->config.pad;
    for (size_t i = 0; i < pass->count; i++) {
        size_t row = pass->spans[i].first, next = (size_t)(pad + 1);
        for (size_t t = 0; t < pass->spans[i].tokens; t++, row++) {
            bool pads = pad >= 0 && pass->sequences[i].ids[t] == pad;
            pass->sequence_of[row] = i;
            pass->position_of[row] = pads ? (size_t)pad : next++;
        }
    }
}

/* One block for all buffers; NULL when it is too large. */
static float *place_buffers(struct pass *pass)
{
    const struct assay_encoder_config *c = &pass->encoder->config;
    size_t inner = ASSAY_MAX(c->intermediate, c->hidden), each = 5 * c->hidden + inner, floats, parts;
    size_t attention =
        assay_attention_workspace(&pass->shape, pass->spans, pass->count, assay_pool_threads(pass->pool));
    /* Six parts, each rounded up to 64 bytes. */
    if (attention == 0 || __builtin_mul_overflow(pass->rows, each, &parts) ||
        __builtin_add_overflow(parts, attention + 7 * 16, &floats) || floats > SIZE_MAX / sizeof(float) / 2)
        return NULL;
    float *memory = aligned_alloc(64, (floats * sizeof *memory + 63) / 64 * 64), *at = memory;
    if (!memory)
        return NULL;
    float **const parts_of_hidden[] = {&pass->x, &pass->q, &pass->k, &pass->v, &pass->out};
    for (size_t i = 0; i < ASSAY_COUNT(parts_of_hidden); i++, at += (pass->rows * c->hidden + 15) / 16 * 16)
        *parts_of_hidden[i] = at;
    pass->inner = at;
    pass->attention = at + (pass->rows * inner + 15) / 16 * 16;
    return memory;
}

enum assay_status assay_encoder_forward(const struct assay_encoder *encoder, struct assay_pool *pool,
                                        const struct assay_encoder_sequence *sequences, size_t count,
                                        struct assay_err *err)
{
    const struct assay_encoder_config *c = &encoder->config;
    if (count == 0)
        return ASSAY_OK;
    assay_auto(assay_free_ptr) struct assay_attention_span *spans = calloc(count, sizeof *spans);
    if (!spans)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a batch of %zu sequences", count);
    struct pass pass = {.encoder = encoder, .pool = pool, .sequences = sequences, .spans = spans, .count = count};
    pass.shape = (struct assay_attention_shape){
        .heads = c->heads,
        .kv_heads = c->heads,
        .head_dim = c->hidden / c->heads,
        .scale = (float)(1 / sqrt((double)(c->hidden / c->heads))),
        .bidirectional = true,
        .bias = encoder->relative,
        .bias_reach = c->positions,
    };
    enum assay_status status = check_sequences(&pass, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_free_ptr) float *memory = place_buffers(&pass);
    assay_auto(assay_free_ptr) size_t *places = memory ? calloc(pass.rows, 2 * sizeof *places) : NULL;
    if (!places)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a batch of %zu tokens", pass.rows);
    pass.sequence_of = places;
    pass.position_of = places + pass.rows;
    place_rows(&pass);
    each_row(&pass, begin_row);
    for (size_t i = 0; i < c->layers; i++)
        run_layer(&pass, &encoder->layers[i]);
    each_row(&pass, finish_row);
    return ASSAY_OK;
}

enum assay_status assay_encoder_pooler(const struct assay_encoder *encoder, struct assay_pool *pool, const float *first,
                                       size_t rows, float *pooled, struct assay_err *err)
{
    if (!encoder->pooler.bias)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "the checkpoint has no pooler");
    const struct assay_vector_ops *ops = encoder->kernels->vector;
    size_t hidden = encoder->config.hidden;
    bool relu = encoder->config.labels > 0 && encoder->config.family->head.relu;
    multiply(encoder, pool, &encoder->pooler, rows, first, pooled);
    for (size_t row = 0; row < rows; row++) {
        if (relu)
            ops->relu(hidden, pooled + row * hidden);
        else
            ops->soft_cap(hidden, 1, 1, pooled + row * hidden); /* a cap of 1 is tanh */
    }
    return ASSAY_OK;
}

enum assay_status assay_encoder_scores(const struct assay_encoder *encoder, struct assay_pool *pool,
                                       const float *pooled, size_t rows, float *scores, struct assay_err *err)
{
    if (!encoder->classifier.bias)
        return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "the checkpoint has no classifier");
    multiply(encoder, pool, &encoder->classifier, rows, pooled, scores);
    return ASSAY_OK;
}

const struct assay_encoder_config *assay_encoder_config(const struct assay_encoder *encoder)
{
    return &encoder->config;
}

size_t assay_encoder_bytes(const struct assay_encoder *encoder)
{
    return encoder->bytes;
}
