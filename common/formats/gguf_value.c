/* The metadata of a GGUF file, by key. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_impl.h"

int assay_gguf_text_compare(struct assay_gguf_text a, struct assay_gguf_text b)
{
    size_t common = ASSAY_MIN(a.len, b.len);
    int order = common ? memcmp(a.bytes, b.bytes, common) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

bool assay_gguf_text_is(struct assay_gguf_text text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

/* Bytes of the sequence that begins with `first`, and the range of its second byte; 0 when none can begin so. */
static size_t sequence_bytes(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    if (first >= 0xf0 && first <= 0xf4)
        return 4;
    return first > 0 && first < 0x80;
}

bool assay_gguf_text_valid(struct assay_gguf_text text)
{
    const unsigned char *at = (const unsigned char *)text.bytes, *end = at + text.len;
    while (at < end) {
        unsigned char low, high;
        size_t bytes = sequence_bytes(*at, &low, &high);
        if (bytes == 0 || bytes > (size_t)(end - at) || (bytes > 1 && (at[1] < low || at[1] > high)))
            return false;
        for (size_t i = 2; i < bytes; i++)
            if ((at[i] & 0xc0) != 0x80)
                return false;
        at += bytes;
    }
    return true;
}

static const struct assay_gguf_entry *find(const struct assay_gguf *file, const char *key)
{
    struct assay_gguf_text wanted = {key, strlen(key)};
    size_t low = 0, high = file->entries_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = assay_gguf_text_compare(wanted, file->entries[middle].key);
        if (order == 0)
            return &file->entries[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool assay_gguf_has(const struct assay_gguf *file, const char *key)
{
    return find(file, key) != NULL;
}

/* *ret is NULL for an absent key that is not required. */
static enum assay_status look_up(const struct assay_gguf *file, const char *key, bool required, bool array,
                                 const struct assay_gguf_entry **ret, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = find(file, key);
    if (!entry && required)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the key '%s' is missing", file->what, key);
    if (entry && entry->is_array != array)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is %s", file->what, key,
                             array ? "a single value, wanted an array" : "an array, wanted a single value");
    *ret = entry;
    return ASSAY_OK;
}

static enum assay_status wrong_type(const struct assay_gguf *file, const char *key, const char *wanted,
                                    struct assay_err *err)
{
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is of another type, wanted %s", file->what, key,
                         wanted);
}

/* False when the value is no integer or does not fit. */
static bool load_int(enum assay_gguf_type type, const unsigned char *payload, int64_t *ret)
{
    uint64_t raw = 0;
    size_t bytes = assay_gguf_type_bytes(type);
    memcpy(&raw, payload, bytes);
    switch (type) {
    case ASSAY_GGUF_U8:
    case ASSAY_GGUF_U16:
    case ASSAY_GGUF_U32:
        *ret = (int64_t)raw;
        return true;
    case ASSAY_GGUF_U64:
        *ret = (int64_t)raw;
        return raw <= INT64_MAX;
    case ASSAY_GGUF_I8:
        *ret = (int8_t)raw;
        return true;
    case ASSAY_GGUF_I16:
        *ret = (int16_t)raw;
        return true;
    case ASSAY_GGUF_I32:
        *ret = (int32_t)raw;
        return true;
    case ASSAY_GGUF_I64:
        *ret = (int64_t)raw;
        return true;
    default:
        return false;
    }
}

enum assay_status assay_gguf_get_int(const struct assay_gguf *file, const char *key, bool required, int64_t min,
                                     int64_t max, int64_t *ret, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, false, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    int64_t value;
    if (!load_int(entry->type, entry->payload, &value))
        return wrong_type(file, key, "an integer", err);
    if (value < min || value > max)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is %lld, wanted %lld to %lld", file->what, key,
                             (long long)value, (long long)min, (long long)max);
    *ret = value;
    return ASSAY_OK;
}

static double shortest_decimal(float value)
{
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return strtod(text, NULL);
}

enum assay_status assay_gguf_get_double(const struct assay_gguf *file, const char *key, bool required, double *ret,
                                        struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, false, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    double value = 0;
    if (entry->type == ASSAY_GGUF_F32) {
        float single;
        memcpy(&single, entry->payload, sizeof single);
        value = isfinite(single) ? shortest_decimal(single) : (double)single;
    } else if (entry->type == ASSAY_GGUF_F64) {
        memcpy(&value, entry->payload, sizeof value);
    } else {
        return wrong_type(file, key, "a floating-point number", err);
    }
    if (!isfinite(value))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is %g, wanted a finite number", file->what, key,
                             value);
    *ret = value;
    return ASSAY_OK;
}

enum assay_status assay_gguf_get_bool(const struct assay_gguf *file, const char *key, bool required, bool *ret,
                                      struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, false, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    if (entry->type != ASSAY_GGUF_BOOL || *entry->payload > 1)
        return wrong_type(file, key, "true or false", err);
    *ret = *entry->payload;
    return ASSAY_OK;
}

/* The text at *at, which is moved behind it. Checked when the file was read. */
static struct assay_gguf_text load_text(const unsigned char **at)
{
    uint64_t len;
    memcpy(&len, *at, sizeof len);
    struct assay_gguf_text text = {(const char *)*at + sizeof len, (size_t)len};
    *at += sizeof len + len;
    return text;
}

enum assay_status assay_gguf_get_text(const struct assay_gguf *file, const char *key, bool required,
                                      struct assay_gguf_text *ret, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, false, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    if (entry->type != ASSAY_GGUF_TEXT)
        return wrong_type(file, key, "a text", err);
    const unsigned char *at = entry->payload;
    *ret = load_text(&at);
    return ASSAY_OK;
}

enum assay_status assay_gguf_get_texts(const struct assay_gguf *file, const char *key, bool required,
                                       struct assay_gguf_text **ret, size_t *ret_count, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, true, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    if (entry->type != ASSAY_GGUF_TEXT)
        return wrong_type(file, key, "texts", err);
    struct assay_gguf_text *texts = calloc((size_t)entry->count + 1, sizeof *texts);
    if (!texts)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", file->what);
    const unsigned char *at = entry->payload;
    for (size_t i = 0; i < entry->count; i++)
        texts[i] = load_text(&at);
    *ret = texts;
    *ret_count = (size_t)entry->count;
    return ASSAY_OK;
}

enum assay_status assay_gguf_get_ints(const struct assay_gguf *file, const char *key, bool required, int64_t **ret,
                                      size_t *ret_count, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, true, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    int64_t *values = calloc((size_t)entry->count + 1, sizeof *values);
    if (!values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", file->what);
    size_t bytes = assay_gguf_type_bytes(entry->type);
    for (size_t i = 0; i < entry->count; i++) {
        if (bytes == 0 || !load_int(entry->type, entry->payload + i * bytes, &values[i])) {
            free(values);
            return wrong_type(file, key, "integers", err);
        }
    }
    *ret = values;
    *ret_count = (size_t)entry->count;
    return ASSAY_OK;
}

enum assay_status assay_gguf_get_floats(const struct assay_gguf *file, const char *key, bool required, float **ret,
                                        size_t *ret_count, struct assay_err *err)
{
    const struct assay_gguf_entry *entry = NULL;
    enum assay_status status = look_up(file, key, required, true, &entry, err);
    if (status != ASSAY_OK || !entry)
        return status;
    if (entry->type != ASSAY_GGUF_F32)
        return wrong_type(file, key, "numbers of 32 bits", err);
    float *values = calloc((size_t)entry->count + 1, sizeof *values);
    if (!values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", file->what);
    memcpy(values, entry->payload, (size_t)entry->count * sizeof *values);
    *ret = values;
    *ret_count = (size_t)entry->count;
    return ASSAY_OK;
}
