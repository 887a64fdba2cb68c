/* Decoder models: weights packed at load, forward passes up to and including the final norm.
 * Numerics: every product accumulates one f32 chain of fused multiply-adds in order of the inner index; the same inputs
 * give the same bits whatever the threads, the batch or the instruction set. docs/NUMERICS.md has the bounds. */
#pragma once

#include "common/base/limits.h"
#include "common/base/pool.h"
#include "common/formats/checkpoint.h"

/* Pairs of a head that rotate, at most, where each has a factor of its own. */
#define ASSAY_ROPE_PAIRS_MAX 256

enum assay_rope_kind {
    ASSAY_ROPE_DEFAULT,
    ASSAY_ROPE_LINEAR,
    ASSAY_ROPE_DYNAMIC,
    ASSAY_ROPE_LLAMA3,
    ASSAY_ROPE_YARN,
    ASSAY_ROPE_LONGROPE
};

struct assay_rope {
    enum assay_rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor;
    double beta_fast, beta_slow;
    bool truncate; /* yarn: the borders of the ramp are whole numbers */
    size_t original_positions;
    double attention_factor; /* cosines and sines are multiplied by it */
    double score_factor;     /* what yarn's mscale_all_dim makes of the scale of q . k, where a family heeds it */
    float short_factors[ASSAY_ROPE_PAIRS_MAX], long_factors[ASSAY_ROPE_PAIRS_MAX]; /* longrope */
};

enum assay_norm_kind { ASSAY_NORM_RMS, ASSAY_NORM_LAYER };
enum assay_activation {
    ASSAY_ACTIVATION_SILU,
    ASSAY_ACTIVATION_GELU,
    ASSAY_ACTIVATION_GELU_TANH,
    ASSAY_ACTIVATION_RELU
};

struct assay_family;

struct assay_model_config {
    const char *architecture; /* "LlamaForCausalLM", static */
    const struct assay_family *family;
    size_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions_max;
    size_t value_dim; /* of a head: head_dim in most families */
    enum assay_norm_kind norm;
    enum assay_activation activation;
    float norm_eps;
    bool tied_head, attention_bias, output_bias, mlp_bias; /* attention_bias: of q, k and v */
    bool compute_bf16; /* "assay": {"compute": "bf16"}: products of the layers' linears round both operands to bf16 */
    bool parallel_residual;        /* attention and MLP read the same x */
    float embedding_scale;         /* of the token's embedding; 1 */
    float residual_scale;          /* of what a layer adds to x; 1 */
    double attention_scale;        /* of q . k */
    bool attention_scale_by_layer; /* which layer i divides by i + 1 */
    float attention_cap;           /* scores become cap * tanh(score / cap); 0: none */
    size_t window;                 /* keys that a row of a windowed layer sees; 0: no layer is */
    bool windowed[ASSAY_MODEL_LAYERS_MAX];
    size_t rotary_dim; /* the first elements of a head (with a latent the last), which rotate; 0: positions have
                          embeddings */
    struct assay_rope rope, local_rope; /* the latter is for windowed layers, where the family has two */
    struct {
        size_t q_rank, kv_rank; /* 0: q directly; no latent at all */
        bool interleaved;       /* elements that rotate lie as pairs side by side */
    } latent;
    struct {
        size_t count, used, groups, groups_used, shared, intermediate; /* count 0: none */
        size_t first;                                                  /* layers before it have a usual MLP */
        bool normalized;                                               /* weights of the chosen ones sum to scale */
        float scale;
    } experts;
    size_t vocab_used; /* ids from here on are padding and have no logits; usually vocab */
};

/* Whether config.json names a decoder, with or without a head. */
bool assay_model_is(const cJSON *config);

/* Reads config.json of transformers 4 (rope_theta, rope_scaling, torch_dtype) or 5 (rope_parameters, dtype) style.
 * UNIMPLEMENTED for an architecture, activation, rope type or other option we do not have, by name; INVALID_ARGUMENT
 * for sizes that are missing, out of range or do not fit together. */
enum assay_status assay_model_config_read(const cJSON *config, const char *what, struct assay_model_config *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

struct assay_model;
struct assay_panels;

/* Loads a checkpoint or an artifact. Understood of quantization_config: compressed-tensors int8 per channel and 4 bits
 * packed by group or channel, bitsandbytes nf4; another is UNIMPLEMENTED by name. Weights are packed layer by layer;
 * the head is not loaded. The checkpoint may be closed afterwards. NOT_FOUND / INVALID_ARGUMENT name the tensor that is
 * missing or has another shape or dtype. `pool` is used while loading. */
enum assay_status assay_model_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                   struct assay_model **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Whether assay_model_load would go through, short of memory and of what stands within codes: config.json, and that
 * every tensor is there with its shape. Reads norms and biases only. */
enum assay_status assay_model_check(const struct assay_checkpoint *checkpoint, struct assay_err *err) ASSAY_MUST_USE;
/* The same, and what assay_model_bytes would be. */
enum assay_status assay_model_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                      struct assay_err *err) ASSAY_MUST_USE;
void assay_model_free(struct assay_model *model); /* NULL is fine */
const struct assay_model_config *assay_model_config(const struct assay_model *model);
size_t assay_model_bytes(const struct assay_model *model); /* as packed */

struct assay_cache;

/* One chunk of a batch. Rows [begin, end) of the hidden states after the final norm go to hidden[(end - begin), d]. */
struct assay_sequence {
    const int32_t *ids; /* [tokens], each in [0, vocab) */
    size_t tokens;      /* 1..positions_max, with what the cache holds */
    size_t begin, end;
    float *hidden;
    struct assay_cache *cache; /* NULL, or of this model: the tokens go on what it holds, and are kept in it (cache.h).
                                * All sequences of a batch have one, each its own, or none has */
};

/* OUT_OF_RANGE for an id or a length beyond the model or the cache; CANCELLED when *cancel became true (checked layer
 * by layer; may be NULL); RESOURCE_EXHAUSTED when out of memory. Caches keep nothing new on an error. Calls on
 * one pool take turns, product by product. Memory: O(tokens in the batch). */
enum assay_status assay_model_forward(const struct assay_model *model, struct assay_pool *pool,
                                      const struct assay_sequence *sequences, size_t count, const volatile bool *cancel,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* Memory that a forward pass over one sequence takes beside the weights; 0 when it overflows. */
size_t assay_model_forward_bytes(const struct assay_model_config *config, size_t tokens, size_t threads);

/* The same for one sequence, which also tells what each layer begins with: inputs[layers, tokens, hidden]; inputs[0]
 * are the embeddings. */
enum assay_status assay_model_forward_layers(const struct assay_model *model, struct assay_pool *pool,
                                             const struct assay_sequence *sequence, float *inputs,
                                             struct assay_err *err) ASSAY_MUST_USE;

/* Products on this model's shapes give the same bits for a row whether 1, 2, 7, 16 or 256 rows are multiplied: checked
 * with pseudo-random rows, for workers to call once at start. INTERNAL names the shape that does not hold it. */
enum assay_status assay_model_check_rows(const struct assay_model *model, struct assay_pool *pool,
                                         struct assay_err *err) ASSAY_MUST_USE;

/* Names what decides the bits of this engine, for records: "assay-f32-1". Static. */
const char *assay_numerics_id(void);

/* --- the head --- */

struct assay_head;

/* The head's weight, or the embedding when tied, and what stands between its products and the logits. */
enum assay_status assay_head_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                  struct assay_head **ret, struct assay_err *err) ASSAY_MUST_USE;
/* What assay_head_bytes would be; errors are those of assay_head_load. The weight is not read. */
enum assay_status assay_head_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                     struct assay_err *err) ASSAY_MUST_USE;
void assay_head_free(struct assay_head *head); /* NULL is fine */
/* Logits of a row: ids in use, [0, vocab). Padding behind them has none and takes no part in any sum. */
size_t assay_head_vocab(const struct assay_head *head);
size_t assay_head_hidden(const struct assay_head *head);
/* digest of the weight's dtype, shape and bytes, and of bias, scale, cap and ids in use where a head has them: equal
 * digests are one head. */
struct assay_digest assay_head_digest(const struct assay_head *head);
/* Bytes that the head holds. */
size_t assay_head_bytes(const struct assay_head *head);

/* logits[rows, vocab] = finish(hidden[rows, d] . W^T + bias). */
void assay_head_logits(const struct assay_head *head, struct assay_pool *pool, const float *hidden, size_t rows,
                       float *logits);

/* What a head consists of, for those who multiply by it themselves; all of it belongs to the head. A product of
 * `panels` with `bias` (NULL: none), then assay_head_finish on each row, is what assay_head_logits gives, bit for bit.
 */
struct assay_head_parts {
    const struct assay_panels *panels;
    const float *bias;
    float scale, soft_cap; /* 1 and 0: assay_head_finish does nothing */
};
struct assay_head_parts assay_head_parts(const struct assay_head *head);
/* In place, on `count` products of a row, any part of it: x * scale, then cap * tanh(x / cap). Any thread. */
void assay_head_finish(const struct assay_head *head, size_t count, float *logits);

/* logits[rows, count], rows `ld` elements apart: the columns [first, first + count) of assay_head_logits, by the
 * calling thread alone. first is a multiple of 32; count too, unless the columns end with the vocabulary. */
void assay_head_logits_part(const struct assay_head *head, const float *hidden, size_t rows, size_t first, size_t count,
                            float *logits, size_t ld);
