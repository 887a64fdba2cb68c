/* Ceilings and times of the transport, beside the ones in common/base/limits.h. */
#pragma once

/* A header holds 8 KiB of metadata, a sentence, a method and 62 attachment sizes. */
#define ASSAY_WIRE_HEADER_BYTES_MAX (16u * 1024)
/* Bulk data travels as attachments; a ScoreRequest of a million chunk keys has 40 MB. */
#define ASSAY_WIRE_PAYLOAD_BYTES_MAX (64u * 1024 * 1024)
/* Two bytes on the wire can become a 100-byte struct; this bounds what one message becomes. */
#define ASSAY_WIRE_UNPACKED_BYTES_MAX (512u * 1024 * 1024)
/* All parts of one message together. */
#define ASSAY_WIRE_MESSAGE_BYTES_MAX (1024u * 1024 * 1024)
/* Bytes of all requests that a server holds for its handlers. */
#define ASSAY_WIRE_HELD_BYTES_MAX (2048ull * 1024 * 1024)
/* Messages of one stream under way; more hide a consumer that cannot keep up. */
#define ASSAY_WIRE_CREDIT_MAX 1024u
/* Connections that a server remembers. */
#define ASSAY_WIRE_PEERS_MAX 4096
/* What one peer may do, unless the settings say otherwise. Calls of one peer at once: */
#define ASSAY_WIRE_PEER_CALLS_MAX 1024
/* Its messages a second, after a burst of as many as two seconds bring: a busy worker sends some hundred. */
#define ASSAY_WIRE_PEER_RATE 50000
#define ASSAY_WIRE_BURST_S 2
/* Messages that nobody can understand, before it is cut off; and those a second that are forgiven. */
#define ASSAY_WIRE_PEER_GARBAGE_MAX 1000
#define ASSAY_WIRE_GARBAGE_FORGIVEN_PER_S 10
/* So long the key of a peer that was cut off is kept out. */
#define ASSAY_WIRE_BAN_MS 10000
/* Connections of one key: a worker has four. */
#define ASSAY_WIRE_KEY_PEERS_MAX 256
/* Connections to one server, also of those that have not said anything yet. */
#define ASSAY_WIRE_CONNECTIONS_MAX 4096
/* Messages that wait in a server for one connection whose pipe is full; past it the peer is taken for lost. */
#define ASSAY_WIRE_PENDING_MAX 1024
#define ASSAY_WIRE_PENDING_BYTES_MAX (512u * 1024 * 1024)
/* Services on one server and methods in one service (a bit each). */
#define ASSAY_WIRE_SERVICES_MAX 16
#define ASSAY_WIRE_METHODS_MAX 64

#define ASSAY_WIRE_METHOD_BYTES_MAX 128
#define ASSAY_WIRE_SENTENCE_BYTES_MAX 511
#define ASSAY_WIRE_METADATA_KEY_BYTES_MAX 64
#define ASSAY_WIRE_METADATA_VALUE_BYTES_MAX 1024
#define ASSAY_WIRE_METADATA_BYTES_MAX (8u * 1024)
#define ASSAY_WIRE_TRACE_DIGITS 32

/* A client with calls under way that has heard nothing from its server for so long asks whether it is there, */
#define ASSAY_WIRE_PING_MS 2000
/* and so does one that has said nothing, or has not learned the server's instance, for so long: the server is to know
 * that the client is there, and the client whether the server still knows it. */
#define ASSAY_WIRE_PING_BUSY_MS 3000
/* And that often it asks for a server that may not be there. */
#define ASSAY_WIRE_PING_ANEW_MS 100
/* A client gives up on a server that was silent that long: a few pings, so that a busy machine is no dead one. */
#define ASSAY_WIRE_SERVER_SILENT_MS 5000
/* A server drops the calls of a peer that was silent that long: longer than a client waits, so that both agree. */
#define ASSAY_WIRE_PEER_SILENT_MS 10000
/* A client that heard its server within this time sends without asking first. Below the two above by enough that the
 * server still remembers the connection. */
#define ASSAY_WIRE_FRESH_MS 3000
/* A full pipe is tried again after that. */
#define ASSAY_WIRE_RETRY_MS 5
/* Messages taken from one socket before timers and other sockets have their turn. */
#define ASSAY_WIRE_BURST 64
