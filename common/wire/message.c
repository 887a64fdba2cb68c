/* The contents of messages: payloads and attachments, incoming and outgoing. */
#include <stdlib.h>
#include <string.h>

#include "common/wire/envelope.h"
#include "common/wire/utf8.h"

/* ZeroMQ hands out views into its receive buffer at any offset: these are copied. False when out of memory. */
static bool align(zmq_msg_t *part)
{
    if ((uintptr_t)zmq_msg_data(part) % 8 == 0)
        return true;
    zmq_msg_t aligned;
    if (zmq_msg_init_size(&aligned, zmq_msg_size(part)) != 0)
        return false;
    memcpy(zmq_msg_data(&aligned), zmq_msg_data(part), zmq_msg_size(part));
    zmq_msg_move(part, &aligned);
    zmq_msg_close(&aligned);
    return true;
}

struct assay_incoming *assay_incoming_take(struct assay_frames *frames)
{
    size_t attachments = frames->count - 2;
    struct assay_incoming *incoming = malloc(sizeof *incoming + attachments * sizeof(zmq_msg_t));
    if (!incoming)
        return NULL;
    *incoming = (struct assay_incoming){.attachments_count = attachments,
                                        .bytes = frames->bytes - zmq_msg_size(&frames->parts[0])};
    zmq_msg_init(&incoming->payload);
    zmq_msg_move(&incoming->payload, &frames->parts[1]);
    bool ok = true;
    for (size_t i = 0; i < attachments; i++) {
        zmq_msg_init(&incoming->attachments[i]);
        zmq_msg_move(&incoming->attachments[i], &frames->parts[2 + i]);
        ok = ok && align(&incoming->attachments[i]);
    }
    if (ok)
        return incoming;
    assay_incoming_free(incoming);
    return NULL;
}

struct assay_bytes assay_incoming_attachment(const struct assay_incoming *incoming, size_t index)
{
    if (index >= incoming->attachments_count)
        return (struct assay_bytes){0};
    /* zmq_msg_data takes no const, though it changes nothing. */
    zmq_msg_t *part = (zmq_msg_t *)(uintptr_t)&incoming->attachments[index];
    return (struct assay_bytes){.data = zmq_msg_data(part), .bytes = zmq_msg_size(part)};
}

void assay_incoming_free(struct assay_incoming *incoming)
{
    if (!incoming)
        return;
    zmq_msg_close(&incoming->payload);
    for (size_t i = 0; i < incoming->attachments_count; i++)
        zmq_msg_close(&incoming->attachments[i]);
    free(incoming);
}

struct budget {
    size_t left;
    bool exhausted;
};

static void *budget_alloc(void *arg, size_t bytes)
{
    struct budget *budget = arg;
    void *result = bytes <= budget->left ? malloc(bytes) : NULL;
    if (result)
        budget->left -= bytes;
    else
        budget->exhausted = true;
    return result;
}

static void budget_free(void *arg, void *data)
{
    (void)arg;
    free(data);
}

enum assay_status assay_payload_unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t bytes,
                                       ProtobufCMessage **ret, struct assay_err *err)
{
    struct budget budget = {.left = ASSAY_WIRE_UNPACKED_BYTES_MAX};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, bytes, data);
    if (!message && budget.exhausted)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "no memory to unpack a %s of %zu bytes", descriptor->name,
                             bytes);
    if (!message)
        return assay_err_set(err, ASSAY_INTERNAL, "payload of %zu bytes is not a %s", bytes, descriptor->name);
    const char *field;
    if (!assay_utf8_message(message, &field)) {
        protobuf_c_message_free_unpacked(message, NULL);
        return assay_err_set(err, ASSAY_INTERNAL, "%s: field %s is not valid UTF-8", descriptor->name, field);
    }
    *ret = message;
    return ASSAY_OK;
}

void assay_attachment_free(void *data, void *hint)
{
    (void)hint;
    free(data);
}

static void release_one(const struct assay_attachment *attachment)
{
    if (attachment->release)
        attachment->release((void *)(uintptr_t)attachment->data, attachment->hint);
}

void assay_attachments_release(const struct assay_attachment *attachments, size_t count)
{
    for (size_t i = 0; i < count; i++)
        release_one(&attachments[i]);
}

/* Leaves an empty part behind when out of memory. */
static bool init_size(zmq_msg_t *part, size_t bytes)
{
    if (zmq_msg_init_size(part, bytes) == 0)
        return true;
    zmq_msg_init(part);
    return false;
}

/* The attachment is taken over, whatever the outcome. False when out of memory, with an empty part. */
static bool init_attachment(zmq_msg_t *part, const struct assay_attachment *attachment)
{
    if (attachment->release && attachment->bytes > 0) {
        if (zmq_msg_init_data(part, (void *)(uintptr_t)attachment->data, attachment->bytes, attachment->release,
                              attachment->hint) == 0)
            return true;
        zmq_msg_init(part);
        release_one(attachment);
        return false;
    }
    /* Without a release function nobody could tell when ZeroMQ has sent the bytes, so they are copied. */
    bool ok = init_size(part, attachment->bytes);
    if (ok && attachment->bytes > 0)
        memcpy(zmq_msg_data(part), attachment->data, attachment->bytes);
    release_one(attachment);
    return ok;
}

static enum assay_status check_sizes(size_t payload_bytes, const struct assay_attachment *attachments, size_t count,
                                     struct assay_err *err)
{
    if (payload_bytes > ASSAY_WIRE_PAYLOAD_BYTES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "payload has %zu bytes, at most %u are allowed",
                             payload_bytes, ASSAY_WIRE_PAYLOAD_BYTES_MAX);
    if (count > ASSAY_WIRE_PARTS_MAX - 2)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "message has %zu attachments, at most %d are allowed",
                             count, ASSAY_WIRE_PARTS_MAX - 2);
    size_t total = payload_bytes + ASSAY_WIRE_HEADER_BYTES_MAX;
    for (size_t i = 0; i < count; i++) {
        if (attachments[i].bytes > ASSAY_WIRE_PART_BYTES_MAX)
            return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "attachment %zu has %zu bytes, at most %u are allowed",
                                 i, attachments[i].bytes, ASSAY_WIRE_PART_BYTES_MAX);
        total += attachments[i].bytes;
    }
    if (total > ASSAY_WIRE_MESSAGE_BYTES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "message has %zu bytes, at most %u are allowed", total,
                             ASSAY_WIRE_MESSAGE_BYTES_MAX);
    return ASSAY_OK;
}

enum assay_status assay_outgoing_new(const ProtobufCMessage *message, const struct assay_attachment *attachments,
                                     size_t count, struct assay_outgoing **ret, struct assay_err *err)
{
    size_t payload_bytes = message ? protobuf_c_message_get_packed_size(message) : 0;
    enum assay_status status = check_sizes(payload_bytes, attachments, count, err);
    if (status != ASSAY_OK) {
        assay_attachments_release(attachments, count);
        return status;
    }
    size_t parts = message ? 2 + count : 1;
    struct assay_outgoing *outgoing = malloc(sizeof *outgoing + parts * sizeof(zmq_msg_t));
    if (!outgoing) {
        assay_attachments_release(attachments, count);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a message");
    }
    *outgoing = (struct assay_outgoing){.count = parts, .bytes = payload_bytes};
    zmq_msg_init(&outgoing->parts[0]);
    bool ok = !message || init_size(&outgoing->parts[1], payload_bytes);
    if (ok && message)
        protobuf_c_message_pack(message, zmq_msg_data(&outgoing->parts[1]));
    for (size_t i = 0; i < count; i++) {
        outgoing->bytes += attachments[i].bytes;
        ok = init_attachment(&outgoing->parts[2 + i], &attachments[i]) && ok;
    }
    if (ok) {
        *ret = outgoing;
        return ASSAY_OK;
    }
    size_t bytes = outgoing->bytes;
    assay_outgoing_free(outgoing);
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a message of %zu bytes", bytes);
}

void assay_outgoing_free(struct assay_outgoing *outgoing)
{
    if (!outgoing)
        return;
    for (size_t i = 0; i < outgoing->count; i++)
        zmq_msg_close(&outgoing->parts[i]);
    free(outgoing);
}
