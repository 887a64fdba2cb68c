#include "common/formats/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/limits.h"

#define CONFIG_FILE "config.json"
#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

/* The files that hold a checkpoint's weights. */
struct weight_files {
    cJSON *index;       /* NULL for a single file; names point into it */
    const cJSON *map;   /* weight_map: tensor to file */
    const char **names; /* sorted, each once */
    size_t count;
};

/* A tensor and the file it came from. */
struct located {
    const struct assay_tensor *tensor;
    size_t shard;
};

struct assay_checkpoint {
    char *dir;
    cJSON *config;
    struct weight_files files;
    struct assay_safetensors **shards;
    struct located *tensors; /* by name */
    size_t count;
};

static void weight_files_release(struct weight_files *files)
{
    free(files->names);
    cJSON_Delete(files->index);
    *files = (struct weight_files){0};
}

static enum assay_status out_of_memory(const char *dir, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory while opening a checkpoint", dir);
}

static bool has_file(const char *dir, const char *name)
{
    char path[ASSAY_PATH_MAX];
    struct stat st;
    return assay_path_join(path, dir, name, NULL) == ASSAY_OK && stat(path, &st) == 0;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum assay_status check_shard_name(const char *path, const cJSON *entry, struct assay_err *err)
{
    const char *name = cJSON_GetStringValue(entry);
    if (!name)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: the file of tensor '%.100s' is not a string", path,
                             entry->string);
    if (!assay_path_is_name(name))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s: tensor '%.100s' is in '%.100s', which is not a plain file name in the directory",
                             path, entry->string, name);
    return ASSAY_OK;
}

/* Collects the files that weight_map names. */
static enum assay_status collect_shards(const char *path, struct weight_files *files, struct assay_err *err)
{
    files->map = cJSON_GetObjectItemCaseSensitive(files->index, "weight_map");
    if (!cJSON_IsObject(files->map))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'weight_map' is missing or not an object", path);
    size_t entries = (size_t)cJSON_GetArraySize(files->map);
    if (entries == 0 || entries > ASSAY_MODEL_TENSORS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: 'weight_map' names %zu tensors, expected 1 to %u", path,
                             entries, ASSAY_MODEL_TENSORS_MAX);
    files->names = calloc(entries, sizeof *files->names);
    if (!files->names)
        return out_of_memory(path, err);
    size_t count = 0;
    for (const cJSON *entry = files->map->child; entry; entry = entry->next) {
        enum assay_status status = check_shard_name(path, entry, err);
        if (status != ASSAY_OK)
            return status;
        files->names[count++] = entry->valuestring;
    }
    qsort(files->names, count, sizeof *files->names, compare_strings);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(files->names[i], files->names[files->count - 1]) != 0)
            files->names[files->count++] = files->names[i];
    }
    if (files->count > ASSAY_MODEL_SHARDS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu shards, at most %d are allowed", path, files->count,
                             ASSAY_MODEL_SHARDS_MAX);
    return ASSAY_OK;
}

static enum assay_status no_weights(const char *dir, struct assay_err *err)
{
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (size_t i = 0; i < ASSAY_COUNT(pickles); i++) {
        if (has_file(dir, pickles[i]))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s has its weights only as %s, a pickle, which can run code: convert it with "
                                 "transformers: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR, "
                                 "safe_serialization=True)",
                                 dir, pickles[i]);
    }
    return assay_err_set(err, ASSAY_NOT_FOUND, "%s has no weights: looked for " SINGLE_FILE " and " INDEX_FILE, dir);
}

static enum assay_status find_weights(const char *dir, struct weight_files *files, struct assay_err *err)
{
    struct stat st;
    if (stat(dir, &st) != 0)
        return assay_err_errno(err, errno, "cannot open the model directory %s", dir);
    if (!S_ISDIR(st.st_mode))
        return assay_err_set(err, ASSAY_NOT_FOUND, "%s is not a directory; a model is one with " CONFIG_FILE, dir);
    if (!has_file(dir, CONFIG_FILE))
        return assay_err_set(err, ASSAY_NOT_FOUND, "%s has no " CONFIG_FILE, dir);
    if (has_file(dir, SINGLE_FILE)) {
        files->names = calloc(1, sizeof *files->names);
        if (!files->names)
            return out_of_memory(dir, err);
        files->names[files->count++] = SINGLE_FILE;
        return ASSAY_OK;
    }
    if (!has_file(dir, INDEX_FILE))
        return no_weights(dir, err);
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, INDEX_FILE, err);
    if (status == ASSAY_OK)
        status = assay_json_load(path, &files->index, err);
    return status == ASSAY_OK ? collect_shards(path, files, err) : status;
}

static enum assay_status load_config(struct assay_checkpoint *checkpoint, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, checkpoint->dir, CONFIG_FILE, err);
    if (status == ASSAY_OK)
        status = assay_json_load(path, &checkpoint->config, err);
    if (status == ASSAY_OK && !cJSON_IsObject(checkpoint->config))
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: not a JSON object", path);
    return status;
}

static enum assay_status open_shards(struct assay_checkpoint *checkpoint, struct assay_err *err)
{
    const struct weight_files *files = &checkpoint->files;
    checkpoint->shards = calloc(files->count, sizeof(struct assay_safetensors *));
    if (!checkpoint->shards)
        return out_of_memory(checkpoint->dir, err);
    for (size_t i = 0; i < files->count; i++) {
        char path[ASSAY_PATH_MAX];
        enum assay_status status = assay_path_join(path, checkpoint->dir, files->names[i], err);
        if (status == ASSAY_OK)
            status = assay_safetensors_open(path, &checkpoint->shards[i], err);
        if (status != ASSAY_OK)
            return status;
        checkpoint->count += assay_safetensors_count(checkpoint->shards[i]);
    }
    if (checkpoint->count > ASSAY_MODEL_TENSORS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %zu tensors, at most %u are allowed", checkpoint->dir,
                             checkpoint->count, ASSAY_MODEL_TENSORS_MAX);
    return ASSAY_OK;
}

static int compare_located(const void *a, const void *b)
{
    const struct located *left = a, *right = b;
    int order = strcmp(left->tensor->name, right->tensor->name);
    return order ? order : (left->shard > right->shard) - (left->shard < right->shard);
}

static enum assay_status merge_tensors(struct assay_checkpoint *checkpoint, struct assay_err *err)
{
    const struct weight_files *files = &checkpoint->files;
    checkpoint->tensors = calloc(checkpoint->count + 1, sizeof *checkpoint->tensors);
    if (!checkpoint->tensors)
        return out_of_memory(checkpoint->dir, err);
    size_t filled = 0;
    for (size_t i = 0; i < files->count; i++) {
        for (size_t j = 0; j < assay_safetensors_count(checkpoint->shards[i]); j++)
            checkpoint->tensors[filled++] = (struct located){assay_safetensors_at(checkpoint->shards[i], j), i};
    }
    qsort(checkpoint->tensors, filled, sizeof *checkpoint->tensors, compare_located);
    for (size_t i = 1; i < filled; i++) {
        const struct located *one = &checkpoint->tensors[i - 1], *two = &checkpoint->tensors[i];
        if (strcmp(one->tensor->name, two->tensor->name) == 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: tensor '%.100s' is both in %.100s and in %.100s",
                                 checkpoint->dir, one->tensor->name, files->names[one->shard],
                                 files->names[two->shard]);
    }
    return ASSAY_OK;
}

static const struct located *find_located(const struct assay_checkpoint *checkpoint, const char *name)
{
    size_t low = 0, high = checkpoint->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, checkpoint->tensors[middle].tensor->name);
        if (order == 0)
            return &checkpoint->tensors[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Each indexed tensor is in the shard that the index names. */
static enum assay_status check_index(const struct assay_checkpoint *checkpoint, struct assay_err *err)
{
    const struct weight_files *files = &checkpoint->files;
    for (const cJSON *entry = files->map ? files->map->child : NULL; entry; entry = entry->next) {
        const struct located *found = find_located(checkpoint, entry->string);
        if (!found || strcmp(files->names[found->shard], entry->valuestring) != 0)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "%s/" INDEX_FILE ": tensor '%.100s' should be in %.100s but is %s%.100s",
                                 checkpoint->dir, entry->string, entry->valuestring, found ? "in " : "nowhere",
                                 found ? files->names[found->shard] : "");
    }
    return ASSAY_OK;
}

enum assay_status assay_checkpoint_open(const char *dir, struct assay_checkpoint **ret, struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint || !(checkpoint->dir = strdup(dir))) {
        free(checkpoint);
        return out_of_memory(dir, err);
    }
    enum assay_status status = find_weights(dir, &checkpoint->files, err);
    if (status == ASSAY_OK)
        status = load_config(checkpoint, err);
    if (status == ASSAY_OK)
        status = open_shards(checkpoint, err);
    if (status == ASSAY_OK)
        status = merge_tensors(checkpoint, err);
    if (status == ASSAY_OK)
        status = check_index(checkpoint, err);
    if (status == ASSAY_OK)
        *ret = checkpoint;
    else
        assay_checkpoint_close(checkpoint);
    return status;
}

void assay_checkpoint_close(struct assay_checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; checkpoint->shards && i < checkpoint->files.count; i++)
        assay_safetensors_close(checkpoint->shards[i]);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    weight_files_release(&checkpoint->files);
    cJSON_Delete(checkpoint->config);
    free(checkpoint->dir);
    free(checkpoint);
}

const char *assay_checkpoint_dir(const struct assay_checkpoint *checkpoint)
{
    return checkpoint->dir;
}

const cJSON *assay_checkpoint_config(const struct assay_checkpoint *checkpoint)
{
    return checkpoint->config;
}

size_t assay_checkpoint_count(const struct assay_checkpoint *checkpoint)
{
    return checkpoint->count;
}

const struct assay_tensor *assay_checkpoint_at(const struct assay_checkpoint *checkpoint, size_t index)
{
    return index < checkpoint->count ? checkpoint->tensors[index].tensor : NULL;
}

const struct assay_tensor *assay_checkpoint_find(const struct assay_checkpoint *checkpoint, const char *name)
{
    const struct located *found = find_located(checkpoint, name);
    return found ? found->tensor : NULL;
}

const struct assay_safetensors *assay_checkpoint_file(const struct assay_checkpoint *checkpoint, const char *name)
{
    for (size_t i = 0; i < checkpoint->files.count; i++)
        if (strcmp(checkpoint->files.names[i], name) == 0)
            return checkpoint->shards[i];
    return NULL;
}

void assay_checkpoint_forget(const struct assay_checkpoint *checkpoint, const struct assay_tensor *tensor)
{
    for (size_t i = 0; i < checkpoint->files.count; i++)
        assay_safetensors_forget(checkpoint->shards[i], tensor);
}

static enum assay_status read_every_byte(void *arg, const char *path, struct assay_digest *ret, struct assay_err *err)
{
    (void)arg;
    return assay_digest_file(path, ret, err);
}

enum assay_status assay_checkpoint_id(const char *dir, assay_file_digest_fn digest_of, void *arg,
                                      struct assay_model_id *ret, struct assay_err *err)
{
    assay_auto(weight_files_release) struct weight_files files = {0};
    enum assay_status status = find_weights(dir, &files, err);
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.model.v1");
    assay_hash_u64(&hash, files.count);
    for (size_t i = 0; i <= files.count && status == ASSAY_OK; i++) {
        char path[ASSAY_PATH_MAX];
        struct assay_digest digest;
        status = assay_path_join(path, dir, i == 0 ? CONFIG_FILE : files.names[i - 1], err);
        if (status == ASSAY_OK)
            status = (digest_of ? digest_of : read_every_byte)(arg, path, &digest, err);
        if (status == ASSAY_OK)
            assay_hash_digest(&hash, &digest);
    }
    if (status == ASSAY_OK)
        ret->digest = assay_hash_final(&hash);
    return status;
}
