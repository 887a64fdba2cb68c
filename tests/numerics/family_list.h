/* Small models of families: tests/interop/make_families.py wrote them. */
#pragma once

#define VECTORS ASSAY_SOURCE_DIR "/tests/vectors/families/"

static const char *const family_models[] = {
    VECTORS "llama_yarn_bias", VECTORS "llama_dynamic",       VECTORS "llama_linear",
    VECTORS "llama_longrope",  VECTORS "qwen2_windows",       VECTORS "qwen3_upper_windows",
    VECTORS "phi3_partial",    VECTORS "gptneox_sequential",  VECTORS "gpt2_scaled",
    VECTORS "phi_head_bias",   VECTORS "granite_multipliers", VECTORS "gemma2",
    VECTORS "gemma3",          VECTORS "deepseek_v3",         VECTORS "deepseek_v3_direct",
};
