/* The spellings of the JSON mapping: names, base64, numbers; and sizes of members. Internal to the codec. Any thread.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A field's name in lowerCamelCase: "model_dir" becomes "modelDir". Cut to bytes - 1. Returns ret. */
char *assay_json_camel(const char *name, char *ret, size_t bytes);
/* True when `key` is `name` or its lowerCamelCase form. */
bool assay_json_key_is(const char *key, const char *name);

#define ASSAY_BASE64_BYTES(bytes) (((bytes) + 2) / 3 * 4 + 1)
/* Standard alphabet, padded; text has room for ASSAY_BASE64_BYTES(bytes). */
void assay_base64_write(const uint8_t *data, size_t bytes, char *text);
/* Standard or URL-safe alphabet, padding optional; data has room for strlen(text) / 4 * 3 + 2. False: not base64. */
bool assay_base64_read(const char *text, uint8_t *data, size_t *ret_bytes);

/* The shortest decimal digits that read back as the same number: a finite double, or a float (`single`). */
#define ASSAY_NUMBER_TEXT_BYTES 40
void assay_number_write(double value, bool single, char text[ASSAY_NUMBER_TEXT_BYTES]);

/* A decimal integer and nothing else: no blanks, no plus, no leading zeros. False: not one, or beyond 64 bits. */
struct assay_decimal {
    bool negative;
    uint64_t magnitude;
};
bool assay_decimal_read(const char *text, struct assay_decimal *ret);

/* Size of one value of that type in a message's struct. */
size_t assay_field_value_bytes(ProtobufCType type);
