#include "common/base/utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

size_t assay_utf8_character(const void *text, size_t left)
{
    const unsigned char *p = text;
    if (p[0] < 0x80)
        return 1;
    size_t bytes = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < bytes)
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    /* The second byte tells overlong forms, surrogates and what lies above U+10FFFF. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return bytes;
}

size_t assay_utf8_prefix(const void *text, size_t bytes)
{
    const unsigned char *p = text;
    size_t at = 0;
    while (at < bytes) {
        uint64_t eight;
        if (bytes - at >= sizeof eight) {
            memcpy(&eight, p + at, sizeof eight);
            if (!(eight & HIGH_BITS)) {
                at += sizeof eight;
                continue;
            }
        }
        size_t step = assay_utf8_character(p + at, bytes - at);
        if (step == 0)
            break;
        at += step;
    }
    return at;
}
