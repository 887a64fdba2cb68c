/* Text of token ids that come one by one, until one of the stop strings appears. What was handed out does not change:
 * bytes of a character that is not whole, and what may be the beginning of a stop string, wait. */
#pragma once

#include "common/tokenizer/tokenizer.h"

struct assay_text_stream;

/* Special tokens give no text. `stops` are copied; an empty one is INVALID_ARGUMENT. The tokenizer outlives the stream.
 */
enum assay_status assay_text_stream_new(const struct assay_tokenizer *tokenizer, const char *const *stops,
                                        size_t stops_count, struct assay_text_stream **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;
void assay_text_stream_free(struct assay_text_stream *stream); /* NULL is fine */

/* The text that became certain: *ret and *ret_len point into the stream, until the next call. *ret_stopped: a stop
 * string appeared; the text ends before it, and no more ids are to be given. */
enum assay_status assay_text_stream_push(struct assay_text_stream *stream, int32_t id, const char **ret,
                                         size_t *ret_len, bool *ret_stopped, struct assay_err *err) ASSAY_MUST_USE;
/* No more ids: what had waited. */
enum assay_status assay_text_stream_finish(struct assay_text_stream *stream, const char **ret, size_t *ret_len,
                                           struct assay_err *err) ASSAY_MUST_USE;
/* All text so far, that which waits included. Valid until the next call. */
const char *assay_text_stream_text(const struct assay_text_stream *stream, size_t *ret_len);
