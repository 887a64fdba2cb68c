/* `assay embed` and `assay classify` by a worker. */
#pragma once

#include "cli/respond_remote.h"
#include "cli/texts.h"

/* What came of all texts. */
struct assay_embedded {
    float *values; /* [texts, width] */
    size_t width;
    char **labels; /* [width], of a classifier; else NULL */
};

/* In calls of a size that workers take; pairs are for `classify`. Signals were prepared for (interrupt.h): CANCELLED
 * after one. INVALID_ARGUMENT names a text that is not UTF-8. INTERNAL: an answer that contradicts itself. */
enum assay_status assay_embed_remote(const struct assay_respond_where *where, const char *model,
                                     const struct assay_texts *texts, bool classify, struct assay_embedded *ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
void assay_embedded_release(struct assay_embedded *embedded);
