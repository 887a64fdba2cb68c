/* Architectures of GGUF files and the checkpoints that they were made from: names of tensors and of keys, and how the
 * file's rows lie. Internal to formats. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sizes that shapes are made of. */
enum assay_gguf_dim {
    ASSAY_GGUF_DIM_NONE, /* no rows: a vector */
    ASSAY_GGUF_DIM_HIDDEN,
    ASSAY_GGUF_DIM_INTERMEDIATE,
    ASSAY_GGUF_DIM_GATE_UP, /* 2 * intermediate */
    ASSAY_GGUF_DIM_Q,       /* heads * head_dim */
    ASSAY_GGUF_DIM_KV,      /* kv_heads * head_dim */
    ASSAY_GGUF_DIM_QKV,     /* all three */
    ASSAY_GGUF_DIM_HEAD,
    ASSAY_GGUF_DIM_VOCAB,
    ASSAY_GGUF_DIM_POSITIONS,
    ASSAY_GGUF_DIM_Q_RANK,
    ASSAY_GGUF_DIM_KV_RANK,
    ASSAY_GGUF_DIM_KV_DOWN, /* kv_rank + rotated */
    ASSAY_GGUF_DIM_VALUES,  /* heads * value_dim */
    ASSAY_GGUF_DIM_EXPERTS,
    ASSAY_GGUF_DIM_EXPERT, /* intermediate size of one expert */
    ASSAY_GGUF_DIM_SHARED, /* of the shared ones together */
};

/* How the checkpoint's values follow from the file's. */
enum assay_gguf_order {
    ASSAY_GGUF_AS_IT_IS,
    ASSAY_GGUF_ROTARY,     /* row 2i + s of a head is the checkpoint's row s * head_dim / 2 + i */
    ASSAY_GGUF_BY_HEAD,    /* the file has all queries, keys, values; the checkpoint those of a head, head by head */
    ASSAY_GGUF_TRANSPOSED, /* the checkpoint has [inputs, outputs] */
    ASSAY_GGUF_MINUS_ONE,  /* the file's norms have the 1 that the family adds */
    ASSAY_GGUF_EXPERTS,    /* the file has the matrices of all experts in one tensor; %u in the target is the expert */
    ASSAY_GGUF_LATENT,     /* kv_b_proj: by head the columns of a matrix of attn_k_b, then the rows of attn_v_b */
};

/* When a tensor is there. */
enum assay_gguf_when {
    ASSAY_GGUF_ALWAYS,
    ASSAY_GGUF_ATTENTION_BIAS, /* the first layer has attn_q.bias or attn_qkv.bias */
    ASSAY_GGUF_MLP_BIAS,       /* the first layer has ffn_up.bias */
    ASSAY_GGUF_UNTIED,         /* there is an output.weight */
    ASSAY_GGUF_DENSE,          /* layers without experts */
    ASSAY_GGUF_MIXED,          /* layers with experts */
    ASSAY_GGUF_Q_DIRECT,       /* queries without a latent */
    ASSAY_GGUF_Q_LATENT,
    ASSAY_GGUF_KV_JOINED, /* files of before attn_kv_b was split in two */
    ASSAY_GGUF_KV_SPLIT,
};

struct assay_gguf_row {
    const char *source; /* behind "blk.N." in layers: "attn_q.weight" */
    const char *target; /* behind the architecture's layers: "self_attn.q_proj.weight" */
    enum assay_gguf_dim rows, columns;
    enum assay_gguf_order order;
    enum assay_gguf_when when;
};

/* Keys that change the result, and which not every architecture has. */
enum assay_gguf_option {
    ASSAY_GGUF_WINDOW = 1 << 0,           /* attention.sliding_window */
    ASSAY_GGUF_WINDOW_PATTERN = 1 << 1,   /* attention.sliding_window_pattern */
    ASSAY_GGUF_PARTIAL_ROTARY = 1 << 2,   /* rope.dimension_count below the size of a head */
    ASSAY_GGUF_FACTORS = 1 << 3,          /* rope_factors_long, rope_factors_short */
    ASSAY_GGUF_MULTIPLIERS = 1 << 4,      /* attention.scale, embedding_scale, residual_scale, logit_scale */
    ASSAY_GGUF_ATTENTION_CAP = 1 << 5,    /* attn_logit_softcapping */
    ASSAY_GGUF_FINAL_CAP = 1 << 6,        /* final_logit_softcapping */
    ASSAY_GGUF_LOCAL_ROPE = 1 << 7,       /* rope.freq_base_swa */
    ASSAY_GGUF_PARALLEL = 1 << 8,         /* use_parallel_residual */
    ASSAY_GGUF_LATENT_ATTENTION = 1 << 9, /* attention.kv_lora_rank and experts */
    ASSAY_GGUF_NO_ROPE = 1 << 10,         /* positions are embedded */
    ASSAY_GGUF_QUERY_SCALAR = 1 << 11,    /* scores are divided by a root that the size of the model implies */
};

struct assay_gguf_arch {
    const char *name;         /* "llama": general.architecture, and what its keys begin with */
    const char *architecture; /* "LlamaForCausalLM" */
    const char *model_type;   /* "llama" */
    const char *layers;       /* "model.layers." */
    const char *norm_key;     /* "attention.layer_norm_rms_epsilon" */
    const char *norm_member;  /* "rms_norm_eps" */
    const char *activation_member, *activation;
    unsigned options;      /* of enum assay_gguf_option */
    uint64_t large_layers; /* with QUERY_SCALAR: models of so many layers divide by hidden / heads; 0: none */
    uint64_t window_pattern;
    bool attention_bias; /* the member of config.json is the family's */
    bool mlp_bias;
    const struct assay_gguf_row *outer, *inner; /* ended by a source of NULL */
};

/* NULL for one that is not known; names of those that are, for sentences. */
const struct assay_gguf_arch *assay_gguf_arch_find(const char *name, size_t len);
const char *assay_gguf_arch_names(void);
