/* One forward pass: its buffers, and the pieces that work on rows. Rows of all sequences of a batch are stacked for the
 * products; attention runs within each sequence. */
#pragma once

#include "common/nn/model_impl.h"

struct assay_pass {
    const struct assay_model *model;
    struct assay_pool *pool;
    const struct assay_sequence *sequences;
    size_t count, rows, threads;
    struct assay_attention_span *spans;     /* [count] */
    struct assay_attention_growth *growths; /* [count] where sequences have caches, else NULL */
    struct assay_attention_shape shape;
    float *x;               /* [rows, hidden]: the residual stream */
    float *branch, *other;  /* [rows, hidden]: what a product reads from or adds to it */
    float *q, *k, *v, *out; /* [rows, heads or kv_heads * head_dim] */
    float *fused;           /* [rows, q, k and v], where one product makes them, or [rows, k and v] out of a latent */
    float *latent;          /* [rows, rank] */
    float *scores, *picked; /* of experts: [rows, experts]; [rows, hidden] of the rows that one has */
    unsigned char *chosen;  /* [rows, experts] */
    size_t width;           /* of the expert under way */
    float *gate, *up;       /* [rows, intermediate]; where one product makes them, gate has [rows, 2 * intermediate] */
    float *cosine, *sine;   /* [rows, rotary_dim / 2] */
    float *local_cosine, *local_sine; /* likewise for layers with a window, where they differ */
    float *inverse, *local_inverse;   /* [count, rotary_dim / 2] */
    float *attention;
    float *inputs; /* [layers, rows, hidden]: what each layer begins with, or NULL */
    /* Of the layer under way. */
    const struct assay_layer *layer;
    const struct assay_norm_weights *norm;
    const float *layer_cosine, *layer_sine;
};

typedef void (*assay_row_fn)(struct assay_pass *pass, size_t row);

/* Rows in parallel; each must depend on its own row alone. */
void assay_pass_rows(struct assay_pass *pass, assay_row_fn fn);

/* y = norm(x) over n elements by the model's kind of norm. y may be x. */
void assay_pass_norm(const struct assay_pass *pass, const struct assay_norm_weights *norm, size_t n, const float *x,
                     float *y);

/* to[rows, n] = from . W^T (+ bias) by a matrix of the layer under way. */
void assay_pass_multiply(struct assay_pass *pass, enum assay_linear which, const float *from, size_t stride, float *to);

struct assay_pass_product {
    enum assay_linear which;
    float *to;
};

/* The same for several matrices, each once. */
void assay_pass_multiply_all(struct assay_pass *pass, const struct assay_pass_product *products, size_t count,
                             const float *from, size_t stride);

/* gate = activation(gate) * up, n elements. */
void assay_pass_gate(const struct assay_pass *pass, size_t n, float *gate, const float *up);

/* q, k and v of branch by way of latents, turned. */
void assay_pass_latent(struct assay_pass *pass);
/* branch = the experts of the layer under way for branch. */
void assay_pass_experts(struct assay_pass *pass);

/* x += attention and MLP of layer `index`. */
void assay_pass_layer(struct assay_pass *pass, size_t index);
