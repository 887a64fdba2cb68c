#include "common/nn/family.h"

#include <string.h>

static const struct assay_family families[] = {
    {
        .architecture = "LlamaForCausalLM",
        .embedding = "model.embed_tokens",
        .final_norm = "model.norm",
        .head = "lm_head",
        .layer_prefix = "model.layers.",
        .attention_norm = "input_layernorm",
        .mlp_norm = "post_attention_layernorm",
        .linears = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
                    "mlp.up_proj", "mlp.down_proj"},
    },
};

const struct assay_family *assay_family_find(const char *architecture)
{
    for (size_t i = 0; i < ASSAY_COUNT(families); i++)
        if (strcmp(families[i].architecture, architecture) == 0)
            return &families[i];
    return NULL;
}

const char *assay_family_names(void)
{
    return "LlamaForCausalLM";
}
