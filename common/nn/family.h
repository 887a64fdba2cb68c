/* What differs between decoder architectures, as data: one row each. */
#pragma once

#include "common/base/macros.h"
#include "common/nn/model.h"

enum assay_linear {
    ASSAY_LINEAR_Q,
    ASSAY_LINEAR_K,
    ASSAY_LINEAR_V,
    ASSAY_LINEAR_QKV,    /* all three in one */
    ASSAY_LINEAR_Q_DOWN, /* to a latent of low rank, and from there to q */
    ASSAY_LINEAR_Q_UP,
    ASSAY_LINEAR_KV_DOWN, /* to a latent and the part of k that rotates; from the latent to k and v */
    ASSAY_LINEAR_KV_UP,
    ASSAY_LINEAR_O,
    ASSAY_LINEAR_GATE,
    ASSAY_LINEAR_UP,
    ASSAY_LINEAR_GATE_UP, /* both in one */
    ASSAY_LINEAR_DOWN,
    ASSAY_LINEARS
};

enum assay_norm {
    ASSAY_NORM_ATTENTION, /* before attention */
    ASSAY_NORM_ATTENTION_OUT,
    ASSAY_NORM_MLP,
    ASSAY_NORM_MLP_OUT,
    ASSAY_NORM_Q, /* of each head */
    ASSAY_NORM_K,
    ASSAY_NORM_Q_LATENT,
    ASSAY_NORM_KV_LATENT,
    ASSAY_NORMS
};

/* Which layers look back no further than the window. */
enum assay_window_rule {
    ASSAY_WINDOW_NEVER,
    ASSAY_WINDOW_ALL,   /* sliding_window, in every layer */
    ASSAY_WINDOW_UPPER, /* use_sliding_window: layers from max_window_layers on, or as layer_types says */
    ASSAY_WINDOW_TYPES  /* layer_types, or all but every sliding_window_pattern-th layer */
};

enum assay_bias_rule { ASSAY_BIAS_NEVER, ASSAY_BIAS_ALWAYS, ASSAY_BIAS_OPTION, ASSAY_BIAS_OPTION_TRUE };

/* Names of tensors are base + layers + number + "." + name + ".weight" or ".bias", where assay_architecture has the
 * base. A name that is NULL is of something that the family does not have. */
struct assay_family {
    const char *architecture;
    const char *without_head; /* the class of a model that has no head; NULL: what "Model" makes of the name */
    const char *layers, *final_norm, *positions;
    const char *norms[ASSAY_NORMS];
    const char *linears[ASSAY_LINEARS];
    /* Layers with experts instead of an MLP: the matrix that scores them and what is added to the scores for the
     * choice; experts are each + number + "." + the last part of the MLP's names. */
    struct {
        const char *router, *correction, *each, *shared;
    } experts;
    /* Members of config.json. */
    struct {
        const char *hidden, *layers, *heads, *intermediate, *positions, *norm_eps, *activation, *theta, *rotary;
    } keys;
    const char *options[17];                      /* those of assay_options_check that the family has; NULL behind */
    size_t head_dim, kv_heads;                    /* where config.json does not say; 0: hidden / heads, heads */
    size_t window, window_pattern;                /* likewise; every so-many-th layer is without a window */
    size_t positions_default, intermediate_times; /* likewise; the latter of hidden, where 0 is none */
    size_t original_positions;                    /* of rope, where config.json does not say; 0: positions_default */
    double theta, norm_eps;                       /* likewise */
    double query_scalar;                          /* likewise: q . k is divided by its root; 0: by that of head_dim */
    double attention_multiplier;                  /* likewise: the scale of q . k itself; 0: as above */
    double attention_cap;                         /* likewise; 0: none */
    double rotary;                                /* part of a head that rotates; 0: positions have embeddings */
    const char *activation;
    enum assay_norm_kind norm;
    enum assay_window_rule window_rule;
    enum assay_bias_rule qkv_bias, output_bias, mlp_bias;
    bool norm_plus_one;     /* norms multiply by 1 + weight */
    bool qkv_by_head;       /* QKV holds q, k and v of the first head, then those of the second */
    bool partial_rotary;    /* config.json may say which part rotates */
    bool yarn_is_longrope;  /* old names of the rope type */
    bool local_rope;        /* layers with a window rotate by a rope of their own */
    bool embedding_by_root; /* embeddings are multiplied by the root of their size */
    bool parallel;          /* use_parallel_residual is true unless config.json says otherwise */
};

/* By the name of the architecture, or of its class without a head; NULL where there is no row. */
const struct assay_family *assay_family_find(const char *architecture);

/* Whether `options` has the key. */
bool assay_family_has_option(const struct assay_family *family, const char *key);

/* "LlamaForCausalLM, ...": for errors. Static. */
const char *assay_family_names(void);
