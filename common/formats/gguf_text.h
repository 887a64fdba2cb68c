/* JSON of the files that an import writes. Internal to formats. */
#pragma once

#include "common/base/buf.h"
#include "common/formats/gguf.h"

/* The text in quotes; it is valid UTF-8. */
void assay_gguf_quote(struct assay_buf *out, struct assay_gguf_text text);
/* The shortest decimal of 15 to 17 digits that reads back as the same double, with a point or an exponent: readers in
 * Python tell it from an integer. `value` is finite. */
void assay_gguf_number(struct assay_buf *out, double value);
/* `text` with NUL behind, cut to 100 bytes, for sentences; returns `room`. */
char *assay_gguf_cut(struct assay_gguf_text text, char room[104]);
