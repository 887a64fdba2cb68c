/* A strict check of JSON's grammar (RFC 8259) before cJSON sees the text: cJSON recurses, cuts strings at an escaped
 * NUL, takes control characters and leading zeros, and keeps the position of an error in a global. Internal to formats.
 */
#pragma once

#include "common/base/status.h"

struct assay_json_fault {
    size_t offset; /* of the byte that cannot stand there */
    const char *reason;
};

/* True when text is exactly one value in UTF-8 within the ceilings; else *ret says where it is not. No recursion. */
bool assay_json_scan(const char *text, size_t len, struct assay_json_fault *ret);

/* Byte offset of the key that has `ordinal` keys before it in a text that passed the scan. */
size_t assay_json_key_offset(const char *text, size_t len, size_t ordinal);
