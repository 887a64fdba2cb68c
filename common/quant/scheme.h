/* Schemes: ways to represent weights. A scheme with its parameters and compute is written scheme[:key=value]*. */
#pragma once

#include "common/base/digest.h"

enum assay_scheme {
    ASSAY_SCHEME_FP32,
    ASSAY_SCHEME_FP16,
    ASSAY_SCHEME_BF16,
    ASSAY_SCHEME_INT8,
    ASSAY_SCHEME_NF4,
    ASSAY_SCHEME_INT4
};

/* What the inputs of matrix products are rounded to. */
enum assay_compute { ASSAY_COMPUTE_F32, ASSAY_COMPUTE_BF16 };

/* Which engine runs the variant: ANY of the workers of its scheme, or those of one engine. Nothing else of the variant
 * depends on it; it is there so that one model can be compared under two engines. */
enum assay_engine { ASSAY_ENGINE_ANY, ASSAY_ENGINE_ASSAY, ASSAY_ENGINE_TRANSFORMERS };

/* group_size: one scale a row. */
#define ASSAY_GROUP_CHANNEL UINT32_MAX

struct assay_spec {
    enum assay_scheme scheme;
    enum assay_compute compute;
    uint32_t group_size; /* int4: elements that share a scale; 0: as assay_int4_group_size says for the model */
    bool double_quant;   /* nf4: the scales are quantized, too */
    enum assay_engine engine;
};

/* INVALID_ARGUMENT for an unknown scheme (lists the known ones), parameter or value. */
enum assay_status assay_spec_parse(const char *text, struct assay_spec *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Canonical text: parameters sorted, defaults left out: "int4:group_size=64". Two specs are equal exactly when their
 * texts are. */
#define ASSAY_SPEC_TEXT_MAX 256
char *assay_spec_format(const struct assay_spec *spec, char text[ASSAY_SPEC_TEXT_MAX]);

const char *assay_scheme_name(enum assay_scheme scheme);
const char *assay_compute_name(enum assay_compute compute); /* "f32" */
const char *assay_engine_name(enum assay_engine engine);    /* "any" */

/* digest(model, spec). */
struct assay_variant_id assay_variant_id_of(const struct assay_model_id *model, const struct assay_spec *spec);
