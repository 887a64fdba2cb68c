#include "common/wire/utf8.h"

#include <string.h>

#include "common/base/utf8.h"

bool assay_utf8_valid(const char *text, size_t bytes)
{
    return assay_utf8_prefix(text, bytes) == bytes;
}

void assay_utf8_repair(char *text)
{
    size_t bytes = strlen(text);
    for (size_t at = 0; at < bytes;) {
        size_t step = assay_utf8_character(text + at, bytes - at);
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
