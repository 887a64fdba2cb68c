/* Text from elsewhere, made harmless for a line of a log or of a terminal. Any thread. */
#pragma once

#include "common/base/buf.h"

/* In place. One '?' stands for each character that a terminal or a reader of lines could take for more than a
 * character: controls (newlines and escapes among them, U+0080 to U+009F too), separators of lines and paragraphs,
 * marks that turn the direction of writing; and for each byte that is not UTF-8. The text never grows. */
void assay_text_clean(char *text);
/* The same, for several lines: newlines stay. */
void assay_text_clean_lines(char *text);
/* assay_text_clean of what stands in the buffer from `from` on. */
void assay_buf_clean(struct assay_buf *buf, size_t from);
