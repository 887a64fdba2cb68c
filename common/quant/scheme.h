/* Schemes: ways to represent weights. A scheme with its parameters and compute is written scheme[:key=value]*. */
#pragma once

#include "common/base/digest.h"

enum assay_scheme { ASSAY_SCHEME_FP32, ASSAY_SCHEME_INT8 };

enum assay_compute { ASSAY_COMPUTE_F32 };

struct assay_spec {
    enum assay_scheme scheme;
    enum assay_compute compute;
};

/* INVALID_ARGUMENT for an unknown scheme (lists the known ones), parameter or value. */
enum assay_status assay_spec_parse(const char *text, struct assay_spec *ret, struct assay_err *err) ASSAY_MUST_USE;

/* Canonical text: parameters sorted, defaults left out: "int8". Two specs are equal exactly when their texts are. */
#define ASSAY_SPEC_TEXT_MAX 256
char *assay_spec_format(const struct assay_spec *spec, char text[ASSAY_SPEC_TEXT_MAX]);

const char *assay_scheme_name(enum assay_scheme scheme);

/* digest(model, spec). */
struct assay_variant_id assay_variant_id_of(const struct assay_model_id *model, const struct assay_spec *spec);
