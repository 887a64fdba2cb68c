#include "common/formats/json_scan.h"

#include <string.h>

#include "common/base/limits.h"

/* cJSON copies a number into 64 bytes. */
#define NUMBER_BYTES_MAX 63

struct scan {
    const unsigned char *start, *at, *end;
    size_t keys, values;
    size_t key_wanted; /* stop there; SIZE_MAX: nowhere */
    size_t key_offset;
    const char *reason; /* NULL while all is well */
};

static bool fail(struct scan *scan, const char *reason)
{
    scan->reason = reason;
    return false;
}

/* -1 at the end of the text. */
static int peek(const struct scan *scan)
{
    return scan->at < scan->end ? *scan->at : -1;
}

static int peek_past_space(struct scan *scan)
{
    while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
    return peek(scan);
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool scan_digits(struct scan *scan)
{
    if (!is_digit(peek(scan)))
        return fail(scan, "expected a digit");
    while (is_digit(peek(scan)))
        scan->at++;
    return true;
}

static bool scan_number(struct scan *scan)
{
    const unsigned char *begin = scan->at;
    if (peek(scan) == '-')
        scan->at++;
    if (peek(scan) == '0')
        scan->at++;
    else if (!scan_digits(scan))
        return false;
    if (peek(scan) == '.') {
        scan->at++;
        if (!scan_digits(scan))
            return false;
    }
    if (peek(scan) == 'e' || peek(scan) == 'E') {
        scan->at++;
        if (peek(scan) == '+' || peek(scan) == '-')
            scan->at++;
        if (!scan_digits(scan))
            return false;
    }
    if (scan->at - begin > NUMBER_BYTES_MAX) {
        scan->at = begin;
        return fail(scan, "a number of more than 63 characters");
    }
    return true;
}

static bool scan_hex4(struct scan *scan, unsigned *ret)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        int c = peek(scan);
        if (is_digit(c))
            value = value * 16 + (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (unsigned)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value * 16 + (unsigned)(c - 'A' + 10);
        else
            return fail(scan, "expected four hexadecimal digits after \\u");
        scan->at++;
    }
    *ret = value;
    return true;
}

static bool scan_unicode_escape(struct scan *scan)
{
    unsigned first, second;
    if (!scan_hex4(scan, &first))
        return false;
    if (first == 0)
        return fail(scan, "a NUL character in a string");
    if (first >= 0xdc00 && first <= 0xdfff)
        return fail(scan, "the second half of a surrogate pair without the first");
    if (first < 0xd800 || first > 0xdbff)
        return true;
    if (scan->end - scan->at < 2 || scan->at[0] != '\\' || scan->at[1] != 'u')
        return fail(scan, "the first half of a surrogate pair without the second");
    scan->at += 2;
    if (!scan_hex4(scan, &second))
        return false;
    if (second < 0xdc00 || second > 0xdfff)
        return fail(scan, "the first half of a surrogate pair without the second");
    return true;
}

static bool scan_escape(struct scan *scan)
{
    scan->at++;
    int c = peek(scan);
    if (c < 0 || !strchr("\"\\/bfnrtu", c) || c == 0)
        return fail(scan, "unknown escape in a string");
    scan->at++;
    return c != 'u' || scan_unicode_escape(scan);
}

/* One character of more than one byte: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629). */
static bool scan_utf8(struct scan *scan)
{
    unsigned char lead = *scan->at;
    unsigned char low = 0x80, high = 0xbf;
    int more = lead >= 0xc2 && lead <= 0xdf   ? 1
               : lead >= 0xe0 && lead <= 0xef ? 2
               : lead >= 0xf0 && lead <= 0xf4 ? 3
                                              : 0;
    if (!more)
        return fail(scan, "invalid UTF-8");
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    scan->at++;
    for (int i = 0; i < more; i++) {
        int c = peek(scan);
        if (c < low || c > high)
            return fail(scan, "invalid UTF-8");
        low = 0x80;
        high = 0xbf;
        scan->at++;
    }
    return true;
}

static bool scan_string(struct scan *scan)
{
    scan->at++;
    for (;;) {
        int c = peek(scan);
        bool good = true;
        if (c < 0)
            return fail(scan, "the text ends inside a string");
        if (c == '"') {
            scan->at++;
            return true;
        }
        if (c < 0x20)
            return fail(scan, "a control character in a string");
        if (c == '\\')
            good = scan_escape(scan);
        else if (c >= 0x80)
            good = scan_utf8(scan);
        else
            scan->at++;
        if (!good)
            return false;
    }
}

static bool scan_word(struct scan *scan, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, word, len) != 0)
        return fail(scan, "expected a value");
    scan->at += len;
    return true;
}

static bool scan_scalar(struct scan *scan, int c)
{
    if (c == '"')
        return scan_string(scan);
    if (c == '-' || is_digit(c))
        return scan_number(scan);
    if (c == 't')
        return scan_word(scan, "true");
    if (c == 'f')
        return scan_word(scan, "false");
    if (c == 'n')
        return scan_word(scan, "null");
    return fail(scan, c < 0 ? "the text ends where a value should be" : "expected a value");
}

/* "key": */
static bool scan_key(struct scan *scan)
{
    if (peek_past_space(scan) != '"')
        return fail(scan, "expected a key in quotes");
    scan->key_offset = (size_t)(scan->at - scan->start);
    if (scan->keys == scan->key_wanted)
        return fail(scan, "the key that was wanted");
    scan->keys++;
    if (!scan_string(scan))
        return false;
    if (peek_past_space(scan) != ':')
        return fail(scan, "expected ':' after a key");
    scan->at++;
    return true;
}

/* Behind a value: closes what ends here, then goes to where the next value begins. *depth 0: the whole text is done. */
static bool scan_after_value(struct scan *scan, const char *open, size_t *depth)
{
    while (*depth) {
        bool in_object = open[*depth - 1] == '{';
        int c = peek_past_space(scan);
        if (c == (in_object ? '}' : ']')) {
            scan->at++;
            --*depth;
            continue;
        }
        if (c != ',')
            return fail(scan, c < 0       ? "the text ends inside an object or array"
                              : in_object ? "expected ',' or '}'"
                                          : "expected ',' or ']'");
        scan->at++;
        return !in_object || scan_key(scan);
    }
    return true;
}

static bool scan_document(struct scan *scan)
{
    char open[ASSAY_JSON_DEPTH_MAX];
    size_t depth = 0;
    do {
        int c = peek_past_space(scan);
        if (++scan->values > ASSAY_JSON_VALUES_MAX)
            return fail(scan, "more values than are allowed in one text");
        if (c == '{' || c == '[') {
            if (depth == ASSAY_JSON_DEPTH_MAX)
                return fail(scan, "nesting is deeper than 64");
            open[depth++] = (char)c;
            scan->at++;
            if (peek_past_space(scan) != (c == '{' ? '}' : ']')) {
                if (c == '{' && !scan_key(scan))
                    return false;
                continue;
            }
            scan->at++;
            depth--;
        } else if (!scan_scalar(scan, c)) {
            return false;
        }
        if (!scan_after_value(scan, open, &depth))
            return false;
    } while (depth);
    if (peek_past_space(scan) >= 0)
        return fail(scan, "bytes after the value");
    return true;
}

static struct scan scan_of(const char *text, size_t len, size_t key_wanted)
{
    const unsigned char *bytes = (const unsigned char *)text;
    return (struct scan){.start = bytes, .at = bytes, .end = bytes + len, .key_wanted = key_wanted};
}

_Static_assert(ASSAY_JSON_DEPTH_MAX == 64, "the sentence on nesting says 64");

bool assay_json_scan(const char *text, size_t len, struct assay_json_fault *ret)
{
    struct scan scan = scan_of(text, len, SIZE_MAX);
    if (scan_document(&scan))
        return true;
    *ret = (struct assay_json_fault){(size_t)(scan.at - scan.start), scan.reason};
    return false;
}

size_t assay_json_key_offset(const char *text, size_t len, size_t ordinal)
{
    struct scan scan = scan_of(text, len, ordinal);
    scan_document(&scan);
    return scan.key_offset;
}
