/* The forward pass: buffers, embeddings, the layers one by one, the final norm. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/nn/cache_impl.h"
#include "common/nn/pass.h"
#include "common/nn/rope.h"

/* Rows of one piece of work where rows are independent. */
#define ROWS 16

struct row_work {
    struct assay_pass *pass;
    assay_row_fn fn;
};

static void run_rows(void *arg, size_t index, size_t thread)
{
    (void)thread;
    struct row_work *work = arg;
    size_t end = ASSAY_MIN((index + 1) * ROWS, work->pass->rows);
    for (size_t row = index * ROWS; row < end; row++)
        work->fn(work->pass, row);
}

void assay_pass_rows(struct assay_pass *pass, assay_row_fn fn)
{
    struct row_work work = {pass, fn};
    assay_pool_run(pass->pool, (pass->rows + ROWS - 1) / ROWS, run_rows, &work);
}

static size_t sequence_of(const struct assay_pass *pass, size_t row)
{
    size_t low = 0, high = pass->count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (pass->spans[middle].first <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void read_embedding(enum assay_dtype dtype, const void *table, size_t index, size_t n, float *to)
{
    const unsigned char *from = (const unsigned char *)table + index * n * assay_dtype_bytes(dtype);
    assay_dtype_to_f32(dtype, from, n, to);
}

/* Cosines and sines of the row's position, times the factor that some ropes have. */
static void turn_position(const struct assay_pass *pass, const struct assay_rope *rope, size_t position,
                          const float *inverse, float *cosine, float *sine)
{
    const struct assay_vector_ops *ops = pass->model->kernels->vector;
    size_t half = pass->model->config.rotary_dim / 2;
    assay_rope_row(position, half, inverse, cosine, sine);
    if (rope->attention_factor != 1) {
        ops->scale(half, (float)rope->attention_factor, cosine);
        ops->scale(half, (float)rope->attention_factor, sine);
    }
}

/* Tokens that come before the rows of a sequence. */
static size_t past_of(const struct assay_pass *pass, size_t sequence)
{
    return pass->growths ? pass->growths[sequence].past : 0;
}

/* The embedding of the row's token, and the rotation or the embedding of its position. */
static void begin_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model *model = pass->model;
    const struct assay_model_config *c = &model->config;
    size_t sequence = sequence_of(pass, row), index = row - pass->spans[sequence].first;
    size_t position = past_of(pass, sequence) + index;
    size_t hidden = c->hidden, half = c->rotary_dim / 2, at = row * half, inverse = sequence * half;
    float *x = pass->x + row * hidden;
    read_embedding(model->embedding_dtype, model->embedding, (size_t)pass->sequences[sequence].ids[index], hidden, x);
    if (c->embedding_scale != 1)
        model->kernels->vector->scale(hidden, c->embedding_scale, x);
    if (model->positions) {
        /* The room of the layers' results is free until the first layer. */
        read_embedding(model->positions_dtype, model->positions, position, hidden, pass->branch + row * hidden);
        model->kernels->vector->add(hidden, pass->branch + row * hidden, x);
    }
    if (half > 0)
        turn_position(pass, &c->rope, position, pass->inverse + inverse, pass->cosine + at, pass->sine + at);
    if (c->family->local_rope)
        turn_position(pass, &c->local_rope, position, pass->local_inverse + inverse, pass->local_cosine + at,
                      pass->local_sine + at);
}

static void finish_row(struct assay_pass *pass, size_t row)
{
    size_t sequence = sequence_of(pass, row), position = row - pass->spans[sequence].first;
    const struct assay_sequence *s = &pass->sequences[sequence];
    size_t hidden = pass->model->config.hidden;
    if (position >= s->begin && position < s->end)
        assay_pass_norm(pass, pass->norm, hidden, pass->x + row * hidden, s->hidden + (position - s->begin) * hidden);
}

void assay_model_gemm(const struct assay_model *model, struct assay_pool *pool, size_t rows, const float *from,
                      size_t stride, const struct assay_panels *w, const float *bias, float *to)
{
    if (model->config.compute_bf16)
        assay_gemm_bf16(model->kernels, pool, rows, from, stride, w, bias, to, w->n);
    else
        assay_gemm(model->kernels, pool, rows, from, stride, w, bias, to, w->n);
}

void assay_pass_multiply_all(struct assay_pass *pass, const struct assay_pass_product *products, size_t count,
                             const float *from, size_t stride)
{
    struct assay_product all[ASSAY_LINEARS];
    for (size_t i = 0; i < count; i++) {
        const struct assay_linear_weights *w = &pass->layer->linears[products[i].which];
        all[i] = (struct assay_product){&w->panels, w->bias, products[i].to, w->panels.n};
    }
    assay_gemm_several(pass->model->kernels, pass->pool, pass->rows, from, stride, all, count,
                       pass->model->config.compute_bf16);
}

void assay_pass_multiply(struct assay_pass *pass, enum assay_linear which, const float *from, size_t stride, float *to)
{
    assay_pass_multiply_all(pass, &(struct assay_pass_product){which, to}, 1, from, stride);
}

static enum assay_status check_sequences(struct assay_pass *pass, struct assay_err *err)
{
    const struct assay_model_config *c = &pass->model->config;
    for (size_t i = 0; i < pass->count; i++) {
        const struct assay_sequence *s = &pass->sequences[i];
        size_t past = s->cache ? s->cache->tokens : 0, room = s->cache ? s->cache->tokens_max : c->positions_max;
        if (s->tokens < 1 || s->tokens > room - past)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE,
                                 "sequence %zu has %zu tokens behind %zu, the %s takes 1 to %zu", i, s->tokens, past,
                                 s->cache ? "cache" : "model", room);
        if (!s->cache != !pass->sequences[0].cache)
            return assay_err_set(err, ASSAY_INTERNAL, "sequence %zu has %s cache, the first one %s", i,
                                 s->cache ? "a" : "no", s->cache ? "none" : "one");
        if (s->begin > s->end || s->end > s->tokens)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu: rows %zu to %zu of %zu", i, s->begin, s->end,
                                 s->tokens);
        for (size_t t = 0; t < s->tokens; t++)
            if (s->ids[t] < 0 || (size_t)s->ids[t] >= c->vocab)
                return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu: id %d at position %zu, the model has %zu",
                                     i, (int)s->ids[t], t, c->vocab);
        pass->spans[i] = (struct assay_attention_span){pass->rows, s->tokens};
        if (pass->growths)
            pass->growths[i] = (struct assay_attention_growth){pass->rows, s->tokens, past, NULL};
        if (__builtin_add_overflow(pass->rows, s->tokens, &pass->rows))
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "a batch of more tokens than memory could hold");
    }
    return ASSAY_OK;
}

/* Hands out n x each floats of the one block; 64-byte aligned parts. With base NULL it only counts. */
static float *part(float *base, size_t *used, size_t n, size_t each, bool *overflow)
{
    size_t floats, begin = *used;
    *overflow |= __builtin_mul_overflow(n, each, &floats) || __builtin_add_overflow(floats, 15, &floats) ||
                 __builtin_add_overflow(*used, floats / 16 * 16, used);
    return base && !*overflow ? base + begin : NULL;
}

/* Floats of all buffers; with base they are placed in it. 0 on overflow. */
static size_t place_buffers(struct assay_pass *pass, float *base)
{
    const struct assay_model_config *c = &pass->model->config;
    const char *const *linears = c->family->linears;
    size_t rows = pass->rows, used = 0, half = c->rotary_dim / 2, local = c->family->local_rope ? half : 0;
    size_t q = c->heads * c->head_dim, k = c->kv_heads * c->head_dim, v = c->kv_heads * c->value_dim, gates = 2;
    size_t latent = c->latent.kv_rank ? ASSAY_MAX(c->latent.q_rank, c->latent.kv_rank + c->rotary_dim) : 0;
    size_t fused = linears[ASSAY_LINEAR_QKV] || latent ? q + k + v : 0;
    size_t width = ASSAY_MAX(c->intermediate, c->experts.shared * c->experts.intermediate);
    size_t other = c->parallel_residual || c->experts.count ? c->hidden : 0;
    bool overflow = false;
    if (linears[ASSAY_LINEAR_GATE] || linears[ASSAY_LINEAR_UP])
        gates = linears[ASSAY_LINEAR_GATE] ? 1 : 0;
    pass->x = part(base, &used, rows, c->hidden, &overflow);
    pass->branch = part(base, &used, rows, c->hidden, &overflow);
    pass->other = part(base, &used, rows, other, &overflow);
    pass->q = part(base, &used, rows, q, &overflow);
    pass->k = part(base, &used, rows, k, &overflow);
    pass->v = part(base, &used, rows, v, &overflow);
    pass->fused = part(base, &used, rows, fused, &overflow);
    pass->latent = part(base, &used, rows, latent, &overflow);
    pass->out = part(base, &used, rows, c->heads * c->value_dim, &overflow);
    pass->gate = part(base, &used, rows, gates * width, &overflow);
    pass->up = part(base, &used, rows, linears[ASSAY_LINEAR_UP] ? width : 0, &overflow);
    pass->scores = part(base, &used, rows, c->experts.count, &overflow);
    pass->picked = part(base, &used, rows, c->experts.count ? c->hidden : 0, &overflow);
    pass->chosen = (unsigned char *)part(base, &used, rows, c->experts.count, &overflow);
    pass->cosine = part(base, &used, rows, half, &overflow);
    pass->sine = part(base, &used, rows, half, &overflow);
    pass->local_cosine = part(base, &used, rows, local, &overflow);
    pass->local_sine = part(base, &used, rows, local, &overflow);
    pass->inverse = part(base, &used, pass->count, half, &overflow);
    pass->local_inverse = part(base, &used, pass->count, local, &overflow);
    size_t attention;
    if (pass->growths)
        attention = assay_attention_growth_workspace(&pass->shape, pass->growths, pass->count, pass->threads);
    else
        attention = assay_attention_workspace(&pass->shape, pass->spans, pass->count, pass->threads);
    pass->attention = part(base, &used, attention, 1, &overflow);
    return overflow || attention == 0 || used > SIZE_MAX / sizeof(float) ? 0 : used;
}

static enum assay_status run_layers(struct assay_pass *pass, const volatile bool *cancel, struct assay_err *err)
{
    const struct assay_model *model = pass->model;
    const struct assay_model_config *c = &model->config;
    size_t half = c->rotary_dim / 2;
    for (size_t i = 0; i < pass->count && half > 0; i++) {
        size_t tokens = past_of(pass, i) + pass->spans[i].tokens;
        assay_rope_inverse(&c->rope, c->rotary_dim, tokens, pass->inverse + i * half);
        if (c->family->local_rope)
            assay_rope_inverse(&c->local_rope, c->rotary_dim, tokens, pass->local_inverse + i * half);
    }
    assay_pass_rows(pass, begin_row);
    for (size_t i = 0; i < c->layers; i++) {
        if (cancel && *cancel)
            return assay_err_set(err, ASSAY_CANCELLED, "cancelled before layer %zu of %zu", i, c->layers);
        if (pass->inputs)
            memcpy(pass->inputs + i * pass->rows * c->hidden, pass->x, pass->rows * c->hidden * sizeof *pass->x);
        assay_pass_layer(pass, i);
    }
    pass->norm = &model->final_norm;
    assay_pass_rows(pass, finish_row);
    for (size_t i = 0; pass->growths && i < pass->count; i++)
        pass->sequences[i].cache->tokens += pass->spans[i].tokens;
    return ASSAY_OK;
}

struct assay_attention_shape assay_model_attention_shape(const struct assay_model_config *config)
{
    return (struct assay_attention_shape){
        .heads = config->heads,
        .kv_heads = config->kv_heads,
        .head_dim = config->head_dim,
        .value_dim = config->value_dim,
        .scale = (float)config->attention_scale,
        .soft_cap = config->attention_cap,
    };
}

size_t assay_model_forward_bytes(const struct assay_model_config *config, size_t tokens, size_t threads)
{
    const struct assay_model model = {.config = *config};
    struct assay_attention_span span = {0, tokens};
    struct assay_pass pass = {.model = &model, .count = 1, .rows = tokens, .spans = &span, .threads = threads};
    pass.shape = assay_model_attention_shape(config);
    return place_buffers(&pass, NULL) * sizeof(float);
}

static enum assay_status forward(const struct assay_model *model, struct assay_pool *pool,
                                 const struct assay_sequence *sequences, size_t count, const volatile bool *cancel,
                                 float *inputs, struct assay_err *err)
{
    const struct assay_model_config *c = &model->config;
    if (count == 0)
        return ASSAY_OK;
    assay_auto(assay_free_ptr) struct assay_attention_span *spans = calloc(count, sizeof *spans);
    assay_auto(assay_free_ptr) struct assay_attention_growth *growths = calloc(count, sizeof *growths);
    if (!spans || !growths)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a batch of %zu sequences", count);
    struct assay_pass pass = {.model = model, .pool = pool, .sequences = sequences, .count = count, .spans = spans};
    pass.inputs = inputs;
    pass.threads = assay_pool_threads(pool);
    pass.growths = sequences[0].cache ? growths : NULL;
    pass.shape = assay_model_attention_shape(c);
    enum assay_status status = check_sequences(&pass, err);
    if (status != ASSAY_OK)
        return status;
    size_t floats = place_buffers(&pass, NULL);
    assay_auto(assay_free_ptr) float *memory = floats ? aligned_alloc(64, floats * sizeof *memory) : NULL;
    if (!memory)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a batch of %zu tokens", pass.rows);
    place_buffers(&pass, memory);
    return run_layers(&pass, cancel, err);
}

enum assay_status assay_model_forward(const struct assay_model *model, struct assay_pool *pool,
                                      const struct assay_sequence *sequences, size_t count, const volatile bool *cancel,
                                      struct assay_err *err)
{
    return forward(model, pool, sequences, count, cancel, NULL, err);
}

enum assay_status assay_model_forward_layers(const struct assay_model *model, struct assay_pool *pool,
                                             const struct assay_sequence *sequence, float *inputs,
                                             struct assay_err *err)
{
    return forward(model, pool, sequence, 1, NULL, inputs, err);
}
