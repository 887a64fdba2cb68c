/* Messages as frames: [routing id, on a ROUTER] [Header] [payload] [attachment]*. REQUEST, REPLY with status OK and
 * STREAM have a payload; all others are a header alone. What comes in is hostile until it passed the checks here. */
#pragma once

#include <zmq.h>

#include "common/base/limits.h"
#include "common/wire/attachment.h"
#include "common/wire/limits.h"
#include "proto/rpc.pb-c.h"

/* One message as it came. */
struct assay_frames {
    zmq_msg_t id; /* routing id, empty on a DEALER */
    zmq_msg_t parts[ASSAY_WIRE_PARTS_MAX];
    size_t count;
    size_t bytes; /* of all parts */
    bool excess;  /* there were more parts or bytes than allowed; the rest was read and dropped */
};

/* Takes one message from the socket without waiting; false when there is none. clear afterwards. */
bool assay_frames_recv(struct assay_frames *frames, void *socket, bool has_id) ASSAY_MUST_USE;
void assay_frames_clear(struct assay_frames *frames);

/* Unpacks and checks a header: version, kind, call id, lengths, UTF-8, metadata. NULL when it is not a header.
 * protobuf_c_message_free_unpacked frees it. */
Assay__V1__Header *assay_header_unpack(const void *data, size_t bytes);
/* INTERNAL unless the parts behind the header are those that it announces. */
enum assay_status assay_frames_check(const struct assay_frames *frames, const Assay__V1__Header *header,
                                     struct assay_err *err) ASSAY_MUST_USE;

/* Payload and attachments of a message, kept. Attachments are aligned to 8 bytes. */
struct assay_incoming {
    struct assay_incoming *next; /* free for the owner */
    zmq_msg_t payload;
    size_t bytes;
    size_t attachments_count;
    zmq_msg_t attachments[];
};
/* Moves them out of checked frames that have a payload. NULL when out of memory. */
struct assay_incoming *assay_incoming_take(struct assay_frames *frames);
struct assay_bytes assay_incoming_attachment(const struct assay_incoming *incoming, size_t index);
void assay_incoming_free(struct assay_incoming *incoming); /* NULL is fine */

/* Unpacks a payload and checks its strings. INTERNAL: not such a message. RESOURCE_EXHAUSTED: it grows too large.
 * protobuf_c_message_free_unpacked frees it. */
enum assay_status assay_payload_unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t bytes,
                                       ProtobufCMessage **ret, struct assay_err *err) ASSAY_MUST_USE;

/* A message to be sent. */
struct assay_outgoing {
    struct assay_outgoing *next; /* free for the owner */
    size_t count, bytes;
    zmq_msg_t parts[]; /* header (empty until assay_outgoing_header), payload, attachments */
};
/* Packs a payload; `message` NULL = a header alone. Attachments are taken over, whatever the outcome.
 * RESOURCE_EXHAUSTED: out of memory, or beyond a ceiling. */
enum assay_status assay_outgoing_new(const ProtobufCMessage *message, const struct assay_attachment *attachments,
                                     size_t count, struct assay_outgoing **ret, struct assay_err *err) ASSAY_MUST_USE;
/* Packs the header, with the attachments' sizes; version is filled. False when out of memory. */
bool assay_outgoing_header(struct assay_outgoing *outgoing, Assay__V1__Header *header) ASSAY_MUST_USE;
void assay_outgoing_free(struct assay_outgoing *outgoing); /* NULL is fine */
/* Calls release of each. */
void assay_attachments_release(const struct assay_attachment *attachments, size_t count);

enum assay_sent { ASSAY_SENT, ASSAY_SENT_FULL, ASSAY_SENT_UNREACHABLE };
/* Sends without waiting; with id_bytes > 0 behind a routing id. On SENT the parts are gone; on FULL (try again)
 * and UNREACHABLE they are as before. */
enum assay_sent assay_outgoing_send(struct assay_outgoing *outgoing, void *socket, const void *id, size_t id_bytes);
/* A header alone, from the stack. */
enum assay_sent assay_header_send(Assay__V1__Header *header, void *socket, const void *id, size_t id_bytes);

/* header->sentence from err, made valid. The text is err's own. */
void assay_header_set_error(Assay__V1__Header *header, struct assay_err *err);
/* A header's status and sentence as an error. `who` names the peer where the sentence is empty. */
enum assay_status assay_header_error(const Assay__V1__Header *header, const char *who, struct assay_err *err);
