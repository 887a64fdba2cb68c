/* Messages as JSON and back, by the proto3 JSON mapping, driven by protobuf-c's descriptors: names in lowerCamelCase,
 * 64-bit integers as strings, bytes in base64, enums by name, NaN and infinities as strings, absent fields left out.
 *
 * Works for messages whose fields are optional or repeated, as those of proto/ are. Any thread. */
#pragma once

#include <cjson/cJSON.h>
#include <protobuf-c/protobuf-c.h>

#include "common/base/status.h"

/* The tree of a message, to be printed: real numbers in it are raw text, so that every digit survives. Caller:
 * cJSON_Delete. INVALID_ARGUMENT: a string that is not UTF-8. RESOURCE_EXHAUSTED: out of memory. */
enum assay_status assay_message_to_json(const ProtobufCMessage *message, cJSON **ret,
                                        struct assay_err *err) ASSAY_MUST_USE;

/* The message of an object that a parser made. Takes a field's own name and its lowerCamelCase form, integers as
 * numbers or strings, enums by name or number, base64 in both alphabets, with or without padding; null is as absent.
 * A number of a 64-bit field beyond 2^53 must be a string, as it has lost digits before it comes here.
 *
 * INVALID_ARGUMENT with the field's path, 'field "variants[1].scheme": ...', what was found and what wanted: unknown
 * field, one that stands twice (under both names), another type, out of range. RESOURCE_EXHAUSTED: out of memory, or
 * the message would have more than ASSAY_WIRE_UNPACKED_BYTES_MAX bytes.
 * *ret_fault (may be NULL) is set to the value at fault when it fails because of one, else to NULL.
 * Caller: protobuf_c_message_free_unpacked(message, NULL). */
enum assay_status assay_message_from_json(const ProtobufCMessageDescriptor *descriptor, const cJSON *json,
                                          ProtobufCMessage **ret, const cJSON **ret_fault,
                                          struct assay_err *err) ASSAY_MUST_USE;

void assay_message_release(ProtobufCMessage **message); /* for assay_auto; NULL is fine */
