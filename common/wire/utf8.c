#include "common/wire/utf8.h"

#include <stdint.h>
#include <string.h>

/* Length of the valid sequence at p, 0 when there is none. */
static size_t sequence(const unsigned char *p, size_t left)
{
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

bool assay_utf8_valid(const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    for (size_t at = 0; at < bytes;) {
        size_t step = sequence(p + at, bytes - at);
        if (step == 0)
            return false;
        at += step;
    }
    return true;
}

void assay_utf8_repair(char *text)
{
    size_t bytes = strlen(text);
    for (size_t at = 0; at < bytes;) {
        size_t step = sequence((const unsigned char *)text + at, bytes - at);
        if (step == 0)
            text[at] = '?';
        at += step ? step : 1;
    }
}

static bool value_valid(const ProtobufCFieldDescriptor *field, const void *value, const char **ret_field)
{
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *message = *(ProtobufCMessage *const *)value;
        return !message || assay_utf8_message(message, ret_field);
    }
    const char *text = *(char *const *)value;
    if (!text || assay_utf8_valid(text, strlen(text)))
        return true;
    *ret_field = field->name;
    return false;
}

static bool field_valid(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, const char **ret_field)
{
    if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
        return true;
    const char *base = (const char *)message;
    const void *member = base + field->offset;
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
        return true;
    if (field->label != PROTOBUF_C_LABEL_REPEATED)
        return value_valid(field, member, ret_field);
    size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
    void *const *values = *(void **const *)member;
    for (size_t i = 0; i < count; i++)
        if (!value_valid(field, &values[i], ret_field))
            return false;
    return true;
}

bool assay_utf8_message(const ProtobufCMessage *message, const char **ret_field)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = 0; i < descriptor->n_fields; i++)
        if (!field_valid(message, &descriptor->fields[i], ret_field))
            return false;
    return true;
}
