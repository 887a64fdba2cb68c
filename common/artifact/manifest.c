#include "common/artifact/manifest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/base/version.h"
#include "common/formats/json.h"

/* The largest whole number that JSON readers keep exactly. */
#define JSON_WHOLE_MAX (INT64_C(1) << 53)

static const char *const byte_keys[] = {"source", "artifact", "codes", "scales", "kept"};

static void byte_fields(struct assay_manifest *manifest, uint64_t *fields[ASSAY_COUNT(byte_keys)])
{
    fields[0] = &manifest->source_bytes;
    fields[1] = &manifest->artifact_bytes;
    fields[2] = &manifest->code_bytes;
    fields[3] = &manifest->scale_bytes;
    fields[4] = &manifest->kept_bytes;
}

void assay_manifest_release(struct assay_manifest *manifest)
{
    assay_arena_release(&manifest->arena);
    *manifest = (struct assay_manifest)ASSAY_MANIFEST_INIT;
}

/* --- writing --- */

static void add_digest(cJSON *object, const char *key, const struct assay_digest *digest)
{
    char hex[ASSAY_DIGEST_HEX];
    cJSON_AddStringToObject(object, key, assay_digest_hex(digest, hex));
}

/* With all digits, which cJSON's own numbers may lack: a summary read back is the one that was written. */
static void add_figure(cJSON *object, const char *key, double value)
{
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    if (isfinite(value))
        cJSON_AddRawToObject(object, key, text);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_head(cJSON *root, const struct assay_head_contract *head)
{
    cJSON *object = cJSON_AddObjectToObject(root, "head");
    add_digest(object, "digest", &head->digest);
    cJSON_AddBoolToObject(object, "tied", head->tied);
    cJSON_AddStringToObject(object, "scheme", "kept");
    cJSON_AddStringToObject(object, "bias", head->bias ? "kept" : "none");
    cJSON_AddStringToObject(object, "input_rounding", "none");
    add_figure(object, "logit_scale", head->logit_scale);
    add_figure(object, "soft_cap", head->soft_cap > 0 ? head->soft_cap : NAN);
    cJSON_AddNumberToObject(object, "used_vocab", (double)head->vocab);
}

static void add_errors(cJSON *root, const struct assay_manifest *manifest)
{
    cJSON *array = cJSON_AddArrayToObject(root, "tensor_errors");
    for (size_t i = 0; i < manifest->errors_count; i++) {
        const struct assay_tensor_error *error = &manifest->errors[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "tensor", error->tensor);
        cJSON_AddNumberToObject(object, "layer", error->layer);
        add_figure(object, "cosine", error->cosine);
        add_figure(object, "relative_frobenius", error->relative_frobenius);
        add_figure(object, "max_abs", error->max_abs);
        cJSON_AddNumberToObject(object, "elements", (double)error->elements);
        cJSON_AddItemToArray(array, object);
    }
}

static void add_files(cJSON *root, const struct assay_manifest *manifest)
{
    cJSON *array = cJSON_AddArrayToObject(root, "files");
    for (size_t i = 0; i < manifest->files_count; i++) {
        const struct assay_artifact_file *file = &manifest->files[i];
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "name", file->name);
        cJSON_AddBoolToObject(object, "linked", file->linked);
        cJSON_AddNumberToObject(object, "bytes", (double)file->bytes);
        /* In two parts: nanoseconds since 1970 do not fit the whole numbers of JSON. */
        cJSON_AddNumberToObject(object, "mtime_s", (double)(file->mtime_ns / 1000000000));
        cJSON_AddNumberToObject(object, "mtime_ns", (double)(file->mtime_ns % 1000000000));
        cJSON_AddItemToArray(array, object);
    }
}

static enum assay_status look_at(const char *dir, const char *name, bool linked, struct assay_artifact_file *ret,
                                 struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    struct stat st;
    enum assay_status status = assay_path_join(path, dir, name, err);
    if (status != ASSAY_OK)
        return status;
    if (stat(path, &st) != 0)
        return assay_err_errno(err, errno, "cannot stat %s", path);
    *ret = (struct assay_artifact_file){
        .name = name,
        .linked = linked,
        .bytes = (uint64_t)st.st_size,
        .mtime_ns = linked ? (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec : 0,
    };
    return ASSAY_OK;
}

static cJSON *manifest_json(struct assay_manifest *manifest)
{
    cJSON *root = cJSON_CreateObject();
    uint64_t *bytes[ASSAY_COUNT(byte_keys)];
    byte_fields(manifest, bytes);
    cJSON_AddNumberToObject(root, "format", ASSAY_MANIFEST_FORMAT);
    cJSON_AddStringToObject(root, "tool", "assay " ASSAY_VERSION);
    add_digest(root, "variant_id", &manifest->variant_id.digest);
    add_digest(root, "model_id", &manifest->model_id.digest);
    cJSON_AddStringToObject(root, "spec", manifest->spec);
    add_head(root, &manifest->head);
    cJSON *object = cJSON_AddObjectToObject(root, "bytes");
    for (size_t i = 0; i < ASSAY_COUNT(byte_keys); i++)
        cJSON_AddNumberToObject(object, byte_keys[i], (double)*bytes[i]);
    cJSON_AddNumberToObject(root, "parameters", (double)manifest->parameters);
    cJSON_AddNumberToObject(root, "tensors", (double)manifest->tensors);
    cJSON_AddNumberToObject(root, "wall_us", (double)manifest->wall_us);
    add_errors(root, manifest);
    add_files(root, manifest);
    return root;
}

enum assay_status assay_manifest_write(struct assay_manifest *manifest, const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, ASSAY_MANIFEST_FILE, err);
    for (size_t i = 0; i < manifest->files_count && status == ASSAY_OK; i++)
        status = look_at(dir, manifest->files[i].name, manifest->files[i].linked, &manifest->files[i], err);
    if (status != ASSAY_OK)
        return status;
    cJSON *root = manifest_json(manifest);
    char *text = cJSON_Print(root);
    cJSON_Delete(root);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while writing %s", path);
    status = assay_file_write(path, text, strlen(text), err);
    cJSON_free(text);
    return status;
}

/* --- reading --- */

struct reader {
    const char *path;
    struct assay_manifest *manifest;
    struct assay_err *err;
};

static enum assay_status get_whole(struct reader *reader, const cJSON *object, const char *key, int64_t min,
                                   int64_t max, int64_t *ret)
{
    return assay_json_get_int(object, reader->path, key, true, min, max, ret, reader->err);
}

static enum assay_status get_count(struct reader *reader, const cJSON *object, const char *key, uint64_t *ret)
{
    int64_t value = 0;
    enum assay_status status = get_whole(reader, object, key, 0, JSON_WHOLE_MAX, &value);
    if (status == ASSAY_OK)
        *ret = (uint64_t)value;
    return status;
}

static enum assay_status get_text(struct reader *reader, const cJSON *object, const char *key, const char **ret)
{
    const char *text = NULL;
    enum assay_status status = assay_json_get_string(object, reader->path, key, true, &text, reader->err);
    if (status != ASSAY_OK)
        return status;
    *ret = assay_arena_strdup(&reader->manifest->arena, text);
    return *ret ? ASSAY_OK
                : assay_err_set(reader->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while reading %s", reader->path);
}

static enum assay_status get_digest(struct reader *reader, const cJSON *object, const char *key,
                                    struct assay_digest *ret)
{
    const char *text = NULL;
    enum assay_status status = assay_json_get_string(object, reader->path, key, true, &text, reader->err);
    if (status == ASSAY_OK)
        status = assay_digest_parse(text, ret, reader->err);
    return status;
}

/* A number, or null for a figure that has no meaning. */
static enum assay_status get_figure(struct reader *reader, const cJSON *object, const char *key, double *ret)
{
    *ret = NAN;
    return assay_json_get_double(object, reader->path, key, false, ret, reader->err);
}

/* The array `key`, at most ASSAY_MODEL_TENSORS_MAX long, and zeroed room for it. */
static enum assay_status get_array(struct reader *reader, const cJSON *root, const char *key, size_t element_bytes,
                                   const cJSON **ret, void *ret_room, size_t *ret_count)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(root, key);
    int count = cJSON_IsArray(array) ? cJSON_GetArraySize(array) : -1;
    if (count < 0 || (unsigned)count > ASSAY_MODEL_TENSORS_MAX)
        return assay_err_set(reader->err, ASSAY_INVALID_ARGUMENT, "%s: %s is not a list of at most %u entries",
                             reader->path, key, ASSAY_MODEL_TENSORS_MAX);
    void *room = assay_arena_alloc(&reader->manifest->arena, ((size_t)count + 1) * element_bytes);
    if (!room)
        return assay_err_set(reader->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while reading %s", reader->path);
    *ret = array;
    *(void **)ret_room = room;
    *ret_count = (size_t)count;
    return ASSAY_OK;
}

static enum assay_status read_error(struct reader *reader, const cJSON *object, struct assay_tensor_error *ret)
{
    int64_t layer = -1;
    enum assay_status status = get_text(reader, object, "tensor", &ret->tensor);
    if (status == ASSAY_OK)
        status = get_whole(reader, object, "layer", -1, ASSAY_MODEL_LAYERS_MAX, &layer);
    ret->layer = (int32_t)layer;
    if (status == ASSAY_OK)
        status = get_figure(reader, object, "cosine", &ret->cosine);
    if (status == ASSAY_OK)
        status = get_figure(reader, object, "relative_frobenius", &ret->relative_frobenius);
    if (status == ASSAY_OK)
        status = get_figure(reader, object, "max_abs", &ret->max_abs);
    if (status == ASSAY_OK)
        status = get_count(reader, object, "elements", &ret->elements);
    return status;
}

static enum assay_status read_file_entry(struct reader *reader, const cJSON *object, struct assay_artifact_file *ret)
{
    int64_t seconds = 0, nanoseconds = 0;
    enum assay_status status = get_text(reader, object, "name", &ret->name);
    if (status == ASSAY_OK && !assay_path_is_name(ret->name))
        status = assay_err_set(reader->err, ASSAY_INVALID_ARGUMENT, "%s: '%s' is not the name of a file", reader->path,
                               ret->name);
    if (status == ASSAY_OK)
        status = assay_json_get_bool(object, reader->path, "linked", true, &ret->linked, reader->err);
    if (status == ASSAY_OK)
        status = get_count(reader, object, "bytes", &ret->bytes);
    if (status == ASSAY_OK)
        status = get_whole(reader, object, "mtime_s", -(INT64_C(1) << 33), INT64_C(1) << 33, &seconds);
    if (status == ASSAY_OK)
        status = get_whole(reader, object, "mtime_ns", -999999999, 999999999, &nanoseconds);
    ret->mtime_ns = seconds * 1000000000 + nanoseconds;
    return status;
}

static enum assay_status read_lists(struct reader *reader, const cJSON *root)
{
    struct assay_manifest *manifest = reader->manifest;
    const cJSON *array = NULL, *element;
    enum assay_status status = get_array(reader, root, "tensor_errors", sizeof *manifest->errors, &array,
                                         &manifest->errors, &manifest->errors_count);
    if (status != ASSAY_OK)
        return status;
    size_t i = 0;
    cJSON_ArrayForEach(element, array)
    {
        status = read_error(reader, element, &manifest->errors[i++]);
        if (status != ASSAY_OK)
            return status;
    }
    status =
        get_array(reader, root, "files", sizeof *manifest->files, &array, &manifest->files, &manifest->files_count);
    if (status != ASSAY_OK)
        return status;
    i = 0;
    cJSON_ArrayForEach(element, array)
    {
        status = read_file_entry(reader, element, &manifest->files[i++]);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status read_head(struct reader *reader, const cJSON *root)
{
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(root, "head");
    struct assay_head_contract *head = &reader->manifest->head;
    if (!cJSON_IsObject(object))
        return assay_err_set(reader->err, ASSAY_INVALID_ARGUMENT, "%s: head is missing", reader->path);
    enum assay_status status = get_digest(reader, object, "digest", &head->digest);
    if (status == ASSAY_OK)
        status = assay_json_get_bool(object, reader->path, "tied", true, &head->tied, reader->err);
    const char *bias = "none";
    head->logit_scale = 1;
    if (status == ASSAY_OK)
        status = assay_json_get_string(object, reader->path, "bias", false, &bias, reader->err);
    if (status == ASSAY_OK)
        status = assay_json_get_double(object, reader->path, "logit_scale", false, &head->logit_scale, reader->err);
    if (status == ASSAY_OK)
        status = assay_json_get_double(object, reader->path, "soft_cap", false, &head->soft_cap, reader->err);
    head->bias = strcmp(bias, "none") != 0;
    if (status == ASSAY_OK)
        status = get_count(reader, object, "used_vocab", &head->vocab);
    return status;
}

static enum assay_status read_fields(struct reader *reader, const cJSON *root)
{
    struct assay_manifest *manifest = reader->manifest;
    uint64_t *bytes[ASSAY_COUNT(byte_keys)];
    byte_fields(manifest, bytes);
    int64_t format = 0;
    enum assay_status status = get_whole(reader, root, "format", ASSAY_MANIFEST_FORMAT, ASSAY_MANIFEST_FORMAT, &format);
    if (status == ASSAY_OK)
        status = get_digest(reader, root, "variant_id", &manifest->variant_id.digest);
    if (status == ASSAY_OK)
        status = get_digest(reader, root, "model_id", &manifest->model_id.digest);
    if (status == ASSAY_OK)
        status = get_text(reader, root, "spec", &manifest->spec);
    if (status == ASSAY_OK)
        status = get_count(reader, root, "parameters", &manifest->parameters);
    if (status == ASSAY_OK)
        status = get_count(reader, root, "tensors", &manifest->tensors);
    if (status == ASSAY_OK)
        status = get_count(reader, root, "wall_us", &manifest->wall_us);
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(root, "bytes");
    for (size_t i = 0; i < ASSAY_COUNT(byte_keys) && status == ASSAY_OK; i++)
        status = get_count(reader, object, byte_keys[i], bytes[i]);
    if (status == ASSAY_OK)
        status = read_head(reader, root);
    if (status == ASSAY_OK)
        status = read_lists(reader, root);
    return status;
}

enum assay_status assay_manifest_read(const char *dir, struct assay_manifest *ret, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, ASSAY_MANIFEST_FILE, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_json_delete) cJSON *root = NULL;
    status = assay_json_load(path, &root, err);
    if (status != ASSAY_OK)
        return status;
    if (!cJSON_IsObject(root))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a JSON object", path);
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    struct reader reader = {path, &manifest, err};
    status = read_fields(&reader, root);
    if (status == ASSAY_OK)
        *ret = manifest;
    else
        assay_manifest_release(&manifest);
    return status;
}

enum assay_status assay_manifest_check_files(const struct assay_manifest *manifest, const char *dir,
                                             struct assay_err *err)
{
    for (size_t i = 0; i < manifest->files_count; i++) {
        const struct assay_artifact_file *want = &manifest->files[i];
        struct assay_artifact_file found;
        if (look_at(dir, want->name, want->linked, &found, err) != ASSAY_OK)
            return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "%s/%s is missing", dir, want->name);
        if (found.bytes != want->bytes || found.mtime_ns != want->mtime_ns)
            return assay_err_set(err, ASSAY_FAILED_PRECONDITION, "%s/%s has changed since the artifact was made", dir,
                                 want->name);
    }
    return ASSAY_OK;
}
