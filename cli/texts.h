/* Texts from a file: a JSON array of strings or of pairs of strings, or one text a line. */
#pragma once

#include <stddef.h>

#include "common/base/status.h"
#include "common/nn/sentences.h"

struct assay_texts {
    struct assay_text *at;
    struct assay_text *pairs; /* [count]: the second text of each; NULL: they are no pairs */
    size_t count;
    char *bytes; /* what the texts point into */
    void *json;  /* likewise */
};

/* `file` may be "-" for stdin. A file that begins with '[' is JSON. INVALID_ARGUMENT: not JSON strings nor all pairs of
 * strings, or no text at all. The last line may lack its end; a carriage return before it is dropped. */
enum assay_status assay_texts_read(const char *file, struct assay_texts *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_texts_release(struct assay_texts *texts);
