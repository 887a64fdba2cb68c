#include "common/formats/gguf_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void assay_gguf_quote(struct assay_buf *out, struct assay_gguf_text text)
{
    assay_buf_str(out, "\"");
    size_t plain = 0; /* bytes that stand for themselves and are not yet in `out` end at i, begin here */
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        assay_buf_append(out, text.bytes + plain, i - plain);
        plain = i + 1;
        if (c < 0x20)
            assay_buf_printf(out, "\\u%04x", c);
        else
            assay_buf_printf(out, "\\%c", c);
    }
    assay_buf_append(out, text.bytes + plain, text.len - plain);
    assay_buf_str(out, "\"");
}

void assay_gguf_number(struct assay_buf *out, double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    assay_buf_str(out, text);
    if (!strpbrk(text, ".e"))
        assay_buf_str(out, ".0");
}

char *assay_gguf_cut(struct assay_gguf_text text, char room[104])
{
    snprintf(room, 104, "%.*s%s", (int)ASSAY_MIN(text.len, (size_t)100), text.bytes, text.len > 100 ? "..." : "");
    return room;
}
