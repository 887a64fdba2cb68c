#include "common/formats/architecture.h"

#include <stdio.h>
#include <string.h>

#include "common/base/limits.h"

static const struct assay_architecture architectures[] = {
    {"LlamaForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"MistralForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"Qwen2ForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"Qwen3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"Phi3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"GPTNeoXForCausalLM", "gpt_neox.", "embed_in", "embed_out", false, false, false, 0},
    {"GPT2LMHeadModel", "transformer.", "wte", "lm_head", true, true, false, 0},
    {"Gemma2ForCausalLM", "model.", "embed_tokens", "lm_head", true, false, false, 30},
    {"Gemma3ForCausalLM", "model.", "embed_tokens", "lm_head", true, false, false, 0},
    {"PhiForCausalLM", "model.", "embed_tokens", "lm_head", false, false, true, 0},
    {"GraniteForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
    {"DeepseekV3ForCausalLM", "model.", "embed_tokens", "lm_head", false, false, false, 0},
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

/* --- the head --- */

static enum assay_status read_number(const cJSON *config, const char *what, const char *key, double otherwise,
                                     float *ret, struct assay_err *err)
{
    double value = otherwise;
    enum assay_status status = assay_json_get_double(config, what, key, false, &value, err);
    if (status == ASSAY_OK && value != otherwise && !(value > 0 && value <= 1e9))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is %g, wanted a number above 0", what, key, value);
    *ret = (float)value;
    return status;
}

enum assay_status assay_head_figures_read(const cJSON *config, const struct assay_architecture *architecture,
                                          const char *what, struct assay_head_figures *ret, struct assay_err *err)
{
    static const char cap[] = "final_logit_softcapping";
    struct assay_head_figures figures = {.tied = architecture->tied};
    /* null means none, which is not the usual where there is a cap. */
    double usual = cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(config, cap)) ? 0 : architecture->soft_cap;
    float divisor = 1;
    int64_t used = 0;
    enum assay_status status = assay_json_get_bool(config, what, "tie_word_embeddings", false, &figures.tied, err);
    if (status == ASSAY_OK)
        status = read_number(config, what, cap, usual, &figures.soft_cap, err);
    if (status == ASSAY_OK)
        status = read_number(config, what, "logits_scaling", 1, &divisor, err);
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(config, "assay");
    if (status == ASSAY_OK && cJSON_IsObject(own))
        status = assay_json_get_int(own, what, "used_vocab", false, 1, ASSAY_MODEL_VOCAB_MAX, &used, err);
    if (status != ASSAY_OK)
        return status;
    figures.logit_scale = 1 / divisor;
    figures.vocab_used = (size_t)used;
    *ret = figures;
    return ASSAY_OK;
}

void assay_head_name(const struct assay_architecture *architecture, const struct assay_checkpoint *checkpoint,
                     bool tied, char ret[ASSAY_HEAD_NAME_BYTES])
{
    if (tied)
        snprintf(ret, ASSAY_HEAD_NAME_BYTES, "%s%s", assay_architecture_base(architecture, checkpoint),
                 architecture->embedding);
    else
        snprintf(ret, ASSAY_HEAD_NAME_BYTES, "%s", architecture->head);
}

static void digest_tensor(struct assay_hash *hash, const struct assay_tensor *tensor)
{
    assay_hash_str(hash, assay_dtype_name(tensor->dtype));
    assay_hash_u64(hash, tensor->rank);
    for (size_t i = 0; i < tensor->rank; i++)
        assay_hash_u64(hash, tensor->shape[i]);
    assay_hash_bytes(hash, tensor->data, tensor->bytes);
}

/* What heads of most models do not have is left out, so that their digest is that of the weight. */
struct assay_digest assay_head_content_digest(const struct assay_architecture *architecture,
                                              const struct assay_checkpoint *checkpoint,
                                              const struct assay_head_figures *figures)
{
    static const char *const parts[] = {
        "weight",        "weight_scale",         "weight_packed",           "weight_zero_point",
        "weight.absmax", "weight.nested_absmax", "weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4",
        "bias"};
    const struct {
        const char *name;
        float value, usual;
    } factors[] = {{"soft_cap", figures->soft_cap, 0}, {"logit_scale", figures->logit_scale, 1}};
    char name[ASSAY_HEAD_NAME_BYTES], full[ASSAY_HEAD_NAME_BYTES + 64];
    struct assay_hash hash;
    assay_head_name(architecture, checkpoint, figures->tied, name);
    assay_hash_init(&hash, "assay.head.v1");
    for (size_t i = 0; i < ASSAY_COUNT(parts) - !architecture->head_bias; i++) {
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, full);
        if (tensor)
            digest_tensor(&hash, tensor);
    }
    for (size_t i = 0; i < ASSAY_COUNT(factors); i++) {
        if (factors[i].value == factors[i].usual)
            continue;
        assay_hash_str(&hash, factors[i].name);
        assay_hash_bytes(&hash, &factors[i].value, sizeof factors[i].value);
    }
    if (figures->vocab_used > 0) {
        assay_hash_str(&hash, "used_vocab");
        assay_hash_u64(&hash, figures->vocab_used);
    }
    return assay_hash_final(&hash);
}
