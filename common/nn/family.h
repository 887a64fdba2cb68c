/* What differs between decoder architectures, as data: one row each. */
#pragma once

#include "common/base/macros.h"

enum assay_linear {
    ASSAY_LINEAR_Q,
    ASSAY_LINEAR_K,
    ASSAY_LINEAR_V,
    ASSAY_LINEAR_O,
    ASSAY_LINEAR_GATE,
    ASSAY_LINEAR_UP,
    ASSAY_LINEAR_DOWN,
    ASSAY_LINEARS
};

/* Names of tensors are layer_prefix + layer + "." + name + ".weight" or ".bias". */
struct assay_family {
    const char *architecture;
    const char *embedding, *final_norm, *head;
    const char *layer_prefix;
    const char *attention_norm, *mlp_norm;
    const char *linears[ASSAY_LINEARS];
};

/* NULL for an architecture that has no row. */
const struct assay_family *assay_family_find(const char *architecture);

/* "LlamaForCausalLM, ...": for errors. Static. */
const char *assay_family_names(void);
