/* A variant's spec as a message and back. One parser, that of common/quant/scheme.h, judges users' text and messages
 * alike. */
#pragma once

#include "common/quant/scheme.h"
#include "proto/types.pb-c.h"

#define ASSAY_SPEC_PARAMETERS_MAX 16

/* The message and what it points to; not to be moved once filled. */
struct assay_spec_message {
    Assay__V1__VariantSpec spec;
    Assay__V1__Parameter parameters[ASSAY_SPEC_PARAMETERS_MAX];
    Assay__V1__Parameter *list[ASSAY_SPEC_PARAMETERS_MAX];
    char text[ASSAY_SPEC_TEXT_MAX];
};

/* `canonical` is a text of assay_spec_format. */
void assay_spec_message_fill(struct assay_spec_message *message, const char *canonical);

/* INVALID_ARGUMENT as assay_spec_parse; RESOURCE_EXHAUSTED when out of memory. */
enum assay_status assay_spec_of_message(const Assay__V1__VariantSpec *message, struct assay_spec *ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
