/* A Llama-family GGUF as the checkpoint of LlamaForCausalLM that it was made from. Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

#define ASSAY_GGUF_NAME_MAX 96

/* One tensor of the checkpoint. */
struct assay_gguf_part {
    char name[ASSAY_GGUF_NAME_MAX]; /* "model.layers.0.self_attn.q_proj.weight" */
    const struct assay_gguf_tensor *tensor;
    /* Heads whose rows the file has in another order, 0 for none: row 2i + s of a head is the checkpoint's row
     * s * head_dim / 2 + i. */
    uint64_t rotary_heads;
};

struct assay_gguf_llama {
    uint64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, positions;
    double norm_eps, rope_theta;
    double linear_factor; /* 1: no scaling by a constant */
    double llama3_factor; /* 1: no scaling as Llama 3 has it; its other parameters are fixed */
    bool tied_head;
    struct assay_gguf_part *parts; /* owned */
    size_t parts_count;
};

/* Checks that every tensor is there in its shape and that no other is. UNIMPLEMENTED, by name: another architecture,
 * experts, rotation of a part of a head, YaRN, frequencies that are not those of Llama 3, further tensors (biases). */
enum assay_status assay_gguf_llama_read(const struct assay_gguf *file, struct assay_gguf_llama *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_gguf_llama_release(struct assay_gguf_llama *model);

/* config.json. `dtype` is what the weights are stored in at most: "float32", "float16", "bfloat16". */
enum assay_status assay_gguf_llama_config(const struct assay_gguf *file, const struct assay_gguf_llama *model,
                                          const char *dtype, struct assay_buf *out,
                                          struct assay_err *err) ASSAY_MUST_USE;
