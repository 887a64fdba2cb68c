#include "common/tokenizer/text_stream.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"

/* What an incomplete character decodes to. */
#define REPLACEMENT "\xef\xbf\xbd"

struct assay_text_stream {
    const struct assay_tokenizer *tokenizer;
    char **stops;
    size_t stops_count, stop_longest;
    int32_t *ids;
    size_t count, capacity;
    /* ids [context, read) have given their text; they are decoded again with what follows, as a token's text depends on
     * the one before it. */
    size_t context, read;
    struct assay_buf text;
    size_t given; /* bytes of text that were handed out */
    bool open;    /* the last id with a text is one byte: more may follow */
    bool stopped;
};

enum assay_status assay_text_stream_new(const struct assay_tokenizer *tokenizer, const char *const *stops,
                                        size_t stops_count, struct assay_text_stream **ret, struct assay_err *err)
{
    struct assay_text_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a text");
    stream->tokenizer = tokenizer;
    stream->stops = calloc(stops_count + 1, sizeof *stream->stops);
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < stops_count && stream->stops && status == ASSAY_OK; i++) {
        size_t len = strlen(stops[i]);
        if (len == 0)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "stop string %zu is empty", i);
        else if (!(stream->stops[i] = strdup(stops[i])))
            status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu stop strings", stops_count);
        stream->stop_longest = ASSAY_MAX(stream->stop_longest, len);
        stream->stops_count = i + 1;
    }
    if (status == ASSAY_OK && !stream->stops)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu stop strings", stops_count);
    if (status != ASSAY_OK) {
        assay_text_stream_free(stream);
        return status;
    }
    *ret = stream;
    return ASSAY_OK;
}

void assay_text_stream_free(struct assay_text_stream *stream)
{
    if (!stream)
        return;
    for (size_t i = 0; i < stream->stops_count; i++)
        free(stream->stops[i]);
    free(stream->stops);
    free(stream->ids);
    assay_buf_release(&stream->text);
    free(stream);
}

static enum assay_status keep_id(struct assay_text_stream *s, int32_t id, struct assay_err *err)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        int32_t *ids = realloc(s->ids, capacity * sizeof *ids);
        if (!ids)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu ids", capacity);
        s->ids = ids;
        s->capacity = capacity;
    }
    s->ids[s->count++] = id;
    return ASSAY_OK;
}

/* Whether the bytes so far may go on behind this id; special tokens do not part bytes, as they have no text. */
static enum assay_status note_bytes(struct assay_text_stream *s, int32_t id, struct assay_err *err)
{
    if (assay_tokenizer_is_byte(s->tokenizer, id)) {
        s->open = true;
        return ASSAY_OK;
    }
    assay_auto(assay_free_ptr) char *alone = NULL;
    size_t len = 0;
    enum assay_status status = ASSAY_OK;
    if (s->open)
        status = assay_tokenizer_decode(s->tokenizer, &id, 1, true, &alone, &len, err);
    if (len > 0)
        s->open = false;
    return status;
}

static bool ends_open(const char *text, size_t len)
{
    size_t mark = strlen(REPLACEMENT);
    return len >= mark && memcmp(text + len - mark, REPLACEMENT, mark) == 0;
}

/* Appends the text of the ids that have given none, unless its last character may not be whole. */
static enum assay_status read_ids(struct assay_text_stream *s, bool last, struct assay_err *err)
{
    if (!last && s->open)
        return ASSAY_OK;
    assay_auto(assay_free_ptr) char *before = NULL;
    assay_auto(assay_free_ptr) char *all = NULL;
    size_t before_len = 0, all_len = 0;
    enum assay_status status = assay_tokenizer_decode(s->tokenizer, s->ids + s->context, s->read - s->context, true,
                                                      &before, &before_len, err);
    if (status == ASSAY_OK)
        status =
            assay_tokenizer_decode(s->tokenizer, s->ids + s->context, s->count - s->context, true, &all, &all_len, err);
    if (status != ASSAY_OK || all_len <= before_len || (ends_open(all, all_len) && !last))
        return status;
    assay_buf_append(&s->text, all + before_len, all_len - before_len);
    s->context = s->read;
    s->read = s->count;
    return assay_buf_check(&s->text, err);
}

/* Cuts the text before the first stop string in what was not handed out. */
static void find_stop(struct assay_text_stream *s)
{
    const char *text = assay_buf_cstr(&s->text);
    size_t first = s->text.len;
    for (size_t i = 0; i < s->stops_count; i++) {
        const char *at = memmem(text + s->given, s->text.len - s->given, s->stops[i], strlen(s->stops[i]));
        if (at)
            first = ASSAY_MIN(first, (size_t)(at - text));
    }
    s->stopped = first < s->text.len;
    if (s->stopped) {
        s->text.len = first;
        s->text.data[first] = '\0';
    }
}

/* Bytes at the end of the text that a stop string may begin with. */
static size_t held_back(const struct assay_text_stream *s)
{
    const char *text = assay_buf_cstr(&s->text);
    for (size_t held = ASSAY_MIN(s->stop_longest, s->text.len - s->given); held > 0; held--)
        for (size_t i = 0; i < s->stops_count; i++)
            if (held < strlen(s->stops[i]) && memcmp(text + s->text.len - held, s->stops[i], held) == 0)
                return held;
    return 0;
}

static void hand_out(struct assay_text_stream *s, size_t held, const char **ret, size_t *ret_len)
{
    *ret = assay_buf_cstr(&s->text) + s->given;
    *ret_len = s->text.len - held - s->given;
    s->given = s->text.len - held;
}

enum assay_status assay_text_stream_push(struct assay_text_stream *stream, int32_t id, const char **ret,
                                         size_t *ret_len, bool *ret_stopped, struct assay_err *err)
{
    enum assay_status status = keep_id(stream, id, err);
    if (status == ASSAY_OK)
        status = note_bytes(stream, id, err);
    if (status == ASSAY_OK)
        status = read_ids(stream, false, err);
    if (status != ASSAY_OK)
        return status;
    find_stop(stream);
    hand_out(stream, stream->stopped ? 0 : held_back(stream), ret, ret_len);
    *ret_stopped = stream->stopped;
    return ASSAY_OK;
}

enum assay_status assay_text_stream_finish(struct assay_text_stream *stream, const char **ret, size_t *ret_len,
                                           struct assay_err *err)
{
    if (!stream->stopped) {
        enum assay_status status = read_ids(stream, true, err);
        if (status != ASSAY_OK)
            return status;
        find_stop(stream);
    }
    hand_out(stream, 0, ret, ret_len);
    return ASSAY_OK;
}

const char *assay_text_stream_text(const struct assay_text_stream *stream, size_t *ret_len)
{
    *ret_len = stream->text.len;
    return assay_buf_cstr(&stream->text);
}
