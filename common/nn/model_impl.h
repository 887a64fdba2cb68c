/* The inside of a model, for the files of this folder. */
#pragma once

#include "common/kernels/kernels.h"
#include "common/nn/family.h"
#include "common/nn/model.h"

struct assay_linear_weights {
    struct assay_panels panels; /* empty where the family has no such matrix */
    float *bias;                /* [n] or NULL */
};

struct assay_norm_weights {
    float *weight, *bias; /* NULL where there is none */
    float eps;
};

struct assay_mlp_weights {
    struct assay_linear_weights gate, up, down;
};

struct assay_experts {
    struct assay_panels router; /* f32, [experts, hidden] */
    float *correction;          /* [experts] */
    struct assay_mlp_weights shared, *each;
    size_t count;
};

struct assay_layer {
    struct assay_norm_weights norms[ASSAY_NORMS];
    struct assay_linear_weights linears[ASSAY_LINEARS];
    struct assay_experts *experts; /* NULL: the layer has an MLP */
};

struct assay_model {
    struct assay_model_config config;
    const struct assay_kernels *kernels;
    struct assay_layer *layers;
    struct assay_norm_weights final_norm;
    enum assay_dtype embedding_dtype, positions_dtype;
    void *embedding; /* [vocab, hidden] */
    void *positions; /* [positions_max, hidden], or NULL */
    size_t bytes;
};

/* Attention of a layer without a window, and what caches are made for. */
struct assay_attention_shape assay_model_attention_shape(const struct assay_model_config *config);

/* to[rows, n] = from[rows, k] . W^T (+ bias) with the model's compute. `stride` is the distance of rows of `from`. */
void assay_model_gemm(const struct assay_model *model, struct assay_pool *pool, size_t rows, const float *from,
                      size_t stride, const struct assay_panels *w, const float *bias, float *to);

/* What a checkpoint's quantization_config says, as far as we read it. */
enum assay_quantization_kind {
    ASSAY_QUANTIZATION_NONE,
    ASSAY_QUANTIZATION_INT8, /* compressed-tensors int-quantized, 8 bits, symmetric, by channel */
    ASSAY_QUANTIZATION_INT4, /* compressed-tensors pack-quantized, 4 bits, by group or channel */
    ASSAY_QUANTIZATION_NF4   /* bitsandbytes */
};

struct assay_quantization {
    enum assay_quantization_kind kind;
    size_t group; /* INT4: elements of a row that share a scale; 0: all */
    bool symmetric;
};

/* UNIMPLEMENTED names the value that we do not have. No quantization_config: NONE. */
enum assay_status assay_quantization_read(const cJSON *config, const char *what, struct assay_quantization *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

/* NAME.weight [n, k], or what the quantization has in its place, as panels. `transposed`: a weight that is not
 * quantized lies there as [k, n]. */
enum assay_status assay_panels_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                    const char *name, size_t n, size_t k, bool transposed,
                                    const struct assay_quantization *quantization, struct assay_panels *ret,
                                    struct assay_err *err) ASSAY_MUST_USE;

/* What load.c needs to load a layer's parts. */
struct assay_loading {
    const struct assay_checkpoint *checkpoint;
    struct assay_pool *pool;
    const struct assay_architecture *architecture;
    const struct assay_family *family;
    const char *base;
    struct assay_quantization quantization;
    struct assay_model *model;
    struct assay_err *err;
    bool checks_only; /* matrices and tables are looked at, and not read */
};

/* NAME.weight [n, k] with NAME.bias where it is to have one; a bias that is not wanted is refused. */
enum assay_status assay_load_linear(struct assay_loading *l, const char *name, size_t n, size_t k, bool biased,
                                    struct assay_linear_weights *ret) ASSAY_MUST_USE;
/* n floats; *ret is to be freed. */
enum assay_status assay_load_vector(struct assay_loading *l, const char *name, size_t n, float **ret) ASSAY_MUST_USE;
/* The experts of a layer; *ret is to be freed with assay_experts_free also after a failure. */
enum assay_status assay_load_experts(struct assay_loading *l, size_t layer, struct assay_experts **ret) ASSAY_MUST_USE;
void assay_experts_free(struct assay_experts *experts); /* NULL is fine */
void assay_linear_release(struct assay_linear_weights *linear);

/* That NAME.weight is there with that shape and a dtype that can be read, or that NAME has codes in its place; and the
 * bytes of the panels that assay_panels_load makes of it. */
enum assay_status assay_panels_check(const struct assay_checkpoint *checkpoint, const char *name, size_t n, size_t k,
                                     bool transposed, const struct assay_quantization *quantization, size_t *ret_bytes,
                                     struct assay_err *err) ASSAY_MUST_USE;
/* Bytes that assay_panels_pack makes of a matrix. */
size_t assay_panels_plain_bytes(enum assay_dtype dtype, size_t n, size_t k);

/* NAME.weight_packed and its companions (pack-quantized), or NAME.weight U8 and its companions (bitsandbytes nf4). */
enum assay_status assay_panels_load_int4(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                         const char *name, size_t n, size_t k,
                                         const struct assay_quantization *quantization, struct assay_panels *ret,
                                         struct assay_err *err) ASSAY_MUST_USE;
enum assay_status assay_panels_load_nf4(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                        const char *name, size_t n, size_t k, struct assay_panels *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
/* Bytes of the panels that these make. Of nf4 the state is read, which has the size of blocks. */
size_t assay_panels_int4_bytes(size_t n, size_t k, const struct assay_quantization *quantization);
enum assay_status assay_panels_measure_nf4(const struct assay_checkpoint *checkpoint, const char *name, size_t n,
                                           size_t k, size_t *ret_bytes, struct assay_err *err) ASSAY_MUST_USE;

/* A tensor of exactly this name, rank and shape; NOT_FOUND or INVALID_ARGUMENT names it. `columns` 0 means rank 1. */
enum assay_status assay_tensor_get(const struct assay_checkpoint *checkpoint, const char *name, size_t rows,
                                   size_t columns, const struct assay_tensor **ret,
                                   struct assay_err *err) ASSAY_MUST_USE;

/* The elements of NAME.PART, F32, BF16 or F16, of that shape, as f32; *ret is to be freed. */
enum assay_status assay_tensor_floats(const struct assay_checkpoint *checkpoint, const char *name, const char *part,
                                      size_t rows, size_t columns, float **ret, struct assay_err *err) ASSAY_MUST_USE;
/* That they are there, and can be read. */
enum assay_status assay_tensor_floats_check(const struct assay_checkpoint *checkpoint, const char *name,
                                            const char *part, size_t rows, size_t columns,
                                            struct assay_err *err) ASSAY_MUST_USE;
