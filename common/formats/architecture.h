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
};

/* NULL for an architecture that is not known. */
const struct assay_architecture *assay_architecture_find(const char *name);
/* The first name of config.json's "architectures"; NULL when there is none, or not a known one. */
const struct assay_architecture *assay_architecture_of(const cJSON *config);

/* The base that the names in this checkpoint have: the architecture's, or "" where files were saved without it. */
const char *assay_architecture_base(const struct assay_architecture *architecture,
                                    const struct assay_checkpoint *checkpoint);

/* tie_word_embeddings of config.json, or what is usual. */
bool assay_architecture_ties(const struct assay_architecture *architecture, const cJSON *config);
