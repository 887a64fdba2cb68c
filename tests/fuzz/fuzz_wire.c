/* Any message that a socket may bring. Input: parts, each with its length in two bytes (little-endian) before it. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/envelope.h"
#include "common/wire/utf8.h"
#include "proto/control.pb-c.h"
#include "proto/metric.pb-c.h"
#include "proto/record.pb-c.h"
#include "proto/variant.pb-c.h"
#include "proto/work.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCServiceDescriptor *const services[] = {
    &assay__v1__health__descriptor,    &assay__v1__coordinator__descriptor, &assay__v1__work__descriptor,
    &assay__v1__evaluator__descriptor, &assay__v1__records__descriptor,     &assay__v1__quantizer__descriptor,
};

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void split(const uint8_t *data, size_t size, struct assay_frames *frames)
{
    memset(frames, 0, sizeof *frames);
    zmq_msg_init(&frames->id);
    while (size >= 2 && frames->count < ASSAY_WIRE_PARTS_MAX) {
        size_t bytes = ASSAY_MIN((size_t)data[0] | (size_t)data[1] << 8, size - 2);
        zmq_msg_t *part = &frames->parts[frames->count++];
        require(zmq_msg_init_size(part, bytes) == 0);
        memcpy(zmq_msg_data(part), data + 2, bytes);
        frames->bytes += bytes;
        data += 2 + bytes;
        size -= 2 + bytes;
    }
}

/* As what the method takes, and as what it gives. */
static void unpack_payload(const Assay__V1__Header *header, struct assay_incoming *incoming)
{
    const char *slash = strchr(header->method, '/');
    for (size_t i = 0; slash && i < ASSAY_COUNT(services); i++) {
        const ProtobufCMethodDescriptor *method =
            protobuf_c_service_descriptor_get_method_by_name(services[i], slash + 1);
        const ProtobufCMessageDescriptor *const kinds[] = {method ? method->input : NULL,
                                                           method ? method->output : NULL};
        for (size_t k = 0; method && k < ASSAY_COUNT(kinds); k++) {
            ProtobufCMessage *message = NULL;
            if (assay_payload_unpack(kinds[k], zmq_msg_data(&incoming->payload), zmq_msg_size(&incoming->payload),
                                     &message, NULL) != ASSAY_OK)
                continue;
            const char *field;
            require(assay_utf8_message(message, &field));
            protobuf_c_message_free_unpacked(message, NULL);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct assay_frames frames;
    split(data, size, &frames);
    Assay__V1__Header *header = NULL;
    if (frames.count > 0)
        header = assay_header_unpack(zmq_msg_data(&frames.parts[0]), zmq_msg_size(&frames.parts[0]));
    struct assay_err err = ASSAY_ERR_INIT;
    if (header && assay_frames_check(&frames, header, &err) == ASSAY_OK && frames.count > 1) {
        size_t attachments = frames.count - 2;
        struct assay_incoming *incoming = assay_incoming_take(&frames);
        require(incoming && incoming->attachments_count == attachments);
        for (size_t i = 0; i < attachments; i++) {
            struct assay_bytes bytes = assay_incoming_attachment(incoming, i);
            require((uintptr_t)bytes.data % 8 == 0 && bytes.bytes == header->attachment_bytes[i]);
        }
        if (header->method)
            unpack_payload(header, incoming);
        assay_incoming_free(incoming);
    }
    if (header) {
        assay_header_error(header, "peer", &err);
        assay__v1__header__free_unpacked(header, NULL);
    }
    assay_frames_clear(&frames);
    return 0;
}
