#include "common/wire/methods.h"

#include <stdint.h>
#include <string.h>

extern const unsigned char assay_descriptor_set[];
extern const unsigned long assay_descriptor_set_bytes;

/* Field numbers of google/protobuf/descriptor.proto. */
enum { SET_FILE = 1, FILE_PACKAGE = 2, FILE_SERVICE = 6 };
enum { SERVICE_NAME = 1, SERVICE_METHOD = 2, METHOD_NAME = 1, METHOD_SERVER_STREAMING = 6 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct view {
    const unsigned char *at, *end;
};

struct field {
    uint64_t number;
    uint64_t value;    /* of a varint */
    struct view bytes; /* of a length-delimited field */
};

static bool read_varint(struct view *view, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && view->at < view->end; shift += 7) {
        unsigned char byte = *view->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* The next field of a message; false at its end. */
static bool next_field(struct view *view, struct field *ret)
{
    uint64_t tag, bytes = 0;
    if (!read_varint(view, &tag))
        return false;
    *ret = (struct field){.number = tag >> 3};
    switch (tag & 7) {
    case WIRE_VARINT:
        return read_varint(view, &ret->value);
    case WIRE_64:
        bytes = 8;
        break;
    case WIRE_32:
        bytes = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(view, &bytes))
            return false;
        break;
    default:
        return false;
    }
    if (bytes > (uint64_t)(view->end - view->at))
        return false;
    ret->bytes = (struct view){view->at, view->at + bytes};
    view->at += bytes;
    return true;
}

static bool equals(struct view view, const char *text)
{
    size_t bytes = strlen(text);
    return (size_t)(view.end - view.at) == bytes && memcmp(view.at, text, bytes) == 0;
}

/* The first field `number` of a message, empty when there is none. */
static struct field find_field(struct view message, uint64_t number)
{
    struct field field;
    while (next_field(&message, &field))
        if (field.number == number)
            return field;
    return (struct field){0};
}

static bool method_streams(struct view service, const char *name)
{
    struct field field;
    while (next_field(&service, &field))
        if (field.number == SERVICE_METHOD && equals(find_field(field.bytes, METHOD_NAME).bytes, name))
            return find_field(field.bytes, METHOD_SERVER_STREAMING).value != 0;
    return false;
}

bool assay_method_is_stream(const ProtobufCServiceDescriptor *service, unsigned method)
{
    struct view set = {assay_descriptor_set, assay_descriptor_set + assay_descriptor_set_bytes};
    struct field file, part;
    while (next_field(&set, &file)) {
        if (file.number != SET_FILE || !equals(find_field(file.bytes, FILE_PACKAGE).bytes, service->package))
            continue;
        for (struct view rest = file.bytes; next_field(&rest, &part);)
            if (part.number == FILE_SERVICE && equals(find_field(part.bytes, SERVICE_NAME).bytes, service->short_name))
                return method_streams(part.bytes, service->methods[method].name);
    }
    return false;
}
