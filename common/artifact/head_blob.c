#include "common/artifact/head_blob.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/artifact/staging.h"
#include "common/formats/architecture.h"

#define CONFIG_FILE "config.json"
#define WEIGHTS_FILE "model.safetensors"

static bool is_of(const char *tensor, const char *module)
{
    size_t len = strlen(module);
    return strncmp(tensor, module, len) == 0 && tensor[len] == '.';
}

/* The tensors of the head: "NAME.weight" and whatever else its scheme keeps beside it. The bias of a tied head stands
 * under the head's own name. */
static enum assay_status write_tensors(const struct assay_checkpoint *checkpoint, const char *name, const char *own,
                                       const char *path, struct assay_err *err)
{
    size_t count = 0;
    struct assay_safetensors_writer *writer = NULL;
    assay_auto(assay_free_ptr) struct assay_tensor *tensors =
        calloc(assay_checkpoint_count(checkpoint) + 1, sizeof *tensors);
    if (!tensors)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a head");
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(checkpoint, i);
        if (is_of(tensor->name, name) || is_of(tensor->name, own))
            tensors[count++] = *tensor;
    }
    enum assay_status status = assay_safetensors_create(path, tensors, count, &writer, err);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = assay_safetensors_append(writer, tensors[i].data, tensors[i].bytes, err);
    if (status == ASSAY_OK)
        return assay_safetensors_finish(writer, err);
    assay_safetensors_abandon(writer);
    return status;
}

static enum assay_status write_head(const struct assay_checkpoint *checkpoint, const char *name, const char *own,
                                    const char *dir, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, dir, WEIGHTS_FILE, err);
    if (status == ASSAY_OK)
        status = write_tensors(checkpoint, name, own, path, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, dir, CONFIG_FILE, err);
    if (status != ASSAY_OK)
        return status;
    char *text = cJSON_PrintUnformatted(assay_checkpoint_config(checkpoint));
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while writing %s", path);
    status = assay_file_write(path, text, strlen(text), err);
    cJSON_free(text);
    return status;
}

static enum assay_status make(const struct assay_checkpoint *checkpoint, const char *name, const char *own,
                              const struct assay_digest *digest, const char *heads_dir, const char *dir,
                              struct assay_err *err)
{
    const struct assay_variant_id id = {*digest};
    struct assay_staging staging = {.lock = -1};
    enum assay_status status = assay_mkdirs(heads_dir, 0755, err);
    if (status == ASSAY_OK)
        status = assay_staging_open(heads_dir, &id, &staging, err);
    if (status == ASSAY_OK)
        status = write_head(checkpoint, name, own, staging.dir, err);
    if (status == ASSAY_OK)
        status = assay_staging_publish(&staging, dir, err);
    assay_staging_abandon(&staging);
    return status == ASSAY_ALREADY_EXISTS ? ASSAY_OK : status;
}

/* The same head under another config may be scored otherwise: both are part of the name. */
static enum assay_status name_head(const struct assay_checkpoint *checkpoint,
                                   const struct assay_architecture *architecture,
                                   const struct assay_head_figures *figures, struct assay_digest *ret,
                                   struct assay_err *err)
{
    struct assay_digest head = assay_head_content_digest(architecture, checkpoint, figures);
    char *text = cJSON_PrintUnformatted(assay_checkpoint_config(checkpoint));
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a head");
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.head_blob.v1");
    assay_hash_digest(&hash, &head);
    assay_hash_str(&hash, text);
    *ret = assay_hash_final(&hash);
    cJSON_free(text);
    return ASSAY_OK;
}

static enum assay_status make_of(const struct assay_checkpoint *checkpoint, const char *heads_dir,
                                 char dir[ASSAY_PATH_MAX], struct assay_err *err)
{
    char what[ASSAY_PATH_MAX], hex[ASSAY_DIGEST_HEX], name[ASSAY_HEAD_NAME_BYTES];
    struct assay_head_figures figures;
    struct assay_digest digest;
    const cJSON *config = assay_checkpoint_config(checkpoint);
    const struct assay_architecture *architecture = assay_architecture_of(config);
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(checkpoint), CONFIG_FILE, err);
    if (status == ASSAY_OK && !architecture)
        status = assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s names no architecture whose head is known", what);
    if (status == ASSAY_OK)
        status = assay_head_figures_read(config, architecture, what, &figures, err);
    if (status == ASSAY_OK)
        status = name_head(checkpoint, architecture, &figures, &digest, err);
    if (status == ASSAY_OK)
        status = assay_path_join(dir, heads_dir, assay_digest_hex(&digest, hex), err);
    if (status != ASSAY_OK || access(dir, F_OK) == 0)
        return status;
    assay_head_name(architecture, checkpoint, figures.tied, name);
    return make(checkpoint, name, architecture->head, &digest, heads_dir, dir, err);
}

enum assay_status assay_head_blob_make(const char *artifact_dir, const char *heads_dir, char dir[ASSAY_PATH_MAX],
                                       struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    enum assay_status status = assay_checkpoint_open(artifact_dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = make_of(checkpoint, heads_dir, dir, err);
    assay_checkpoint_close(checkpoint);
    return status;
}
