#include "common/formats/architecture.h"

#include <stdio.h>
#include <string.h>

static const struct assay_architecture architectures[] = {
    {"LlamaForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"MistralForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"Qwen2ForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"Qwen3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"Phi3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"GPTNeoXForCausalLM", "gpt_neox.", "embed_in", "embed_out", false, false},
    {"GPT2LMHeadModel", "transformer.", "wte", "lm_head", true, true},
    {"Gemma2ForCausalLM", "model.", "embed_tokens", "lm_head", true, false},
    {"Gemma3ForCausalLM", "model.", "embed_tokens", "lm_head", true, false},
    {"PhiForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"GraniteForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
    {"DeepseekV3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false},
};

const struct assay_architecture *assay_architecture_find(const char *name)
{
    for (size_t i = 0; i < ASSAY_COUNT(architectures); i++)
        if (strcmp(architectures[i].name, name) == 0)
            return &architectures[i];
    return NULL;
}

const struct assay_architecture *assay_architecture_of(const cJSON *config)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(config, "architectures");
    const cJSON *name = cJSON_IsArray(names) ? cJSON_GetArrayItem(names, 0) : NULL;
    return cJSON_IsString(name) ? assay_architecture_find(name->valuestring) : NULL;
}

const char *assay_architecture_base(const struct assay_architecture *architecture,
                                    const struct assay_checkpoint *checkpoint)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s.weight", architecture->base, architecture->embedding);
    bool whole = assay_checkpoint_find(checkpoint, name) ||
                 !assay_checkpoint_find(checkpoint, name + strlen(architecture->base));
    return whole ? architecture->base : "";
}

bool assay_architecture_ties(const struct assay_architecture *architecture, const cJSON *config)
{
    const cJSON *ties = cJSON_GetObjectItemCaseSensitive(config, "tie_word_embeddings");
    return cJSON_IsBool(ties) ? cJSON_IsTrue(ties) : architecture->tied;
}
