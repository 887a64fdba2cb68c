#include "common/wire/envelope.h"

#include <errno.h>
#include <string.h>

#include "common/wire/utf8.h"

#define ENVELOPE_VERSION 1

static void take_parts(struct assay_frames *frames, void *socket)
{
    int more = 1;
    while (more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return;
        }
        more = zmq_msg_more(&part);
        size_t bytes = zmq_msg_size(&part);
        if (frames->excess || frames->count == ASSAY_WIRE_PARTS_MAX ||
            bytes > ASSAY_WIRE_MESSAGE_BYTES_MAX - frames->bytes) {
            frames->excess = true;
            zmq_msg_close(&part);
            continue;
        }
        frames->bytes += bytes;
        zmq_msg_init(&frames->parts[frames->count]);
        zmq_msg_move(&frames->parts[frames->count++], &part);
        zmq_msg_close(&part);
    }
}

bool assay_frames_recv(struct assay_frames *frames, void *socket, bool has_id)
{
    frames->count = frames->bytes = 0;
    frames->excess = false;
    zmq_msg_init(&frames->id);
    if (!has_id) {
        take_parts(frames, socket);
        return frames->count > 0;
    }
    if (zmq_msg_recv(&frames->id, socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frames->id);
        return false;
    }
    if (zmq_msg_more(&frames->id))
        take_parts(frames, socket);
    return true;
}

void assay_frames_clear(struct assay_frames *frames)
{
    zmq_msg_close(&frames->id);
    for (size_t i = 0; i < frames->count; i++)
        zmq_msg_close(&frames->parts[i]);
    frames->count = 0;
}

static bool text_valid(const char *text, size_t bytes_max)
{
    return !text || (strlen(text) <= bytes_max && assay_utf8_valid(text, strlen(text)));
}

static bool key_valid(const char *key)
{
    if (!key || !*key || strlen(key) > ASSAY_WIRE_METADATA_KEY_BYTES_MAX)
        return false;
    for (; *key; key++)
        if (*key <= ' ' || *key > '~' || (*key >= 'A' && *key <= 'Z'))
            return false;
    return true;
}

static bool metadata_valid(const Assay__V1__Header *header)
{
    size_t bytes = 0;
    for (size_t i = 0; i < header->n_metadata; i++) {
        const Assay__V1__Metadata *entry = header->metadata[i];
        if (!key_valid(entry->key) || entry->value.len > ASSAY_WIRE_METADATA_VALUE_BYTES_MAX)
            return false;
        bytes += strlen(entry->key) + entry->value.len;
    }
    return bytes <= ASSAY_WIRE_METADATA_BYTES_MAX;
}

static bool trace_valid(const char *trace)
{
    return !trace ||
           (strlen(trace) == ASSAY_WIRE_TRACE_DIGITS && strspn(trace, "0123456789abcdef") == ASSAY_WIRE_TRACE_DIGITS);
}

static bool kind_valid(const Assay__V1__Header *header)
{
    switch (header->kind) {
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST:
        return header->method != NULL;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_CREDIT:
        return header->credit > 0;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_PONG:
        return header->has_instance;
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_END:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_CANCEL:
    case ASSAY__V1__FRAME_KIND__FRAME_KIND_PING:
        return true;
    default:
        return false;
    }
}

Assay__V1__Header *assay_header_unpack(const void *data, size_t bytes)
{
    if (bytes == 0 || bytes > ASSAY_WIRE_HEADER_BYTES_MAX)
        return NULL;
    Assay__V1__Header *header = assay__v1__header__unpack(NULL, bytes, data);
    if (!header)
        return NULL;
    if (header->has_version && header->version == ENVELOPE_VERSION && header->has_call_id && kind_valid(header) &&
        text_valid(header->method, ASSAY_WIRE_METHOD_BYTES_MAX) &&
        text_valid(header->sentence, ASSAY_WIRE_SENTENCE_BYTES_MAX) && trace_valid(header->trace_id) &&
        header->n_attachment_bytes <= ASSAY_WIRE_PARTS_MAX - 2 && metadata_valid(header))
        return header;
    assay__v1__header__free_unpacked(header, NULL);
    return NULL;
}

static bool has_payload(const Assay__V1__Header *header)
{
    return header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_REQUEST ||
           header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_STREAM ||
           (header->kind == ASSAY__V1__FRAME_KIND__FRAME_KIND_REPLY && header->status == ASSAY_OK);
}

enum assay_status assay_frames_check(const struct assay_frames *frames, const Assay__V1__Header *header,
                                     struct assay_err *err)
{
    size_t attachments = header->n_attachment_bytes;
    size_t wanted = has_payload(header) ? 2 + attachments : 1;
    if (frames->count != wanted || (!has_payload(header) && attachments > 0))
        return assay_err_set(err, ASSAY_INTERNAL, "message has %zu parts, its header announces %zu", frames->count,
                             wanted);
    for (size_t i = 0; i < attachments; i++) {
        size_t found = zmq_msg_size(&frames->parts[2 + i]);
        if (found != header->attachment_bytes[i])
            return assay_err_set(err, ASSAY_INTERNAL, "attachment %zu has %zu bytes, its header announces %llu", i,
                                 found, (unsigned long long)header->attachment_bytes[i]);
    }
    if (frames->count > 1 && zmq_msg_size(&frames->parts[1]) > ASSAY_WIRE_PAYLOAD_BYTES_MAX)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "payload has %zu bytes, at most %u are allowed",
                             zmq_msg_size(&frames->parts[1]), ASSAY_WIRE_PAYLOAD_BYTES_MAX);
    return ASSAY_OK;
}

static bool pack_header(zmq_msg_t *part, Assay__V1__Header *header)
{
    header->has_version = true;
    header->version = ENVELOPE_VERSION;
    zmq_msg_close(part);
    if (zmq_msg_init_size(part, assay__v1__header__get_packed_size(header)) != 0) {
        zmq_msg_init(part);
        return false;
    }
    assay__v1__header__pack(header, zmq_msg_data(part));
    return true;
}

bool assay_outgoing_header(struct assay_outgoing *outgoing, Assay__V1__Header *header)
{
    uint64_t sizes[ASSAY_WIRE_PARTS_MAX];
    size_t attachments = outgoing->count > 2 ? outgoing->count - 2 : 0;
    for (size_t i = 0; i < attachments; i++)
        sizes[i] = zmq_msg_size(&outgoing->parts[2 + i]);
    header->n_attachment_bytes = attachments;
    header->attachment_bytes = sizes;
    bool ok = pack_header(&outgoing->parts[0], header);
    header->n_attachment_bytes = 0;
    header->attachment_bytes = NULL;
    return ok;
}

static enum assay_sent send_parts(zmq_msg_t *parts, size_t count, void *socket, const void *id, size_t id_bytes)
{
    if (id_bytes > 0 && zmq_send(socket, id, id_bytes, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
        return errno == EHOSTUNREACH ? ASSAY_SENT_UNREACHABLE : ASSAY_SENT_FULL;
    /* Once the first frame is accepted the others are too, or the connection is gone: then ZeroMQ drops them up to the
     * last one, and the peer's next PING shows the loss. */
    for (size_t i = 0; i < count; i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0);
        if (zmq_msg_send(&parts[i], socket, flags) < 0 && i == 0 && id_bytes == 0)
            return ASSAY_SENT_FULL;
    }
    return ASSAY_SENT;
}

enum assay_sent assay_outgoing_send(struct assay_outgoing *outgoing, void *socket, const void *id, size_t id_bytes)
{
    return send_parts(outgoing->parts, outgoing->count, socket, id, id_bytes);
}

enum assay_sent assay_header_send(Assay__V1__Header *header, void *socket, const void *id, size_t id_bytes)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    enum assay_sent sent = ASSAY_SENT_FULL;
    if (pack_header(&part, header))
        sent = send_parts(&part, 1, socket, id, id_bytes);
    zmq_msg_close(&part);
    return sent;
}

void assay_header_set_error(Assay__V1__Header *header, struct assay_err *err)
{
    assay_utf8_repair(err->text);
    header->has_status = true;
    header->status = (uint32_t)err->status;
    header->sentence = err->text;
}

enum assay_status assay_header_error(const Assay__V1__Header *header, const char *who, struct assay_err *err)
{
    enum assay_status status =
        header->status <= ASSAY_UNAUTHENTICATED ? (enum assay_status)header->status : ASSAY_UNKNOWN;
    if (status == ASSAY_OK)
        return ASSAY_OK;
    if (header->sentence && *header->sentence)
        return assay_err_set(err, status, "%s", header->sentence);
    return assay_err_set(err, status, "%s answered %s without a reason", who, assay_status_name(status));
}
