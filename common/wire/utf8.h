/* UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>

bool assay_utf8_valid(const char *text, size_t bytes);
/* Replaces each byte that is not part of a valid sequence by '?'. */
void assay_utf8_repair(char *text);
/* Checks all string fields of a message and of the messages in it. On false *ret_field names the field. Our messages
 * are not recursive, so depth is bounded by the schema. */
bool assay_utf8_message(const ProtobufCMessage *message, const char **ret_field);
