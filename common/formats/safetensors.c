#include "common/formats/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/json.h"

#define LENGTH_BYTES 8
/* The largest integer that a JSON number surely keeps. */
#define OFFSET_MAX (INT64_C(1) << 53)

struct entry {
    struct assay_tensor tensor;
    uint64_t begin, end; /* in the data section */
};

struct assay_safetensors {
    struct assay_mapping mapping; /* empty when the caller keeps the bytes */
    const void *bytes;
    size_t len;
    cJSON *header;         /* names and metadata point into it */
    const cJSON *metadata; /* NULL when there is none */
    struct entry *entries; /* in file order */
    const struct entry **by_name;
    size_t count;
};

/* What is being read, for errors. */
struct source {
    const char *what;
    const unsigned char *data; /* the data section */
    uint64_t bytes;
};

uint64_t assay_tensor_elements(const struct assay_tensor *tensor)
{
    uint64_t elements = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        elements *= tensor->shape[i];
    return elements;
}

static bool exact_integer(const cJSON *value, uint64_t *ret)
{
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0) || !(value->valuedouble < (double)OFFSET_MAX))
        return false;
    *ret = (uint64_t)value->valuedouble;
    return (double)*ret == value->valuedouble;
}

static enum assay_status read_shape(const struct source *source, const cJSON *shape, struct assay_tensor *tensor,
                                    struct assay_err *err)
{
    if (!cJSON_IsArray(shape))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s': 'shape' is not an array", source->what,
                             tensor->name);
    for (const cJSON *size = shape->child; size; size = size->next) {
        if (tensor->rank == ASSAY_TENSOR_RANK_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s': more than %d dimensions",
                                 source->what, tensor->name, ASSAY_TENSOR_RANK_MAX);
        if (!exact_integer(size, &tensor->shape[tensor->rank++]))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: tensor '%.100s': dimension %zu is not an integer from 0 to 2^53", source->what,
                                 tensor->name, tensor->rank - 1);
    }
    return ASSAY_OK;
}

static enum assay_status read_offsets(const struct source *source, const cJSON *offsets, struct entry *entry,
                                      struct assay_err *err)
{
    const char *name = entry->tensor.name;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !exact_integer(offsets->child, &entry->begin) ||
        !exact_integer(offsets->child->next, &entry->end))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%.100s': 'data_offsets' should be two integers from 0 to 2^53", source->what,
                             name);
    if (entry->begin > entry->end)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%.100s': offsets are reversed: %" PRIu64 " to %" PRIu64, source->what, name,
                             entry->begin, entry->end);
    if (entry->end > source->bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%.100s' ends at byte %" PRIu64 " of the data, but the file has only %" PRIu64
                             " (is it cut off?)",
                             source->what, name, entry->end, source->bytes);
    return ASSAY_OK;
}

/* The size that shape and dtype give. False when it overflows. */
static bool shape_bytes(const struct assay_tensor *tensor, uint64_t *ret)
{
    uint64_t bytes = assay_dtype_bytes(tensor->dtype);
    for (size_t i = 0; i < tensor->rank; i++) {
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return false;
    }
    *ret = bytes;
    return bytes <= SIZE_MAX;
}

static enum assay_status read_entry(const struct source *source, const cJSON *member, struct entry *ret,
                                    struct assay_err *err)
{
    struct entry entry = {.tensor.name = member->string};
    const char *dtype = NULL;
    if (!cJSON_IsObject(member))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s' is not described by an object",
                             source->what, member->string);
    dtype = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(member, "dtype"));
    if (!dtype)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s': 'dtype' is not a string", source->what,
                             member->string);
    if (!assay_dtype_parse(dtype, &entry.tensor.dtype))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s': unknown dtype '%.40s'", source->what,
                             member->string, dtype);
    enum assay_status status =
        read_shape(source, cJSON_GetObjectItemCaseSensitive(member, "shape"), &entry.tensor, err);
    if (status == ASSAY_OK)
        status = read_offsets(source, cJSON_GetObjectItemCaseSensitive(member, "data_offsets"), &entry, err);
    if (status != ASSAY_OK)
        return status;
    uint64_t bytes;
    if (!shape_bytes(&entry.tensor, &bytes))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s': the product of its shape overflows",
                             source->what, member->string);
    if (bytes != entry.end - entry.begin)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%.100s': shape and dtype give %" PRIu64 " bytes, the offsets %" PRIu64,
                             source->what, member->string, bytes, entry.end - entry.begin);
    entry.tensor.bytes = (size_t)bytes;
    entry.tensor.data = source->data + entry.begin;
    *ret = entry;
    return ASSAY_OK;
}

static enum assay_status check_metadata(const struct source *source, const cJSON *metadata, struct assay_err *err)
{
    if (!cJSON_IsObject(metadata))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '__metadata__' is not an object", source->what);
    for (const cJSON *member = metadata->child; member; member = member->next) {
        if (!cJSON_IsString(member))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: '__metadata__': '%.100s' is not a string",
                                 source->what, member->string);
    }
    return ASSAY_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    if (left->begin != right->begin)
        return left->begin < right->begin ? -1 : 1;
    if (left->end != right->end)
        return left->end < right->end ? -1 : 1;
    return strcmp(left->tensor.name, right->tensor.name);
}

static int compare_names(const void *a, const void *b)
{
    const struct entry *const *left = a, *const *right = b;
    return strcmp((*left)->tensor.name, (*right)->tensor.name);
}

/* In file order, each tensor begins where the one before it ends, and the last one ends the file. */
static enum assay_status check_layout(const struct assay_safetensors *file, const struct source *source,
                                      struct assay_err *err)
{
    uint64_t at = 0;
    for (size_t i = 0; i < file->count; i++) {
        const struct entry *entry = &file->entries[i];
        if (entry->begin != at)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s: tensor '%.100s' begins at byte %" PRIu64 " of the data, %s %" PRIu64,
                                 source->what, entry->tensor.name, entry->begin,
                                 entry->begin < at ? "inside another tensor that ends at" : "leaving a hole from", at);
        at = entry->end;
    }
    if (at != source->bytes)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: %" PRIu64 " bytes of data belong to no tensor (tensors end at byte %" PRIu64 ")",
                             source->what, source->bytes - at, at);
    return ASSAY_OK;
}

static enum assay_status read_entries(struct assay_safetensors *file, const struct source *source,
                                      struct assay_err *err)
{
    size_t members = (size_t)cJSON_GetArraySize(file->header);
    if (members > ASSAY_MODEL_TENSORS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu tensors, at most %u are allowed", source->what,
                             members, ASSAY_MODEL_TENSORS_MAX);
    file->entries = calloc(members + 1, sizeof *file->entries);
    file->by_name = calloc(members + 1, sizeof *file->by_name);
    if (!file->entries || !file->by_name)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory for %zu tensors", source->what, members);
    for (const cJSON *member = file->header->child; member; member = member->next) {
        enum assay_status status;
        if (strcmp(member->string, "__metadata__") == 0) {
            status = check_metadata(source, member, err);
            file->metadata = member;
        } else {
            status = read_entry(source, member, &file->entries[file->count], err);
            file->count++;
        }
        if (status != ASSAY_OK)
            return status;
    }
    qsort(file->entries, file->count, sizeof *file->entries, compare_offsets);
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->entries[i];
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_names);
    return check_layout(file, source, err);
}

static enum assay_status read_header(struct assay_safetensors *file, const unsigned char *bytes, size_t len,
                                     const char *what, struct assay_err *err)
{
    if (len < LENGTH_BYTES)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: not a safetensors file: %zu bytes, the length of the header alone takes %d", what,
                             len, LENGTH_BYTES);
    uint64_t header_bytes = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)bytes[i] << (8 * i);
    if (header_bytes > ASSAY_SAFETENSORS_HEADER_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: not a safetensors file: a header of %" PRIu64 " bytes, at most %u are allowed", what,
                             header_bytes, ASSAY_SAFETENSORS_HEADER_BYTES_MAX);
    if (header_bytes > len - LENGTH_BYTES)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: a header of %" PRIu64 " bytes in a file of %zu (is it cut off?)", what, header_bytes,
                             len);
    enum assay_status status =
        assay_json_parse((const char *)bytes + LENGTH_BYTES, (size_t)header_bytes, what, &file->header, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "safetensors header");
        return status;
    }
    if (!cJSON_IsObject(file->header))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the header is not a JSON object", what);
    struct source source = {what, bytes + LENGTH_BYTES + header_bytes, len - LENGTH_BYTES - header_bytes};
    return read_entries(file, &source, err);
}

/* Takes the mapping over, also when it fails. */
static enum assay_status parse(struct assay_mapping mapping, const void *bytes, size_t len, const char *what,
                               struct assay_safetensors **ret, struct assay_err *err)
{
    struct assay_safetensors *file = calloc(1, sizeof *file);
    if (!file) {
        assay_unmap(&mapping);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", what);
    }
    file->mapping = mapping;
    file->bytes = bytes;
    file->len = len;
    enum assay_status status = read_header(file, bytes, len, what, err);
    if (status == ASSAY_OK)
        *ret = file;
    else
        assay_safetensors_close(file);
    return status;
}

enum assay_status assay_safetensors_parse(const void *bytes, size_t len, const char *what,
                                          struct assay_safetensors **ret, struct assay_err *err)
{
    return parse((struct assay_mapping){0}, bytes, len, what, ret, err);
}

enum assay_status assay_safetensors_open(const char *path, struct assay_safetensors **ret, struct assay_err *err)
{
    struct assay_mapping mapping;
    enum assay_status status = assay_map_file(path, &mapping, err);
    if (status != ASSAY_OK)
        return status;
    return parse(mapping, mapping.data, mapping.bytes, path, ret, err);
}

void assay_safetensors_forget(const struct assay_safetensors *file, const struct assay_tensor *tensor)
{
    assay_map_forget(&file->mapping, tensor->data, tensor->bytes);
}

void assay_safetensors_close(struct assay_safetensors *file)
{
    if (!file)
        return;
    free(file->by_name);
    free(file->entries);
    cJSON_Delete(file->header);
    assay_unmap(&file->mapping);
    free(file);
}

const void *assay_safetensors_bytes(const struct assay_safetensors *file, size_t *ret_bytes)
{
    *ret_bytes = file->len;
    return file->bytes;
}

const struct assay_file_identity *assay_safetensors_identity(const struct assay_safetensors *file)
{
    return &file->mapping.identity;
}

size_t assay_safetensors_count(const struct assay_safetensors *file)
{
    return file->count;
}

const struct assay_tensor *assay_safetensors_at(const struct assay_safetensors *file, size_t index)
{
    return index < file->count ? &file->entries[index].tensor : NULL;
}

const struct assay_tensor *assay_safetensors_find(const struct assay_safetensors *file, const char *name)
{
    struct entry wanted = {.tensor.name = name};
    const struct entry *key = &wanted;
    const struct entry **found = bsearch(&key, file->by_name, file->count, sizeof *file->by_name, compare_names);
    return found ? &(*found)->tensor : NULL;
}

const char *assay_safetensors_metadata(const struct assay_safetensors *file, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file->metadata, key));
}
