/* A message into JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/json.h"
#include "common/wire/json_text.h"
#include "common/wire/utf8.h"

#define NAME_BYTES 128

static cJSON *out_of_memory(struct assay_err *err)
{
    assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for JSON");
    return NULL;
}

static cJSON *write_message(const ProtobufCMessage *message, struct assay_err *err);

static cJSON *write_real(double value, bool single)
{
    char text[ASSAY_NUMBER_TEXT_BYTES];
    if (isnan(value))
        return cJSON_CreateString("NaN");
    if (isinf(value))
        return cJSON_CreateString(value > 0 ? "Infinity" : "-Infinity");
    assay_number_write(value, single, text);
    return cJSON_CreateRaw(text);
}

static cJSON *write_long(bool negative, uint64_t magnitude)
{
    char text[24], *at = text + sizeof text;
    *--at = '\0';
    do
        *--at = (char)('0' + magnitude % 10);
    while (magnitude /= 10);
    if (negative)
        *--at = '-';
    return cJSON_CreateString(at);
}

static cJSON *write_enum(const ProtobufCEnumDescriptor *descriptor, int32_t value)
{
    const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(descriptor, value);
    return row ? cJSON_CreateString(row->name) : cJSON_CreateNumber(value);
}

static cJSON *write_bytes(const ProtobufCBinaryData *bytes)
{
    char *text = malloc(ASSAY_BASE64_BYTES(bytes->len));
    if (!text)
        return NULL;
    assay_base64_write(bytes->data, bytes->len, text);
    cJSON *json = cJSON_CreateString(text);
    free(text);
    return json;
}

static cJSON *write_string(const ProtobufCFieldDescriptor *field, const char *text, struct assay_err *err)
{
    if (!assay_utf8_valid(text, strlen(text))) {
        assay_err_set(err, ASSAY_INVALID_ARGUMENT, "field \"%s\": the text is not UTF-8", field->name);
        return NULL;
    }
    cJSON *json = cJSON_CreateString(text);
    return json ? json : out_of_memory(err);
}

/* One value of a field; NULL with the sentence. */
static cJSON *write_value(const ProtobufCFieldDescriptor *field, const void *value, struct assay_err *err)
{
    cJSON *json = NULL;
    int64_t whole;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        json = cJSON_CreateNumber(*(const int32_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        json = cJSON_CreateNumber(*(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        whole = *(const int64_t *)value;
        json = write_long(whole < 0, whole < 0 ? -(uint64_t)whole : (uint64_t)whole);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        json = write_long(false, *(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        json = write_real((double)*(const float *)value, true);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        json = write_real(*(const double *)value, false);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        json = cJSON_CreateBool(*(const protobuf_c_boolean *)value);
        break;
    case PROTOBUF_C_TYPE_ENUM:
        json = write_enum(field->descriptor, *(const int32_t *)value);
        break;
    case PROTOBUF_C_TYPE_STRING:
        return write_string(field, *(char *const *)value, err);
    case PROTOBUF_C_TYPE_BYTES:
        json = write_bytes(value);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        return write_message(*(ProtobufCMessage *const *)value, err);
    }
    return json ? json : out_of_memory(err);
}

static cJSON *write_list(const ProtobufCFieldDescriptor *field, const char *values, size_t count, struct assay_err *err)
{
    cJSON *list = cJSON_CreateArray();
    if (!list)
        return out_of_memory(err);
    for (size_t i = 0; i < count; i++) {
        cJSON *json = write_value(field, values + i * assay_field_value_bytes(field->type), err);
        if (!json) {
            cJSON_Delete(list);
            return NULL;
        }
        cJSON_AddItemToArray(list, json);
    }
    return list;
}

static bool is_there(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
    const char *base = (const char *)message;
    const void *quantifier = base + field->quantifier_offset, *member = base + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *(const size_t *)quantifier > 0;
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)quantifier != field->id)
        return false;
    if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE) {
        const void *pointer = *(void *const *)member;
        return pointer && pointer != field->default_value;
    }
    return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) || *(const protobuf_c_boolean *)quantifier;
}

static cJSON *write_message(const ProtobufCMessage *message, struct assay_err *err)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    cJSON *object = cJSON_CreateObject();
    if (!object)
        return out_of_memory(err);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        const char *base = (const char *)message;
        char name[NAME_BYTES];
        if (!is_there(message, field))
            continue;
        cJSON *json = field->label == PROTOBUF_C_LABEL_REPEATED
                          ? write_list(field, *(char *const *)(const void *)(base + field->offset),
                                       *(const size_t *)(const void *)(base + field->quantifier_offset), err)
                          : write_value(field, base + field->offset, err);
        if (json && cJSON_AddItemToObject(object, assay_json_camel(field->name, name, sizeof name), json))
            continue;
        if (json)
            out_of_memory(err);
        cJSON_Delete(json);
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

enum assay_status assay_message_to_json(const ProtobufCMessage *message, cJSON **ret, struct assay_err *err)
{
    struct assay_err why = ASSAY_ERR_INIT;
    cJSON *json = write_message(message, &why);
    if (!json)
        return assay_err_set(err, why.status, "%s: %s", message->descriptor->short_name, why.text);
    *ret = json;
    return ASSAY_OK;
}
