/* A model of random weights on disk, in the layout of a scheme: for measuring speed, which does not depend on values.
 */
#pragma once

#include "common/nn/model.h"
#include "common/quant/scheme.h"

/* The sizes of Qwen2.5-0.5B as a Llama model. */
extern const struct assay_model_config bench_shape_qwen;

/* Writes config.json and model.safetensors into dir, which exists. */
enum assay_status bench_model_write(const char *dir, const struct assay_model_config *shape,
                                    const struct assay_spec *spec, struct assay_err *err) ASSAY_MUST_USE;
