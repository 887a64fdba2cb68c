#include "common/wire/json_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The next character of the camel-case form, '\0' at its end. */
static char next_camel(const char **name)
{
    const char *at = *name;
    while (*at == '_')
        at++;
    char c = *at;
    if (at != *name && c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    *name = c ? at + 1 : at;
    return c;
}

char *assay_json_camel(const char *name, char *ret, size_t bytes)
{
    size_t len = 0;
    for (char c = next_camel(&name); c && len + 1 < bytes; c = next_camel(&name))
        ret[len++] = c;
    ret[len] = '\0';
    return ret;
}

bool assay_json_key_is(const char *key, const char *name)
{
    if (strcmp(key, name) == 0)
        return true;
    for (; *key; key++)
        if (*key != next_camel(&name))
            return false;
    return next_camel(&name) == '\0';
}

void assay_base64_write(const uint8_t *data, size_t bytes, char *text)
{
    for (size_t at = 0; at < bytes; at += 3) {
        size_t left = bytes - at;
        uint32_t group = (uint32_t)data[at] << 16 | (left > 1 ? (uint32_t)data[at + 1] << 8 : 0) |
                         (left > 2 ? (uint32_t)data[at + 2] : 0);
        *text++ = alphabet[group >> 18];
        *text++ = alphabet[group >> 12 & 63];
        *text++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
        *text++ = left > 2 ? alphabet[group & 63] : '=';
    }
    *text = '\0';
}

static int digit_of(char c)
{
    if (c == '-' || c == '_')
        return c == '-' ? 62 : 63;
    const char *at = strchr(alphabet, c);
    return at && c ? (int)(at - alphabet) : -1;
}

bool assay_base64_read(const char *text, uint8_t *data, size_t *ret_bytes)
{
    size_t len = strlen(text), digits = len;
    while (digits > 0 && len - digits < 2 && text[digits - 1] == '=')
        digits--;
    if (digits % 4 == 1 || (len != digits && len % 4 != 0))
        return false;
    uint32_t group = 0;
    unsigned bits = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0)
            return false;
        group = group << 6 | (uint32_t)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            data[bytes++] = (uint8_t)(group >> bits);
            group &= (1u << bits) - 1;
        }
    }
    /* Bits that no byte has: a second spelling of the same bytes. */
    if (group != 0)
        return false;
    *ret_bytes = bytes;
    return true;
}

void assay_number_write(double value, bool single, char text[ASSAY_NUMBER_TEXT_BYTES])
{
    int most = single ? 9 : 17;
    /* Some parsers take "-0" for an integer, which has no sign then. */
    if (value == 0) {
        strcpy(text, signbit(value) ? "-0.0" : "0");
        return;
    }
    for (int digits = single ? 6 : 15; digits <= most; digits++) {
        snprintf(text, ASSAY_NUMBER_TEXT_BYTES, "%.*g", digits, value);
        if ((single ? (double)strtof(text, NULL) : strtod(text, NULL)) == value)
            return;
    }
}

bool assay_decimal_read(const char *text, struct assay_decimal *ret)
{
    bool negative = *text == '-';
    text += negative;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0' || (text[0] == '0' && digits > 1))
        return false;
    uint64_t magnitude = 0;
    for (; *text; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (magnitude > (UINT64_MAX - digit) / 10)
            return false;
        magnitude = magnitude * 10 + digit;
    }
    *ret = (struct assay_decimal){negative, magnitude};
    return true;
}

size_t assay_field_value_bytes(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}
