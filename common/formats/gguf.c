#include "common/formats/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/formats/gguf_impl.h"

#define VERSION_MIN 2
#define VERSION_MAX 3
#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX (1u << 20)
#define NAME_BYTES_MAX 256

/* The rest of the file; the first failure stays. */
struct cursor {
    const unsigned char *begin, *at, *end;
    const char *what;
    struct assay_err *err;
    enum assay_status status;
};

static size_t left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

static size_t offset(const struct cursor *c)
{
    return (size_t)(c->at - c->begin);
}

static bool skip(struct cursor *c, uint64_t bytes, const char *part)
{
    if (c->status != ASSAY_OK)
        return false;
    if (bytes > left(c)) {
        c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: the file ends within %s, at byte %zu of %zu",
                                  c->what, part, offset(c), (size_t)(c->end - c->begin));
        return false;
    }
    c->at += bytes;
    return true;
}

static uint32_t read_u32(struct cursor *c, const char *part)
{
    uint32_t value = 0;
    if (skip(c, sizeof value, part))
        memcpy(&value, c->at - sizeof value, sizeof value);
    return value;
}

static uint64_t read_u64(struct cursor *c, const char *part)
{
    uint64_t value = 0;
    if (skip(c, sizeof value, part))
        memcpy(&value, c->at - sizeof value, sizeof value);
    return value;
}

static struct assay_gguf_text read_text(struct cursor *c, size_t bytes_max, const char *part)
{
    struct assay_gguf_text text = {"", 0};
    size_t begin = offset(c);
    uint64_t len = read_u64(c, part);
    if (c->status == ASSAY_OK && len > bytes_max)
        c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: %s at byte %zu has %llu bytes, at most %zu",
                                  c->what, part, begin, (unsigned long long)len, bytes_max);
    if (!skip(c, len, part))
        return text;
    struct assay_gguf_text found = {(const char *)c->at - len, (size_t)len};
    if (!assay_gguf_text_valid(found))
        c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: %s at byte %zu is not UTF-8 without NUL",
                                  c->what, part, begin);
    return c->status == ASSAY_OK ? found : text;
}

size_t assay_gguf_type_bytes(enum assay_gguf_type type)
{
    static const size_t bytes[] = {
        [ASSAY_GGUF_U8] = 1,   [ASSAY_GGUF_I8] = 1,    [ASSAY_GGUF_U16] = 2, [ASSAY_GGUF_I16] = 2,
        [ASSAY_GGUF_U32] = 4,  [ASSAY_GGUF_I32] = 4,   [ASSAY_GGUF_F32] = 4, [ASSAY_GGUF_BOOL] = 1,
        [ASSAY_GGUF_TEXT] = 0, [ASSAY_GGUF_ARRAY] = 0, [ASSAY_GGUF_U64] = 8, [ASSAY_GGUF_I64] = 8,
        [ASSAY_GGUF_F64] = 8,
    };
    return bytes[type];
}

static enum assay_gguf_type read_type(struct cursor *c, bool element)
{
    size_t begin = offset(c);
    uint32_t type = read_u32(c, "a value type");
    if (c->status == ASSAY_OK && (type > ASSAY_GGUF_F64 || (element && type == ASSAY_GGUF_ARRAY)))
        c->status =
            assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: %s %u at byte %zu", c->what,
                          element ? "no array can have elements of type" : "there is no value type", type, begin);
    return c->status == ASSAY_OK ? (enum assay_gguf_type)type : ASSAY_GGUF_U8;
}

static void read_entry(struct cursor *c, struct assay_gguf_entry *entry)
{
    entry->key = read_text(c, NAME_BYTES_MAX, "a key");
    entry->type = read_type(c, false);
    entry->count = 1;
    entry->is_array = entry->type == ASSAY_GGUF_ARRAY;
    if (entry->is_array) {
        entry->type = read_type(c, true);
        entry->count = read_u64(c, "an array");
    }
    if (c->status == ASSAY_OK && entry->count > ASSAY_GGUF_ARRAY_MAX)
        c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: the array '%.*s' has %llu elements, at most %u",
                                  c->what, (int)entry->key.len, entry->key.bytes, (unsigned long long)entry->count,
                                  ASSAY_GGUF_ARRAY_MAX);
    entry->payload = c->at;
    if (entry->type != ASSAY_GGUF_TEXT)
        skip(c, entry->count * assay_gguf_type_bytes(entry->type), "a value");
    for (uint64_t i = 0; entry->type == ASSAY_GGUF_TEXT && i < entry->count && c->status == ASSAY_OK; i++)
        read_text(c, ASSAY_GGUF_TEXT_BYTES_MAX, "a text");
}

/* Zeroed room for `count` things of which each takes at least bytes_min of the file. */
static void *make_room(struct cursor *c, uint64_t count, size_t size, size_t bytes_min, uint64_t max, const char *part)
{
    if (c->status != ASSAY_OK)
        return NULL;
    if (count > max || count > left(c) / bytes_min) {
        c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: %llu %s, more than %s", c->what,
                                  (unsigned long long)count, part, count > max ? "are allowed" : "the file can hold");
        return NULL;
    }
    void *room = calloc((size_t)count + 1, size);
    if (!room)
        c->status = assay_err_set(c->err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", c->what);
    return room;
}

static int compare_entries(const void *a, const void *b)
{
    return assay_gguf_text_compare(((const struct assay_gguf_entry *)a)->key,
                                   ((const struct assay_gguf_entry *)b)->key);
}

static void read_entries(struct cursor *c, struct assay_gguf *file, uint64_t count)
{
    file->entries = make_room(c, count, sizeof *file->entries, 13, ASSAY_GGUF_KEYS_MAX, "keys");
    for (uint64_t i = 0; i < count && c->status == ASSAY_OK; i++) {
        read_entry(c, &file->entries[i]);
        file->entries_count++;
    }
    if (c->status != ASSAY_OK)
        return;
    qsort(file->entries, file->entries_count, sizeof *file->entries, compare_entries);
    for (size_t i = 1; i < file->entries_count && c->status == ASSAY_OK; i++)
        if (compare_entries(&file->entries[i - 1], &file->entries[i]) == 0)
            c->status = assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: the key '%.*s' stands twice", c->what,
                                      (int)file->entries[i].key.len, file->entries[i].key.bytes);
}

/* The file's dimensions come innermost first. */
static enum assay_status read_shape(struct cursor *c, struct assay_gguf_tensor *tensor)
{
    uint32_t rank = read_u32(c, "a tensor");
    if (c->status == ASSAY_OK && (rank < 1 || rank > ASSAY_GGUF_RANK_MAX))
        return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%s' has %u dimensions, wanted 1 to %d",
                             c->what, tensor->name, rank, ASSAY_GGUF_RANK_MAX);
    tensor->elements = 1;
    for (uint32_t i = rank; i > 0 && c->status == ASSAY_OK; i--) {
        uint64_t size = read_u64(c, "a tensor");
        if (c->status == ASSAY_OK && (size == 0 || __builtin_mul_overflow(tensor->elements, size, &tensor->elements)))
            return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT,
                                 "%s: tensor '%s' has a dimension of 0 or too many elements", c->what, tensor->name);
        tensor->shape[i - 1] = size;
    }
    tensor->rank = rank;
    return c->status;
}

/* Where the bytes lie is known after all descriptions: until then `data` is NULL, and *ret_offset the place. */
static enum assay_status read_tensor(struct cursor *c, struct assay_gguf_tensor *tensor, uint64_t *ret_offset)
{
    struct assay_gguf_text name = read_text(c, NAME_BYTES_MAX, "a tensor's name");
    if (c->status != ASSAY_OK)
        return c->status;
    tensor->name = strndup(name.bytes, name.len);
    if (!tensor->name)
        return assay_err_set(c->err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", c->what);
    enum assay_status status = read_shape(c, tensor);
    if (status != ASSAY_OK)
        return status;
    uint32_t type = read_u32(c, "a tensor");
    *ret_offset = read_u64(c, "a tensor");
    if (c->status != ASSAY_OK)
        return c->status;
    size_t block_elements, block_bytes;
    if (!assay_ggml_block(type, &block_elements, &block_bytes)) {
        const char *type_name = assay_ggml_name(type);
        return assay_err_set(c->err, ASSAY_UNIMPLEMENTED,
                             "%s: tensor '%s' has the type %s (%u), which is not implemented; these are: %s", c->what,
                             tensor->name, type_name ? type_name : "of unknown name", type, assay_ggml_names());
    }
    tensor->type = (enum assay_ggml_type)type;
    if (tensor->shape[tensor->rank - 1] % block_elements != 0)
        return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%s' has rows of %llu elements, wanted whole blocks of %zu (%s)", c->what,
                             tensor->name, (unsigned long long)tensor->shape[tensor->rank - 1], block_elements,
                             assay_ggml_name(type));
    uint64_t bytes;
    if (__builtin_mul_overflow(tensor->elements / block_elements, block_bytes, &bytes))
        return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%s' has too many elements", c->what,
                             tensor->name);
    tensor->bytes = bytes;
    return ASSAY_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct assay_gguf_tensor *)a)->name, ((const struct assay_gguf_tensor *)b)->name);
}

static int compare_places(const void *a, const void *b)
{
    const struct assay_gguf_tensor *left_one = a, *right_one = b;
    return (left_one->data > right_one->data) - (left_one->data < right_one->data);
}

static enum assay_status place_tensors(struct cursor *c, struct assay_gguf *file, const uint64_t *offsets)
{
    int64_t alignment = ALIGNMENT_DEFAULT;
    enum assay_status status =
        assay_gguf_get_int(file, "general.alignment", false, 1, ALIGNMENT_MAX, &alignment, c->err);
    if (status != ASSAY_OK)
        return status;
    if (alignment & (alignment - 1))
        return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: general.alignment is %lld, wanted a power of two",
                             c->what, (long long)alignment);
    size_t begin = offset(c), step = (size_t)alignment;
    begin += (step - begin % step) % step;
    size_t room = (size_t)(c->end - c->begin) > begin ? (size_t)(c->end - c->begin) - begin : 0;
    for (size_t i = 0; i < file->tensors_count; i++) {
        struct assay_gguf_tensor *tensor = &file->tensors[i];
        if (offsets[i] % step != 0)
            return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%s' begins at %llu, no multiple of %zu",
                                 c->what, tensor->name, (unsigned long long)offsets[i], step);
        if (offsets[i] > room || tensor->bytes > room - offsets[i])
            return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT,
                                 "%s: tensor '%s' of %zu bytes at %llu ends beyond the file, which has %zu bytes of "
                                 "tensors",
                                 c->what, tensor->name, tensor->bytes, (unsigned long long)offsets[i], room);
        tensor->data = c->begin + begin + offsets[i];
    }
    return ASSAY_OK;
}

static enum assay_status check_tensors(const struct cursor *c, struct assay_gguf *file)
{
    struct assay_gguf_tensor *tensors = file->tensors;
    qsort(tensors, file->tensors_count, sizeof *tensors, compare_places);
    for (size_t i = 1; i < file->tensors_count; i++)
        if ((const char *)tensors[i].data - (const char *)tensors[i - 1].data < (ptrdiff_t)tensors[i - 1].bytes)
            return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: the tensors '%s' and '%s' overlap", c->what,
                                 tensors[i - 1].name, tensors[i].name);
    qsort(tensors, file->tensors_count, sizeof *tensors, compare_names);
    for (size_t i = 1; i < file->tensors_count; i++)
        if (compare_names(&tensors[i - 1], &tensors[i]) == 0)
            return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: the tensor '%s' stands twice", c->what,
                                 tensors[i].name);
    return ASSAY_OK;
}

static enum assay_status read_tensors(struct cursor *c, struct assay_gguf *file, uint64_t count)
{
    assay_auto(assay_free_ptr) uint64_t *offsets = NULL;
    file->tensors = make_room(c, count, sizeof *file->tensors, 32, ASSAY_MODEL_TENSORS_MAX, "tensors");
    offsets = make_room(c, count, sizeof *offsets, 32, ASSAY_MODEL_TENSORS_MAX, "tensors");
    for (uint64_t i = 0; i < count && c->status == ASSAY_OK; i++) {
        file->tensors_count++;
        c->status = read_tensor(c, &file->tensors[i], &offsets[i]);
    }
    if (c->status == ASSAY_OK)
        c->status = place_tensors(c, file, offsets);
    return c->status == ASSAY_OK ? check_tensors(c, file) : c->status;
}

static enum assay_status read_file(struct cursor *c, struct assay_gguf *file)
{
    if (left(c) < 8 || memcmp(c->at, "GGUF", 4) != 0)
        return assay_err_set(c->err, ASSAY_INVALID_ARGUMENT, "%s: no GGUF file: it does not begin with 'GGUF'",
                             c->what);
    c->at += 4;
    uint32_t version = read_u32(c, "the header");
    if (version > 0xffff && __builtin_bswap32(version) <= VERSION_MAX)
        return assay_err_set(c->err, ASSAY_UNIMPLEMENTED, "%s: a big-endian GGUF file; little-endian ones are read",
                             c->what);
    if (version < VERSION_MIN || version > VERSION_MAX)
        return assay_err_set(c->err, ASSAY_UNIMPLEMENTED, "%s: GGUF version %u; versions %d and %d are read", c->what,
                             version, VERSION_MIN, VERSION_MAX);
    uint64_t tensors = read_u64(c, "the header"), keys = read_u64(c, "the header");
    read_entries(c, file, keys);
    return c->status == ASSAY_OK ? read_tensors(c, file, tensors) : c->status;
}

enum assay_status assay_gguf_parse(const void *bytes, size_t len, const char *what, struct assay_gguf **ret,
                                   struct assay_err *err)
{
    struct assay_gguf *file = calloc(1, sizeof *file);
    if (!file || !(file->what = strdup(what))) {
        free(file);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", what);
    }
    static const unsigned char none[1];
    const unsigned char *begin = len ? bytes : none;
    struct cursor cursor = {begin, begin, begin + len, file->what, err, ASSAY_OK};
    enum assay_status status = read_file(&cursor, file);
    if (status == ASSAY_OK)
        *ret = file;
    else
        assay_gguf_close(file);
    return status;
}

enum assay_status assay_gguf_open(const char *path, struct assay_gguf **ret, struct assay_err *err)
{
    struct assay_mapping mapping = {0};
    enum assay_status status = assay_map_file(path, &mapping, err);
    if (status == ASSAY_OK)
        status = assay_gguf_parse(mapping.data, mapping.bytes, path, ret, err);
    if (status == ASSAY_OK)
        (*ret)->mapping = mapping;
    else
        assay_unmap(&mapping);
    return status;
}

void assay_gguf_close(struct assay_gguf *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->tensors_count; i++)
        free((char *)file->tensors[i].name);
    free(file->tensors);
    free(file->entries);
    free(file->what);
    assay_unmap(&file->mapping);
    free(file);
}

const char *assay_gguf_what(const struct assay_gguf *file)
{
    return file->what;
}

size_t assay_gguf_count(const struct assay_gguf *file)
{
    return file->tensors_count;
}

const struct assay_gguf_tensor *assay_gguf_at(const struct assay_gguf *file, size_t index)
{
    return index < file->tensors_count ? &file->tensors[index] : NULL;
}

const struct assay_gguf_tensor *assay_gguf_find(const struct assay_gguf *file, const char *name)
{
    struct assay_gguf_tensor key = {.name = name};
    return file->tensors_count ? bsearch(&key, file->tensors, file->tensors_count, sizeof *file->tensors, compare_names)
                               : NULL;
}
