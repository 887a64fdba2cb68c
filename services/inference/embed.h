/* Embed and Classify: texts through an encoder, in one unary call. */
#pragma once

#include "services/inference/respond_internal.h"

#define ASSAY_EMBED_TEXTS_MAX 4096
#define ASSAY_EMBED_BYTES_MAX (8u << 20)
/* Texts between two looks at whether the answer is still wanted; one batch of the encoder. */
#define ASSAY_EMBED_TEXTS_AT_ONCE 256
/* Values of one answer, which is one attachment. */
#define ASSAY_EMBED_VALUES_MAX (64u << 20)

/* What makes one of the two methods. */
struct assay_texts_method {
    const char *span;
    /* Values for each text, 0 when the model cannot do that (FAILED_PRECONDITION). */
    size_t (*width)(const struct assay_sentences *sentences);
    enum assay_status (*run)(const struct assay_sentences *sentences, const struct assay_text *texts,
                             const struct assay_text *pairs, size_t count, float *values, struct assay_err *err);
    /* Answers with `values`, which go with the attachment. */
    void (*reply)(struct assay_call *call, const struct assay_sentences *sentences, Assay__V1__Tensor *tensor,
                  const struct assay_attachment *values);
    const char *missing; /* the sentence where width is 0 */
};

/* Loop thread. The texts live in the call's request; pairs are none, or the second text of each. */
void assay_texts_serve(struct assay_respond *respond, struct assay_call *call, const Assay__V1__Variant *model,
                       char *const *texts, size_t count, char *const *pairs, size_t pairs_count,
                       const struct assay_texts_method *method);
