/* The forward pass: rows of all sequences of a batch are stacked for the products; attention runs within each sequence.
 */
#include <math.h>
#include <stdlib.h>

#include "common/nn/model_impl.h"
#include "common/nn/rope.h"

/* Rows of one piece of work where rows are independent. */
#define ROWS 16

struct pass {
    const struct assay_model *model;
    struct assay_pool *pool;
    const struct assay_sequence *sequences;
    size_t count, rows;
    struct assay_attention_span *spans; /* [count] */
    struct assay_attention_shape shape;
    float *x;               /* [rows, hidden]: the residual stream */
    float *branch;          /* [rows, hidden]: what a product reads from or adds to it */
    float *q, *k, *v, *out; /* [rows, heads or kv_heads * head_dim] */
    float *gate, *up;       /* [rows, intermediate] */
    float *cosine, *sine;   /* [rows, head_dim / 2] */
    float *inverse;         /* [count, head_dim / 2] */
    float *attention;
    const float *norm; /* weights of the norm under way */
};

typedef void (*row_fn)(struct pass *pass, size_t row);

struct row_work {
    struct pass *pass;
    row_fn fn;
};

static void run_rows(void *arg, size_t index, size_t thread)
{
    (void)thread;
    struct row_work *work = arg;
    size_t end = ASSAY_MIN((index + 1) * ROWS, work->pass->rows);
    for (size_t row = index * ROWS; row < end; row++)
        work->fn(work->pass, row);
}

static void each_row(struct pass *pass, row_fn fn)
{
    struct row_work work = {pass, fn};
    assay_pool_run(pass->pool, (pass->rows + ROWS - 1) / ROWS, run_rows, &work);
}

static size_t sequence_of(const struct pass *pass, size_t row)
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

/* The embedding of the row's token, and the rotation of its position. */
static void begin_row(struct pass *pass, size_t row)
{
    const struct assay_model *model = pass->model;
    size_t sequence = sequence_of(pass, row), position = row - pass->spans[sequence].first;
    size_t hidden = model->config.hidden, half = model->config.head_dim / 2;
    size_t id = (size_t)pass->sequences[sequence].ids[position];
    const unsigned char *from =
        (const unsigned char *)model->embedding + id * hidden * assay_dtype_bytes(model->embedding_dtype);
    assay_dtype_to_f32(model->embedding_dtype, from, hidden, pass->x + row * hidden);
    assay_rope_row(position, half, pass->inverse + sequence * half, pass->cosine + row * half, pass->sine + row * half);
}

static void norm_row(struct pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    pass->model->kernels->vector->rmsnorm(hidden, pass->x + row * hidden, pass->norm, pass->model->config.norm_eps,
                                          pass->branch + row * hidden);
}

static void add_row(struct pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    pass->model->kernels->vector->add(hidden, pass->branch + row * hidden, pass->x + row * hidden);
}

static void rotate_row(struct pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t half = c->head_dim / 2;
    const float *cosine = pass->cosine + row * half, *sine = pass->sine + row * half;
    for (size_t h = 0; h < c->heads; h++)
        pass->model->kernels->vector->rope(half, cosine, sine, pass->q + (row * c->heads + h) * c->head_dim);
    for (size_t h = 0; h < c->kv_heads; h++)
        pass->model->kernels->vector->rope(half, cosine, sine, pass->k + (row * c->kv_heads + h) * c->head_dim);
}

static void gate_row(struct pass *pass, size_t row)
{
    size_t n = pass->model->config.intermediate;
    pass->model->kernels->vector->silu_gate(n, pass->gate + row * n, pass->up + row * n);
}

static void finish_row(struct pass *pass, size_t row)
{
    size_t sequence = sequence_of(pass, row), position = row - pass->spans[sequence].first;
    const struct assay_sequence *s = &pass->sequences[sequence];
    size_t hidden = pass->model->config.hidden;
    if (position >= s->begin && position < s->end)
        pass->model->kernels->vector->rmsnorm(hidden, pass->x + row * hidden, pass->norm, pass->model->config.norm_eps,
                                              s->hidden + (position - s->begin) * hidden);
}

void assay_model_gemm(const struct assay_model *model, struct assay_pool *pool, size_t rows, const float *from,
                      const struct assay_panels *w, const float *bias, float *to)
{
    if (model->config.compute_bf16)
        assay_gemm_bf16(model->kernels, pool, rows, from, w->k, w, bias, to, w->n);
    else
        assay_gemm(model->kernels, pool, rows, from, w->k, w, bias, to, w->n);
}

static void multiply(struct pass *pass, const struct assay_layer *layer, enum assay_linear which, const float *from,
                     float *to)
{
    const struct assay_linear_weights *w = &layer->linears[which];
    assay_model_gemm(pass->model, pass->pool, pass->rows, from, &w->panels, w->bias, to);
}

static void run_layer(struct pass *pass, const struct assay_layer *layer)
{
    pass->norm = layer->attention_norm;
    each_row(pass, norm_row);
    multiply(pass, layer, ASSAY_LINEAR_Q, pass->branch, pass->q);
    multiply(pass, layer, ASSAY_LINEAR_K, pass->branch, pass->k);
    multiply(pass, layer, ASSAY_LINEAR_V, pass->branch, pass->v);
    each_row(pass, rotate_row);
    assay_attention(pass->model->kernels, pass->pool, &pass->shape, pass->spans, pass->count, pass->q, pass->k, pass->v,
                    pass->out, pass->attention);
    multiply(pass, layer, ASSAY_LINEAR_O, pass->out, pass->branch);
    each_row(pass, add_row);
    pass->norm = layer->mlp_norm;
    each_row(pass, norm_row);
    multiply(pass, layer, ASSAY_LINEAR_GATE, pass->branch, pass->gate);
    multiply(pass, layer, ASSAY_LINEAR_UP, pass->branch, pass->up);
    each_row(pass, gate_row);
    multiply(pass, layer, ASSAY_LINEAR_DOWN, pass->gate, pass->branch);
    each_row(pass, add_row);
}

static enum assay_status check_sequences(struct pass *pass, struct assay_err *err)
{
    const struct assay_model_config *c = &pass->model->config;
    for (size_t i = 0; i < pass->count; i++) {
        const struct assay_sequence *s = &pass->sequences[i];
        if (s->tokens < 1 || s->tokens > c->positions_max)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu has %zu tokens, the model takes 1 to %zu", i,
                                 s->tokens, c->positions_max);
        if (s->begin > s->end || s->end > s->tokens)
            return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu: rows %zu to %zu of %zu", i, s->begin, s->end,
                                 s->tokens);
        for (size_t t = 0; t < s->tokens; t++)
            if (s->ids[t] < 0 || (size_t)s->ids[t] >= c->vocab)
                return assay_err_set(err, ASSAY_OUT_OF_RANGE, "sequence %zu: id %d at position %zu, the model has %zu",
                                     i, (int)s->ids[t], t, c->vocab);
        pass->spans[i] = (struct assay_attention_span){pass->rows, s->tokens};
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
static size_t place_buffers(struct pass *pass, float *base)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t rows = pass->rows, used = 0, half = c->head_dim / 2;
    bool overflow = false;
    pass->x = part(base, &used, rows, c->hidden, &overflow);
    pass->branch = part(base, &used, rows, c->hidden, &overflow);
    pass->q = part(base, &used, rows, c->heads * c->head_dim, &overflow);
    pass->k = part(base, &used, rows, c->kv_heads * c->head_dim, &overflow);
    pass->v = part(base, &used, rows, c->kv_heads * c->head_dim, &overflow);
    pass->out = part(base, &used, rows, c->heads * c->head_dim, &overflow);
    pass->gate = part(base, &used, rows, c->intermediate, &overflow);
    pass->up = part(base, &used, rows, c->intermediate, &overflow);
    pass->cosine = part(base, &used, rows, half, &overflow);
    pass->sine = part(base, &used, rows, half, &overflow);
    pass->inverse = part(base, &used, pass->count, half, &overflow);
    size_t attention =
        assay_attention_workspace(&pass->shape, pass->spans, pass->count, assay_pool_threads(pass->pool));
    pass->attention = part(base, &used, attention, 1, &overflow);
    return overflow || attention == 0 || used > SIZE_MAX / sizeof(float) ? 0 : used;
}

static enum assay_status run_layers(struct pass *pass, const volatile bool *cancel, struct assay_err *err)
{
    const struct assay_model *model = pass->model;
    for (size_t i = 0; i < pass->count; i++)
        assay_rope_inverse(&model->config, pass->spans[i].tokens, pass->inverse + i * (model->config.head_dim / 2));
    each_row(pass, begin_row);
    for (size_t i = 0; i < model->config.layers; i++) {
        if (cancel && *cancel)
            return assay_err_set(err, ASSAY_CANCELLED, "cancelled before layer %zu of %zu", i, model->config.layers);
        run_layer(pass, &model->layers[i]);
    }
    pass->norm = model->final_norm;
    each_row(pass, finish_row);
    return ASSAY_OK;
}

enum assay_status assay_model_forward(const struct assay_model *model, struct assay_pool *pool,
                                      const struct assay_sequence *sequences, size_t count, const volatile bool *cancel,
                                      struct assay_err *err)
{
    const struct assay_model_config *c = &model->config;
    if (count == 0)
        return ASSAY_OK;
    assay_auto(assay_free_ptr) struct assay_attention_span *spans = calloc(count, sizeof *spans);
    if (!spans)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a batch of %zu sequences", count);
    struct pass pass = {.model = model, .pool = pool, .sequences = sequences, .count = count, .spans = spans};
    pass.shape =
        (struct assay_attention_shape){c->heads, c->kv_heads, c->head_dim, (float)(1 / sqrt((double)c->head_dim))};
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
