/* JSON into a message. Everything in the tree may be wrong. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/wire/json.h"
#include "common/wire/json_text.h"
#include "common/wire/limits.h"
#include "common/wire/utf8.h"

/* The schema is not recursive, so the tree is not followed deeper than that; a schema that is would end here. */
#define DEPTH_MAX 64
/* Beyond 2^53 a double no longer tells neighbouring integers apart. */
#define EXACT_INTEGER_MAX 9007199254740992.0
#define NO_INDEX SIZE_MAX

/* Where in the tree: a chain on the stack. */
struct place {
    const struct place *up; /* NULL: directly in the whole message */
    const char *key;
    size_t index, depth;
};

struct reading {
    const char *message; /* name of the whole */
    size_t bytes_left;
    const cJSON *fault;
    struct assay_err *err;
};

static enum assay_status read_message(struct reading *reading, const ProtobufCMessageDescriptor *descriptor,
                                      const cJSON *json, const struct place *place, ProtobufCMessage **ret);

static void add_path(const struct place *place, struct assay_buf *path)
{
    if (!place)
        return;
    add_path(place->up, path);
    assay_buf_printf(path, "%s%.64s", place->up ? "." : "", place->key);
    if (place->index != NO_INDEX)
        assay_buf_printf(path, "[%zu]", place->index);
}

/* 'field "PATH": ' and the rest; the value is what a caller may look up. */
static enum assay_status ASSAY_PRINTF(4, 5)
    fault(struct reading *reading, const struct place *place, const cJSON *json, const char *format, ...)
{
    assay_auto(assay_buf_release) struct assay_buf path = ASSAY_BUF_INIT;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assay_utf8_repair(text);
    reading->fault = json;
    add_path(place, &path);
    if (!place)
        return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%s: %s", reading->message, text);
    return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"%.240s\": %s", assay_buf_cstr(&path), text);
}

static const char *type_name(const cJSON *json)
{
    if (cJSON_IsBool(json))
        return cJSON_IsTrue(json) ? "true" : "false";
    return cJSON_IsNull(json)     ? "null"
           : cJSON_IsNumber(json) ? "a number"
           : cJSON_IsString(json) ? "a string"
           : cJSON_IsArray(json)  ? "an array"
                                  : "an object";
}

/* "found ..., wanted ...": a number or a string as it stands, else its type. */
static enum assay_status unlike(struct reading *reading, const struct place *place, const cJSON *json,
                                const char *wanted)
{
    if (cJSON_IsNumber(json))
        return fault(reading, place, json, "found %.17g, wanted %s", json->valuedouble, wanted);
    if (cJSON_IsString(json))
        return fault(reading, place, json, "found \"%.60s\", wanted %s", json->valuestring, wanted);
    return fault(reading, place, json, "found %s, wanted %s", type_name(json), wanted);
}

static void *take(struct reading *reading, size_t bytes)
{
    if (bytes > reading->bytes_left) {
        assay_err_set(reading->err, ASSAY_RESOURCE_EXHAUSTED, "%s: the message would have more than %u bytes",
                      reading->message, ASSAY_WIRE_UNPACKED_BYTES_MAX);
        return NULL;
    }
    void *memory = calloc(1, bytes ? bytes : 1);
    if (!memory)
        assay_err_set(reading->err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", reading->message);
    else
        reading->bytes_left -= bytes;
    return memory;
}

/* A whole number in [-negative_max, max], from a number or decimal digits in a string. */
static enum assay_status read_whole(struct reading *reading, const struct place *place, const cJSON *json,
                                    uint64_t negative_max, uint64_t max, uint64_t *ret)
{
    char wanted[100];
    struct assay_decimal found;
    snprintf(wanted, sizeof wanted, "a whole number from %s%llu to %llu", negative_max ? "-" : "",
             (unsigned long long)negative_max, (unsigned long long)max);
    if (cJSON_IsNumber(json)) {
        double value = json->valuedouble;
        if (!(fabs(value) <= DBL_MAX) || value != floor(value))
            return unlike(reading, place, json, wanted);
        if (!(fabs(value) <= EXACT_INTEGER_MAX) && max > EXACT_INTEGER_MAX)
            return fault(reading, place, json, "found %.17g, wanted a string: a number beyond 2^53 is not exact",
                         value);
        if (!(fabs(value) <= EXACT_INTEGER_MAX))
            return unlike(reading, place, json, wanted);
        found = (struct assay_decimal){value < 0, (uint64_t)fabs(value)};
    } else if (!cJSON_IsString(json) || !assay_decimal_read(json->valuestring, &found)) {
        return unlike(reading, place, json, wanted);
    }
    if (found.magnitude > (found.negative ? negative_max : max))
        return unlike(reading, place, json, wanted);
    *ret = found.negative ? -found.magnitude : found.magnitude;
    return ASSAY_OK;
}

static enum assay_status read_whole32(struct reading *reading, const struct place *place, const cJSON *json,
                                      uint64_t negative_max, uint64_t max, void *ret)
{
    uint64_t value;
    enum assay_status status = read_whole(reading, place, json, negative_max, max, &value);
    if (status == ASSAY_OK) {
        uint32_t bits = (uint32_t)value;
        memcpy(ret, &bits, sizeof bits);
    }
    return status;
}

static enum assay_status read_real(struct reading *reading, const struct place *place, const cJSON *json, double max,
                                   double *ret)
{
    static const char wanted[] = "a number, or \"NaN\", \"Infinity\", \"-Infinity\"";
    double value = json->valuedouble;
    if (cJSON_IsString(json)) {
        const char *text = json->valuestring;
        char *end;
        if (strcmp(text, "NaN") == 0 || strcmp(text, "Infinity") == 0 || strcmp(text, "-Infinity") == 0) {
            *ret = *text == 'N' ? (double)NAN : *text == 'I' ? (double)INFINITY : -(double)INFINITY;
            return ASSAY_OK;
        }
        if (!*text || text[strspn(text, "+-.0123456789eE")] != '\0')
            return unlike(reading, place, json, wanted);
        value = strtod(text, &end);
        if (*end != '\0')
            return unlike(reading, place, json, wanted);
    } else if (!cJSON_IsNumber(json)) {
        return unlike(reading, place, json, wanted);
    }
    if (!(fabs(value) <= max))
        return fault(reading, place, json, "found a number beyond the range, wanted at most %.6g", max);
    *ret = value;
    return ASSAY_OK;
}

static enum assay_status read_enum(struct reading *reading, const struct place *place, const cJSON *json,
                                   const ProtobufCEnumDescriptor *descriptor, int32_t *ret)
{
    if (cJSON_IsNumber(json))
        return read_whole32(reading, place, json, 1u << 31, INT32_MAX, ret);
    const ProtobufCEnumValue *row =
        cJSON_IsString(json) ? protobuf_c_enum_descriptor_get_value_by_name(descriptor, json->valuestring) : NULL;
    if (row) {
        *ret = row->value;
        return ASSAY_OK;
    }
    char names[160] = "one of ";
    for (unsigned i = 0; i < descriptor->n_values; i++) {
        size_t used = strlen(names), len = strlen(descriptor->values[i].name);
        bool last = i + 1 == descriptor->n_values;
        if (used + len + 6 >= sizeof names) {
            strcpy(names + used, "...");
            break;
        }
        snprintf(names + used, sizeof names - used, "%s%s", descriptor->values[i].name, last ? "" : ", ");
    }
    return unlike(reading, place, json, names);
}

static enum assay_status read_string(struct reading *reading, const struct place *place, const cJSON *json, char **ret)
{
    if (!cJSON_IsString(json))
        return unlike(reading, place, json, "a string");
    size_t len = strlen(json->valuestring);
    if (!assay_utf8_valid(json->valuestring, len))
        return fault(reading, place, json, "the text is not UTF-8");
    char *text = take(reading, len + 1);
    if (!text)
        return ASSAY_RESOURCE_EXHAUSTED;
    memcpy(text, json->valuestring, len);
    *ret = text;
    return ASSAY_OK;
}

static enum assay_status read_bytes(struct reading *reading, const struct place *place, const cJSON *json,
                                    ProtobufCBinaryData *ret)
{
    if (!cJSON_IsString(json))
        return unlike(reading, place, json, "a string in base64");
    uint8_t *data = take(reading, strlen(json->valuestring) / 4 * 3 + 2);
    if (!data)
        return ASSAY_RESOURCE_EXHAUSTED;
    size_t bytes;
    if (!assay_base64_read(json->valuestring, data, &bytes)) {
        free(data);
        return unlike(reading, place, json, "base64");
    }
    *ret = (ProtobufCBinaryData){.len = bytes, .data = data};
    return ASSAY_OK;
}

/* One value into its place in the struct, which is zero before. */
static enum assay_status read_value(struct reading *reading, const ProtobufCFieldDescriptor *field, const cJSON *json,
                                    const struct place *place, void *ret)
{
    double real;
    enum assay_status status;
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return read_whole32(reading, place, json, 1u << 31, INT32_MAX, ret);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return read_whole32(reading, place, json, 0, UINT32_MAX, ret);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_whole(reading, place, json, 1ull << 63, INT64_MAX, ret);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_whole(reading, place, json, 0, UINT64_MAX, ret);
    case PROTOBUF_C_TYPE_FLOAT:
        status = read_real(reading, place, json, FLT_MAX, &real);
        if (status == ASSAY_OK)
            *(float *)ret = (float)real;
        return status;
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_real(reading, place, json, DBL_MAX, ret);
    case PROTOBUF_C_TYPE_BOOL:
        if (!cJSON_IsBool(json))
            return unlike(reading, place, json, "true or false");
        *(protobuf_c_boolean *)ret = cJSON_IsTrue(json);
        return ASSAY_OK;
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(reading, place, json, field->descriptor, ret);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(reading, place, json, ret);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(reading, place, json, ret);
    case PROTOBUF_C_TYPE_MESSAGE:
        return read_message(reading, field->descriptor, json, place, ret);
    }
    ASSAY_BUG("unknown type of field");
}

static enum assay_status read_list(struct reading *reading, const ProtobufCFieldDescriptor *field, const cJSON *json,
                                   const struct place *place, ProtobufCMessage *message)
{
    char *base = (char *)message;
    size_t *count = (size_t *)(void *)(base + field->quantifier_offset);
    char **values = (char **)(void *)(base + field->offset);
    if (!cJSON_IsArray(json))
        return unlike(reading, place, json, "an array");
    if (*values)
        return fault(reading, place, json, "stands twice");
    size_t length = (size_t)cJSON_GetArraySize(json), size = assay_field_value_bytes(field->type);
    *values = length ? take(reading, length * size) : NULL;
    if (length && !*values)
        return ASSAY_RESOURCE_EXHAUSTED;
    struct place at = *place;
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        at.index = *count;
        enum assay_status status = read_value(reading, field, item, &at, *values + *count * size);
        if (status != ASSAY_OK)
            return status;
        ++*count;
    }
    return ASSAY_OK;
}

/* Says that an optional field is there; false when it was before. */
static bool mark(const ProtobufCFieldDescriptor *field, ProtobufCMessage *message)
{
    char *base = (char *)message;
    void *quantifier = base + field->quantifier_offset;
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (*(uint32_t *)quantifier != 0)
            return false;
        *(uint32_t *)quantifier = field->id;
        return true;
    }
    if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
        return *(void **)(void *)(base + field->offset) == field->default_value;
    if (*(protobuf_c_boolean *)quantifier)
        return false;
    *(protobuf_c_boolean *)quantifier = 1;
    return true;
}

static enum assay_status read_field(struct reading *reading, const cJSON *json, const struct place *place,
                                    ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    const ProtobufCFieldDescriptor *field = NULL;
    for (unsigned i = 0; i < descriptor->n_fields && !field; i++)
        if (assay_json_key_is(json->string, descriptor->fields[i].name))
            field = &descriptor->fields[i];
    if (!field)
        return fault(reading, place, json, "%s has no such field", descriptor->short_name);
    if (cJSON_IsNull(json))
        return ASSAY_OK;
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return read_list(reading, field, json, place, message);
    if (!mark(field, message))
        return fault(reading, place, json, "stands twice, or beside another of its oneof");
    char *member = (char *)message + field->offset;
    memset(member, 0, assay_field_value_bytes(field->type));
    return read_value(reading, field, json, place, member);
}

static enum assay_status read_message(struct reading *reading, const ProtobufCMessageDescriptor *descriptor,
                                      const cJSON *json, const struct place *place, ProtobufCMessage **ret)
{
    size_t depth = place ? place->depth + 1 : 0;
    if (!cJSON_IsObject(json))
        return unlike(reading, place, json, "an object");
    if (depth > DEPTH_MAX)
        return fault(reading, place, json, "is nested more than %d deep", DEPTH_MAX);
    ProtobufCMessage *message = take(reading, descriptor->sizeof_message);
    if (!message)
        return ASSAY_RESOURCE_EXHAUSTED;
    protobuf_c_message_init(descriptor, message);
    enum assay_status status = ASSAY_OK;
    const cJSON *member;
    cJSON_ArrayForEach(member, json)
    {
        struct place at = {.up = place, .key = member->string, .index = NO_INDEX, .depth = depth};
        status = read_field(reading, member, &at, message);
        if (status != ASSAY_OK)
            break;
    }
    if (status == ASSAY_OK)
        *ret = message;
    else
        protobuf_c_message_free_unpacked(message, NULL);
    return status;
}

enum assay_status assay_message_from_json(const ProtobufCMessageDescriptor *descriptor, const cJSON *json,
                                          ProtobufCMessage **ret, const cJSON **ret_fault, struct assay_err *err)
{
    struct reading reading = {
        .message = descriptor->short_name, .bytes_left = ASSAY_WIRE_UNPACKED_BYTES_MAX, .err = err};
    enum assay_status status = read_message(&reading, descriptor, json, NULL, ret);
    if (ret_fault)
        *ret_fault = reading.fault;
    return status;
}

void assay_message_release(ProtobufCMessage **message)
{
    if (*message)
        protobuf_c_message_free_unpacked(*message, NULL);
    *message = NULL;
}
