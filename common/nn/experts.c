/* A layer whose MLP is many small ones: each row goes to those that its scores choose, and all rows to the shared one.
 * A row's sum runs over its experts in their order, so that it does not depend on the company in a batch. */
#include <math.h>
#include <string.h>

#include "common/nn/pass.h"

/* Marks the `wanted` largest of n by 1, the first of equals before the others; where NaN stands, the first ones. */
static void mark_largest(const float *x, size_t n, size_t wanted, unsigned char *marks)
{
    memset(marks, 0, n);
    for (size_t i = 0; i < wanted; i++) {
        size_t best = SIZE_MAX;
        for (size_t j = 0; j < n; j++)
            if (!marks[j] && (best == SIZE_MAX || x[j] > x[best]))
                best = j;
        marks[best] = 1;
    }
}

/* The sum of the two largest of n >= 2. */
static float largest_two(const float *x, size_t n)
{
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return first + second;
}

/* Groups of experts are chosen by the sum of their two best, then experts of these groups. scores[experts] of the row
 * become the weights of those chosen, 0 for others; the correction has a say in the choice only. */
static void choose_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    const float *correction = pass->layer->experts->correction;
    size_t count = c->experts.count, groups = c->experts.groups, each = count / groups;
    float *scores = pass->scores + row * count, sum = 0;
    float choice[ASSAY_MODEL_EXPERTS_MAX] = {0}, sums[ASSAY_MODEL_EXPERTS_MAX] = {0};
    unsigned char marks[ASSAY_MODEL_EXPERTS_MAX];
    for (size_t i = 0; i < count; i++)
        choice[i] = -scores[i];
    pass->model->kernels->vector->exp(count, choice, choice);
    for (size_t i = 0; i < count; i++) {
        scores[i] = 1.0f / (1.0f + choice[i]);
        choice[i] = scores[i] + correction[i];
    }
    for (size_t g = 0; g < groups; g++)
        sums[g] = largest_two(choice + g * each, each);
    mark_largest(sums, groups, c->experts.groups_used, marks);
    for (size_t i = 0; i < count; i++)
        choice[i] = marks[i / each] ? choice[i] : -INFINITY;
    mark_largest(choice, count, c->experts.used, marks);
    for (size_t i = 0; i < count; i++)
        sum += marks[i] ? scores[i] : 0;
    float divisor = c->experts.normalized ? sum + 1e-20f : 1;
    for (size_t i = 0; i < count; i++)
        scores[i] = marks[i] ? scores[i] / divisor * c->experts.scale : 0;
    memcpy(pass->chosen + row * count, marks, count);
}

static void gate_row(struct assay_pass *pass, size_t row)
{
    assay_pass_gate(pass, pass->width, pass->gate + row * pass->width, pass->up + row * pass->width);
}

/* to[rows, hidden] = the MLP of from[rows, hidden] */
static void run_mlp(struct assay_pass *pass, const struct assay_mlp_weights *mlp, const float *from, float *to)
{
    const struct assay_model *model = pass->model;
    size_t hidden = model->config.hidden;
    pass->width = mlp->up.panels.n;
    const struct assay_product products[] = {{&mlp->gate.panels, mlp->gate.bias, pass->gate, pass->width},
                                             {&mlp->up.panels, mlp->up.bias, pass->up, pass->width}};
    assay_gemm_several(model->kernels, pass->pool, pass->rows, from, hidden, products, ASSAY_COUNT(products),
                       model->config.compute_bf16);
    assay_pass_rows(pass, gate_row);
    assay_model_gemm(model, pass->pool, pass->rows, pass->gate, pass->width, &mlp->down.panels, mlp->down.bias, to);
}

/* other += expert `index` of those rows of branch that chose it, times their weight */
static void run_expert(struct assay_pass *pass, size_t index)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t hidden = c->hidden, count = 0;
    for (size_t row = 0; row < pass->rows; row++)
        if (pass->chosen[row * c->experts.count + index])
            memcpy(pass->picked + count++ * hidden, pass->branch + row * hidden, hidden * sizeof *pass->picked);
    if (count == 0)
        return;
    struct assay_pass some = *pass;
    some.rows = count;
    run_mlp(&some, &pass->layer->experts->each[index], pass->picked, pass->picked);
    count = 0;
    for (size_t row = 0; row < pass->rows; row++)
        if (pass->chosen[row * c->experts.count + index])
            pass->model->kernels->vector->add_scaled(hidden, pass->scores[row * c->experts.count + index],
                                                     pass->picked + count++ * hidden, pass->other + row * hidden);
}

static void add_row(struct assay_pass *pass, size_t row)
{
    size_t hidden = pass->model->config.hidden;
    pass->model->kernels->vector->add(hidden, pass->other + row * hidden, pass->branch + row * hidden);
}

void assay_pass_experts(struct assay_pass *pass)
{
    const struct assay_model *model = pass->model;
    const struct assay_experts *experts = pass->layer->experts;
    size_t hidden = model->config.hidden;
    /* Which experts a row has is decided in f32, whatever the products of the others are rounded to. */
    assay_gemm(model->kernels, pass->pool, pass->rows, pass->branch, hidden, &experts->router, NULL, pass->scores,
               experts->router.n);
    assay_pass_rows(pass, choose_row);
    memset(pass->other, 0, pass->rows * hidden * sizeof *pass->other);
    for (size_t i = 0; i < model->config.experts.count; i++)
        run_expert(pass, i);
    run_mlp(pass, &experts->shared, pass->branch, pass->branch);
    assay_pass_rows(pass, add_row);
}
