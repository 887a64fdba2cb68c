/* One layer of a decoder. What a family does not have is absent from its row, and its step is left out. */
#include <string.h>

#include "common/nn/cache_impl.h"
#include "common/nn/pass.h"

void assay_pass_norm(const struct assay_pass *pass, const struct assay_norm_weights *norm, size_t n, const float *x,
                     float *y)
{
    const struct assay_vector_ops *ops = pass->model->kernels->vector;
    if (pass->model->config.norm == ASSAY_NORM_LAYER)
        ops->layernorm(n, x, norm->weight, norm->bias, norm->eps, y);
    else
        ops->rmsnorm(n, x, norm->weight, norm->eps, y);
}

static void norm_row(struct assay_pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    assay_pass_norm(pass, pass->norm, hidden, pass->x + row * hidden, pass->branch + row * hidden);
}

/* branch = norm(x); where a family has no norm of its own here, branch stays that of the norm before. */
static void norm_all(struct assay_pass *pass, enum assay_norm which)
{
    pass->norm = &pass->layer->norms[which];
    if (pass->norm->weight)
        assay_pass_rows(pass, norm_row);
}

static void norm_branch_row(struct assay_pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    float *branch = pass->branch + row * hidden;
    assay_pass_norm(pass, pass->norm, hidden, branch, branch);
}

static void add_row(struct assay_pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    float scale = pass->model->config.residual_scale;
    if (scale == 1)
        pass->model->kernels->vector->add(hidden, pass->branch + row * hidden, pass->x + row * hidden);
    else
        pass->model->kernels->vector->add_scaled(hidden, scale, pass->branch + row * hidden, pass->x + row * hidden);
}

/* branch = norm(branch) where the family has that norm, then x += branch */
static void add_all(struct assay_pass *pass, enum assay_norm out)
{
    pass->norm = &pass->layer->norms[out];
    if (pass->norm->weight)
        assay_pass_rows(pass, norm_branch_row);
    assay_pass_rows(pass, add_row);
}

static void add_other_row(struct assay_pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    pass->model->kernels->vector->add(hidden, pass->other + row * hidden, pass->x + row * hidden);
}

/* --- attention --- */

/* Takes q, k and v of a row out of what one product made. */
static void split_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t dim = c->head_dim, q = c->heads * dim, kv = c->kv_heads * dim;
    const float *from = pass->fused + row * (q + 2 * kv);
    float *parts[] = {pass->q + row * q, pass->k + row * kv, pass->v + row * kv};
    if (!c->family->qkv_by_head) {
        memcpy(parts[0], from, q * sizeof *from);
        memcpy(parts[1], from + q, kv * sizeof *from);
        memcpy(parts[2], from + q + kv, kv * sizeof *from);
        return;
    }
    for (size_t h = 0; h < c->heads; h++)
        for (size_t i = 0; i < 3; i++)
            memcpy(parts[i] + h * dim, from + (h * 3 + i) * dim, dim * sizeof *from);
}

/* The norm of each head, and the rotation of its position. */
static void turn_heads(const struct assay_pass *pass, size_t row, size_t heads, const struct assay_norm_weights *norm,
                       float *x)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t half = c->rotary_dim / 2;
    for (size_t h = 0; h < heads; h++) {
        float *head = x + (row * heads + h) * c->head_dim;
        if (norm->weight)
            assay_pass_norm(pass, norm, c->head_dim, head, head);
        if (half > 0)
            pass->model->kernels->vector->rope(half, pass->layer_cosine + row * half, pass->layer_sine + row * half,
                                               head);
    }
}

static void turn_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    turn_heads(pass, row, c->heads, &pass->layer->norms[ASSAY_NORM_Q], pass->q);
    turn_heads(pass, row, c->kv_heads, &pass->layer->norms[ASSAY_NORM_K], pass->k);
}

static void project(struct assay_pass *pass)
{
    size_t hidden = pass->model->config.hidden;
    if (pass->layer->linears[ASSAY_LINEAR_QKV].panels.n > 0) {
        assay_pass_multiply(pass, ASSAY_LINEAR_QKV, pass->branch, hidden, pass->fused);
        assay_pass_rows(pass, split_row);
    } else {
        const struct assay_pass_product products[] = {
            {ASSAY_LINEAR_Q, pass->q}, {ASSAY_LINEAR_K, pass->k}, {ASSAY_LINEAR_V, pass->v}};
        assay_pass_multiply_all(pass, products, ASSAY_COUNT(products), pass->branch, hidden);
    }
}

struct keeping {
    const struct assay_pass *pass;
    const struct assay_attention_shape *shape;
    size_t layer;
};

/* Keys and values of one sequence go into its cache. */
static void keep_sequence(void *arg, size_t index, size_t thread)
{
    (void)thread;
    const struct keeping *work = arg;
    const struct assay_pass *pass = work->pass;
    const struct assay_attention_growth *growth = &pass->growths[index];
    size_t width = work->shape->value_dim ? work->shape->value_dim : work->shape->head_dim;
    assay_kv_put(work->shape, &pass->sequences[index].cache->kv[work->layer], growth->past, growth->tokens,
                 pass->k + growth->first * work->shape->kv_heads * work->shape->head_dim,
                 pass->v + growth->first * work->shape->kv_heads * width);
}

static void attend_growing(struct assay_pass *pass, size_t index, const struct assay_attention_shape *shape)
{
    struct keeping keeping = {pass, shape, index};
    assay_pool_run(pass->pool, pass->count, keep_sequence, &keeping);
    for (size_t i = 0; i < pass->count; i++)
        pass->growths[i].kv = &pass->sequences[i].cache->kv[index];
    assay_attention_grow(pass->model->kernels, pass->pool, shape, pass->growths, pass->count, pass->q, pass->out,
                         pass->attention);
}

/* to = attention of branch */
static void attend(struct assay_pass *pass, size_t index, float *to)
{
    const struct assay_model_config *c = &pass->model->config;
    struct assay_attention_shape shape = pass->shape;
    shape.window = c->windowed[index] ? c->window : 0;
    if (c->attention_scale_by_layer)
        shape.scale = (float)(c->attention_scale / (double)(index + 1));
    if (c->latent.kv_rank > 0) {
        assay_pass_latent(pass);
    } else {
        project(pass);
        assay_pass_rows(pass, turn_row);
    }
    if (pass->growths)
        attend_growing(pass, index, &shape);
    else
        assay_attention(pass->model->kernels, pass->pool, &shape, pass->spans, pass->count, pass->q, pass->k, pass->v,
                        pass->out, pass->attention);
    assay_pass_multiply(pass, ASSAY_LINEAR_O, pass->out, c->heads * c->value_dim, to);
}

/* --- MLP --- */

static void activate(const struct assay_pass *pass, size_t n, float *x)
{
    const struct assay_vector_ops *ops = pass->model->kernels->vector;
    switch (pass->model->config.activation) {
    case ASSAY_ACTIVATION_SILU:
        ops->silu(n, x);
        break;
    case ASSAY_ACTIVATION_GELU:
        ops->gelu(n, x);
        break;
    case ASSAY_ACTIVATION_GELU_TANH:
        ops->gelu_tanh(n, x);
        break;
    case ASSAY_ACTIVATION_RELU:
        ops->relu(n, x);
        break;
    }
}

void assay_pass_gate(const struct assay_pass *pass, size_t n, float *gate, const float *up)
{
    const struct assay_vector_ops *ops = pass->model->kernels->vector;
    if (pass->model->config.activation == ASSAY_ACTIVATION_SILU) {
        ops->silu_gate(n, gate, up);
        return;
    }
    activate(pass, n, gate);
    ops->multiply(n, up, gate);
}

static void gate_row(struct assay_pass *pass, size_t row)
{
    size_t n = pass->model->config.intermediate;
    assay_pass_gate(pass, n, pass->gate + row * n, pass->up + row * n);
}

static void gate_fused_row(struct assay_pass *pass, size_t row)
{
    size_t n = pass->model->config.intermediate;
    float *both = pass->gate + row * 2 * n;
    assay_pass_gate(pass, n, both, both + n);
}

static void activate_row(struct assay_pass *pass, size_t row)
{
    size_t n = pass->model->config.intermediate;
    activate(pass, n, pass->up + row * n);
}

/* branch = MLP(branch) */
static void run_mlp(struct assay_pass *pass)
{
    const struct assay_linear_weights *linears = pass->layer->linears;
    size_t hidden = pass->model->config.hidden, n = pass->model->config.intermediate;
    if (pass->layer->experts) {
        assay_pass_experts(pass);
        return;
    }
    if (linears[ASSAY_LINEAR_GATE_UP].panels.n > 0) {
        assay_pass_multiply(pass, ASSAY_LINEAR_GATE_UP, pass->branch, hidden, pass->gate);
        assay_pass_rows(pass, gate_fused_row);
        assay_pass_multiply(pass, ASSAY_LINEAR_DOWN, pass->gate, 2 * n, pass->branch);
        return;
    }
    const struct assay_pass_product products[] = {{ASSAY_LINEAR_UP, pass->up}, {ASSAY_LINEAR_GATE, pass->gate}};
    if (linears[ASSAY_LINEAR_GATE].panels.n > 0) {
        assay_pass_multiply_all(pass, products, ASSAY_COUNT(products), pass->branch, hidden);
        assay_pass_rows(pass, gate_row);
        assay_pass_multiply(pass, ASSAY_LINEAR_DOWN, pass->gate, n, pass->branch);
    } else {
        assay_pass_multiply(pass, ASSAY_LINEAR_UP, pass->branch, hidden, pass->up);
        assay_pass_rows(pass, activate_row);
        assay_pass_multiply(pass, ASSAY_LINEAR_DOWN, pass->up, n, pass->branch);
    }
}

void assay_pass_layer(struct assay_pass *pass, size_t index)
{
    const struct assay_model_config *c = &pass->model->config;
    bool local = c->family->local_rope && c->windowed[index];
    pass->layer = &pass->model->layers[index];
    pass->layer_cosine = local ? pass->local_cosine : pass->cosine;
    pass->layer_sine = local ? pass->local_sine : pass->sine;
    norm_all(pass, ASSAY_NORM_ATTENTION);
    if (c->parallel_residual) {
        attend(pass, index, pass->other);
        norm_all(pass, ASSAY_NORM_MLP);
        run_mlp(pass);
        assay_pass_rows(pass, add_other_row);
        assay_pass_rows(pass, add_row);
        return;
    }
    attend(pass, index, pass->branch);
    add_all(pass, ASSAY_NORM_ATTENTION_OUT);
    norm_all(pass, ASSAY_NORM_MLP);
    run_mlp(pass);
    add_all(pass, ASSAY_NORM_MLP_OUT);
}
