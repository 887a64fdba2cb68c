#include "common/base/text.h"

#include <string.h>

#include "common/base/utf8.h"

/* The code point of a character of `bytes` bytes. */
static uint32_t code_point(const unsigned char *p, size_t bytes)
{
    uint32_t code = bytes == 1 ? p[0] : p[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++)
        code = code << 6 | (p[i] & 0x3fu);
    return code;
}

static bool is_harmful(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x061c || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/* text[bytes]; the bytes that are left. */
static size_t clean(char *text, size_t bytes, bool keeps_newlines)
{
    size_t to = 0;
    for (size_t at = 0; at < bytes;) {
        size_t step = assay_utf8_character(text + at, bytes - at);
        uint32_t code = step ? code_point((const unsigned char *)text + at, step) : 0;
        if (is_harmful(code) && !(keeps_newlines && code == '\n')) {
            text[to++] = '?';
        } else {
            memmove(text + to, text + at, step);
            to += step;
        }
        at += step ? step : 1;
    }
    return to;
}

void assay_text_clean(char *text)
{
    text[clean(text, strlen(text), false)] = '\0';
}

void assay_text_clean_lines(char *text)
{
    text[clean(text, strlen(text), true)] = '\0';
}

void assay_buf_clean(struct assay_buf *buf, size_t from)
{
    if (buf->failed || from >= buf->len)
        return;
    buf->len = from + clean(buf->data + from, buf->len - from, false);
    buf->data[buf->len] = '\0';
}
