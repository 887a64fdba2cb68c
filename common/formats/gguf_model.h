/* What a GGUF file says about its model: sizes, options, rope, and which of its tensors become which of a checkpoint.
 * Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"
#include "common/formats/gguf_arch.h"

#define ASSAY_GGUF_NAME_MAX 96

/* One tensor of the checkpoint. */
struct assay_gguf_part {
    char name[ASSAY_GGUF_NAME_MAX]; /* "model.layers.0.self_attn.q_proj.weight" */
    enum assay_gguf_order order;
    size_t rank;            /* 1 or 2 */
    uint64_t rows, columns; /* in the checkpoint; 1 row for rank 1 */
    const struct assay_gguf_tensor *tensor;
    const struct assay_gguf_tensor *values; /* LATENT: attn_v_b; else NULL */
    uint64_t first;                         /* element of `tensor` that it begins with (EXPERTS) */
    uint64_t heads;                         /* ROTARY, BY_HEAD, LATENT */
};

enum assay_gguf_rope_kind {
    ASSAY_GGUF_ROPE_PLAIN,
    ASSAY_GGUF_ROPE_LINEAR,
    ASSAY_GGUF_ROPE_LLAMA3,
    ASSAY_GGUF_ROPE_YARN,
    ASSAY_GGUF_ROPE_FACTORS, /* one a frequency: "longrope" */
};

struct assay_gguf_rope {
    enum assay_gguf_rope_kind kind;
    double theta, local_theta;   /* local: of layers with a window; 0: no such layers */
    double factor;               /* LINEAR, LLAMA3, YARN */
    uint64_t original_positions; /* YARN, FACTORS */
    double attention_factor;     /* YARN, FACTORS; 0: as the kind implies */
    double beta_fast, beta_slow; /* YARN; 0: as usual */
    double mscale_all;           /* YARN; 0: none */
    const struct assay_gguf_tensor *short_factors, *long_factors; /* FACTORS: F32 [rotated / 2]; may be the same */
};

struct assay_gguf_model {
    const struct assay_gguf_arch *arch;
    uint64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, positions;
    uint64_t rotated; /* elements of a head */
    double norm_eps;
    bool tied_head, attention_bias, mlp_bias, parallel;
    struct assay_gguf_rope rope;
    uint64_t window;         /* 0: none */
    uint64_t window_pattern; /* every so manieth layer has none; 0: all have it */
    double attention_scale, embedding_scale, residual_scale, logit_scale; /* MULTIPLIERS */
    double attention_cap, final_cap;                                      /* 0: none */
    uint64_t query_scalar;                                                /* QUERY_SCALAR */
    struct {
        uint64_t q_rank, kv_rank, value_dim; /* q_rank 0: none */
        bool joined;                         /* attn_kv_b is there */
        uint64_t experts, used, groups, groups_used, shared, intermediate, dense_layers;
        bool normalized;
        double scale;
    } latent;                      /* LATENT_ATTENTION */
    struct assay_gguf_part *parts; /* owned */
    size_t parts_count;
};

/* Checks that every tensor is there in its shape and that no other is. UNIMPLEMENTED, by name: an architecture, option,
 * rope or tensor that is not known; experts other than DeepSeek-V3's. */
enum assay_status assay_gguf_model_read(const struct assay_gguf *file, struct assay_gguf_model *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_gguf_model_release(struct assay_gguf_model *model);

/* --- parts of the above --- */

/* Reads keys of the architecture; the first failure stays. */
struct assay_gguf_reader {
    const struct assay_gguf *file;
    const char *arch; /* "llama" */
    struct assay_err *err;
    enum assay_status status;
};

/* `key` is without the architecture: "block_count". At least `min`, at most `max`. */
uint64_t assay_gguf_read_size(struct assay_gguf_reader *r, const char *key, bool required, uint64_t otherwise,
                              uint64_t min, uint64_t max);
double assay_gguf_read_double(struct assay_gguf_reader *r, const char *key, bool required, double otherwise);
bool assay_gguf_read_bool(struct assay_gguf_reader *r, const char *key, bool otherwise);

/* `rope`, after the sizes. */
void assay_gguf_read_rope(struct assay_gguf_reader *r, struct assay_gguf_model *m);
/* `parts`, after all else. */
enum assay_status assay_gguf_read_parts(const struct assay_gguf *file, struct assay_gguf_model *m,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* The tensor is one that `rope` was read from. */
bool assay_gguf_rope_has(const struct assay_gguf_tensor *tensor);

/* config.json. `dtype` is what the weights are stored in at most: "float32", "float16", "bfloat16". */
enum assay_status assay_gguf_config(const struct assay_gguf *file, const struct assay_gguf_model *model,
                                    const char *dtype, struct assay_buf *out, struct assay_err *err) ASSAY_MUST_USE;

/* --- values --- */

/* Floats of scratch that assay_gguf_part_rows needs for the part. */
size_t assay_gguf_part_scratch(const struct assay_gguf_part *part);
/* Rows [row, row + count) of the checkpoint's tensor into dst. `scratch` is kept between calls for the same part, and
 * *filled says whether it is: false before the first. Cannot fail. */
void assay_gguf_part_rows(const struct assay_gguf_part *part, uint64_t row, uint64_t count, float *scratch,
                          bool *filled, float *dst);
