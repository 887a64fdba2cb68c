/* Attention whose keys and values come from a latent of low rank (MLA). A head's query and key consist of a part that
 * does not rotate and one that does; the rotating part of the keys is the same for all heads. */
#include <string.h>

#include "common/nn/pass.h"

/* Rotates n elements that lie as pairs side by side, or as first halves before second halves, into the latter order. */
static void turn(const struct assay_pass *pass, size_t row, const float *from, float *to)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t half = c->rotary_dim / 2;
    if (c->latent.interleaved) {
        for (size_t i = 0; i < half; i++) {
            to[i] = from[2 * i];
            to[half + i] = from[2 * i + 1];
        }
    } else {
        memcpy(to, from, 2 * half * sizeof *to);
    }
    pass->model->kernels->vector->rope(half, pass->layer_cosine + row * half, pass->layer_sine + row * half, to);
}

static void norm_queries_row(struct assay_pass *pass, size_t row)
{
    size_t rank = pass->model->config.latent.q_rank;
    float *latent = pass->latent + row * rank;
    assay_pass_norm(pass, &pass->layer->norms[ASSAY_NORM_Q_LATENT], rank, latent, latent);
}

static void norm_keys_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    float *latent = pass->latent + row * (c->latent.kv_rank + c->rotary_dim);
    assay_pass_norm(pass, &pass->layer->norms[ASSAY_NORM_KV_LATENT], c->latent.kv_rank, latent, latent);
}

/* q is turned in place; k and v are put together from the expanded latent and the part of the keys that rotates. */
static void assemble_row(struct assay_pass *pass, size_t row)
{
    const struct assay_model_config *c = &pass->model->config;
    size_t rotary = c->rotary_dim, fixed = c->head_dim - rotary, wide = c->value_dim;
    const float *expanded = pass->fused + row * c->heads * (fixed + wide);
    const float *key = pass->latent + row * (c->latent.kv_rank + rotary) + c->latent.kv_rank;
    float turned[2 * ASSAY_ROPE_PAIRS_MAX], turned_key[2 * ASSAY_ROPE_PAIRS_MAX];
    turn(pass, row, key, turned_key);
    for (size_t h = 0; h < c->heads; h++) {
        float *q = pass->q + (row * c->heads + h) * c->head_dim + fixed;
        float *k = pass->k + (row * c->heads + h) * c->head_dim;
        turn(pass, row, q, turned);
        memcpy(q, turned, rotary * sizeof *q);
        memcpy(k, expanded + h * (fixed + wide), fixed * sizeof *k);
        memcpy(k + fixed, turned_key, rotary * sizeof *k);
        memcpy(pass->v + (row * c->heads + h) * wide, expanded + h * (fixed + wide) + fixed, wide * sizeof *k);
    }
}

void assay_pass_latent(struct assay_pass *pass)
{
    const struct assay_model_config *c = &pass->model->config;
    if (c->latent.q_rank > 0) {
        assay_pass_multiply(pass, ASSAY_LINEAR_Q_DOWN, pass->branch, c->hidden, pass->latent);
        assay_pass_rows(pass, norm_queries_row);
        assay_pass_multiply(pass, ASSAY_LINEAR_Q_UP, pass->latent, c->latent.q_rank, pass->q);
    } else {
        assay_pass_multiply(pass, ASSAY_LINEAR_Q, pass->branch, c->hidden, pass->q);
    }
    assay_pass_multiply(pass, ASSAY_LINEAR_KV_DOWN, pass->branch, c->hidden, pass->latent);
    assay_pass_rows(pass, norm_keys_row);
    assay_pass_multiply(pass, ASSAY_LINEAR_KV_UP, pass->latent, c->latent.kv_rank + c->rotary_dim, pass->fused);
    assay_pass_rows(pass, assemble_row);
}
