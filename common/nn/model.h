/* Decoder models: weights packed at load, forward passes up to and including the final norm.
 * Numerics: every product accumulates one f32 chain of fused multiply-adds in order of the inner index; the same inputs
 * give the same bits whatever the threads, the batch or the instruction set. docs/NUMERICS.md has the bounds. */
#pragma once

#include "common/base/pool.h"
#include "common/formats/checkpoint.h"

enum assay_rope_kind { ASSAY_ROPE_DEFAULT, ASSAY_ROPE_LINEAR, ASSAY_ROPE_DYNAMIC, ASSAY_ROPE_LLAMA3 };

struct assay_model_config {
    const char *architecture; /* "LlamaForCausalLM", static */
    size_t hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, positions_max;
    float norm_eps;
    bool tied_head, attention_bias, mlp_bias;
    bool compute_bf16; /* "assay": {"compute": "bf16"}: products of the layers' linears round both operands to bf16 */
    struct {
        enum assay_rope_kind kind;
        double theta, factor, low_freq_factor, high_freq_factor;
        size_t original_positions;
    } rope;
};

/* Reads config.json of transformers 4 (rope_theta, rope_scaling, torch_dtype) or 5 (rope_parameters, dtype) style.
 * UNIMPLEMENTED for an architecture, activation, rope type or other option we do not have, by name; INVALID_ARGUMENT
 * for sizes that are missing, out of range or do not fit together. */
enum assay_status assay_model_config_read(const cJSON *config, const char *what, struct assay_model_config *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

struct assay_model;

/* Loads a checkpoint or an artifact. Understood of quantization_config: compressed-tensors int8 per channel and 4 bits
 * packed by group or channel, bitsandbytes nf4; another is UNIMPLEMENTED by name. Weights are packed layer by layer;
 * the head is not loaded. The checkpoint may be closed afterwards. NOT_FOUND / INVALID_ARGUMENT name the tensor that is
 * missing or has another shape or dtype. `pool` is used while loading. */
enum assay_status assay_model_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                   struct assay_model **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_model_free(struct assay_model *model); /* NULL is fine */
const struct assay_model_config *assay_model_config(const struct assay_model *model);
size_t assay_model_bytes(const struct assay_model *model); /* as packed */

/* One chunk of a batch. Rows [begin, end) of the hidden states after the final norm go to hidden[(end - begin), d]. */
struct assay_sequence {
    const int32_t *ids; /* [tokens], each in [0, vocab) */
    size_t tokens;      /* 1..positions_max */
    size_t begin, end;
    float *hidden;
};

/* OUT_OF_RANGE for an id or a length beyond the model; CANCELLED when *cancel became true (checked layer by layer; may
 * be NULL); RESOURCE_EXHAUSTED when out of memory. One call at a time a pool. Memory: O(tokens in the batch). */
enum assay_status assay_model_forward(const struct assay_model *model, struct assay_pool *pool,
                                      const struct assay_sequence *sequences, size_t count, const volatile bool *cancel,
                                      struct assay_err *err) ASSAY_MUST_USE;

/* Products on this model's shapes give the same bits for a row whether 1, 2, 7, 16 or 256 rows are multiplied: checked
 * with pseudo-random rows, for workers to call once at start. INTERNAL names the shape that does not hold it. */
enum assay_status assay_model_check_rows(const struct assay_model *model, struct assay_pool *pool,
                                         struct assay_err *err) ASSAY_MUST_USE;

/* Names what decides the bits of this engine, for records: "assay-f32-1". Static. */
const char *assay_numerics_id(void);

/* --- the head --- */

struct assay_head;

/* lm_head.weight, or the embedding when tied. */
enum assay_status assay_head_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                  struct assay_head **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_head_free(struct assay_head *head); /* NULL is fine */
size_t assay_head_vocab(const struct assay_head *head);
size_t assay_head_hidden(const struct assay_head *head);
/* digest of the weight's dtype, shape and bytes: equal digests are one head. */
struct assay_digest assay_head_digest(const struct assay_head *head);

/* logits[rows, vocab] = hidden[rows, d] . W^T. */
void assay_head_logits(const struct assay_head *head, struct assay_pool *pool, const float *hidden, size_t rows,
                       float *logits);
