/* Where the checkpoints of an architecture keep what every part of assay has to find: the embedding, the head, and how
 * the matrices of the layers lie. */
#pragma once

#include "common/formats/checkpoint.h"

struct assay_architecture {
    const char *name;      /* "LlamaForCausalLM" */
    const char *base;      /* what names of tensors begin with, but for the head's: "model." */
    const char *embedding; /* behind the base: "embed_tokens" */
    const char *head;      /* "lm_head" */
    bool tied;             /* the embedding serves as head where config.json does not say */
    bool transposed;       /* matrices of the layers are stored as [inputs, outputs] */
    bool head_bias;
    double soft_cap; /* of logits, where config.json does not say; 0: none */
};

/* NULL for an architecture that is not known. */
const struct assay_architecture *assay_architecture_find(const char *name);
/* The first name of config.json's "architectures"; NULL when there is none, or not a known one. */
const struct assay_architecture *assay_architecture_of(const cJSON *config);

/* The base that the names in this checkpoint have: the architecture's, or "" where files were saved without it. */
const char *assay_architecture_base(const struct assay_architecture *architecture,
                                    const struct assay_checkpoint *checkpoint);

/* --- the head --- */

/* What stands between the head's products and the logits: cap * tanh((product + bias) * logit_scale / cap). */
struct assay_head_figures {
    bool tied; /* the embedding serves as head */
    float logit_scale;
    float soft_cap;    /* 0: none */
    size_t vocab_used; /* "assay": {"used_vocab": n}: ids from n on are padding and have no logits; 0: all are in use */
};

/* INVALID_ARGUMENT for a figure that is no number, or out of range. */
enum assay_status assay_head_figures_read(const cJSON *config, const struct assay_architecture *architecture,
                                          const char *what, struct assay_head_figures *ret,
                                          struct assay_err *err) ASSAY_MUST_USE;

/* The module whose weight is the head: "lm_head", or the embedding when tied. */
#define ASSAY_HEAD_NAME_BYTES 128
void assay_head_name(const struct assay_architecture *architecture, const struct assay_checkpoint *checkpoint,
                     bool tied, char ret[ASSAY_HEAD_NAME_BYTES]);

/* digest of the weight's dtype, shape and bytes, and of bias and figures where they are not the usual ones. */
struct assay_digest assay_head_content_digest(const struct assay_architecture *architecture,
                                              const struct assay_checkpoint *checkpoint,
                                              const struct assay_head_figures *figures);
