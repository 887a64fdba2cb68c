/* What every method needs: the source's identity, its description, and the files that go along with the weights. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/artifact/kept_digests.h"
#include "common/artifact/method.h"
#include "common/base/limits.h"

#define INDEX_FILE "model.safetensors.index.json"

static enum assay_status out_of_memory(const struct assay_making *making, struct assay_err *err)
{
    return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory while making %s", making->job->wanted_dir);
}

static void digest_mapped(const struct assay_safetensors *file, const char *kept_dir, struct assay_digest *ret)
{
    const struct assay_file_identity *identity = assay_safetensors_identity(file);
    const struct assay_digest key = assay_kept_file_key(identity);
    if (assay_kept_find(kept_dir, &key, ret))
        return;
    bool may_keep = assay_file_is_settled(identity);
    size_t bytes;
    const void *mapped = assay_safetensors_bytes(file, &bytes);
    *ret = assay_digest_of_bytes(mapped, bytes);
    if (may_keep)
        assay_kept_put(kept_dir, &key, ret);
}

/* A file digest that also notes which files decide the model. Of a weight file it is that of the mapped bytes, which
 * are the ones that are quantized. */
static enum assay_status digest_and_note(void *arg, const char *path, struct assay_digest *ret, struct assay_err *err)
{
    struct assay_making *making = arg;
    if (making->job->cancelled && making->job->cancelled(making->job->arg))
        return assay_err_set(err, ASSAY_CANCELLED, "cancelled while %s was read", path);
    const char *slash = strrchr(path, '/');
    char *name = assay_arena_strdup(&making->manifest->arena, slash ? slash + 1 : path);
    if (!name)
        return out_of_memory(making, err);
    if (making->source_files_count > ASSAY_MODEL_SHARDS_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s has more than %d weight files", making->job->model_dir,
                             ASSAY_MODEL_SHARDS_MAX);
    making->source_files[making->source_files_count++] = name;
    const struct assay_safetensors *mapped = assay_checkpoint_file(making->source, name);
    if (!mapped)
        return assay_digest_file(path, ret, err);
    digest_mapped(mapped, making->job->digests_dir, ret);
    return ASSAY_OK;
}

enum assay_status assay_making_identify(struct assay_making *making, struct assay_model_id *ret, struct assay_err *err)
{
    making->source_files_count = 0;
    making->source_files =
        assay_arena_alloc(&making->manifest->arena, (ASSAY_MODEL_SHARDS_MAX + 1) * sizeof *making->source_files);
    if (!making->source_files)
        return out_of_memory(making, err);
    return assay_checkpoint_id(making->job->model_dir, digest_and_note, making, ret, err);
}

const struct assay_architecture *assay_making_architecture(const struct assay_making *making)
{
    const struct assay_architecture *architecture = assay_architecture_of(assay_checkpoint_config(making->source));
    return architecture ? architecture : assay_architecture_find("LlamaForCausalLM");
}

static bool is_floating(enum assay_dtype dtype)
{
    return dtype == ASSAY_F32 || dtype == ASSAY_F16 || dtype == ASSAY_BF16 || dtype == ASSAY_F64;
}

/* The head; *ret_copy becomes a tensor that is there, but whose place the embedding takes, or NULL. */
static enum assay_status describe_head(const struct assay_making *making, const struct assay_tensor **ret_copy,
                                       struct assay_err *err)
{
    const struct assay_checkpoint *source = making->source;
    struct assay_head_contract *head = &making->manifest->head;
    const struct assay_architecture *architecture = assay_making_architecture(making);
    struct assay_head_figures figures;
    enum assay_status status =
        assay_head_figures_read(assay_checkpoint_config(source), architecture, making->job->model_dir, &figures, err);
    if (status != ASSAY_OK)
        return status;
    char own_name[ASSAY_HEAD_NAME_BYTES + 8], name[ASSAY_HEAD_NAME_BYTES], full[ASSAY_HEAD_NAME_BYTES + 8];
    snprintf(own_name, sizeof own_name, "%s.weight", architecture->head);
    const struct assay_tensor *own = assay_checkpoint_find(source, own_name);
    figures.tied = figures.tied || !own;
    assay_head_name(architecture, source, figures.tied, name);
    snprintf(full, sizeof full, "%s.weight", name);
    const struct assay_tensor *weight = assay_checkpoint_find(source, full);
    if (!weight || weight->rank != 2)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "%s has no output head: looked for a matrix %s or %s%s.weight", making->job->model_dir,
                             own_name, architecture->base, architecture->embedding);
    const char *kept_dir = making->job->digests_dir;
    const struct assay_digest key = assay_kept_head_key(&making->manifest->model_id);
    if (!assay_kept_find(kept_dir, &key, &head->digest)) {
        head->digest = assay_head_content_digest(architecture, source, &figures);
        assay_kept_put(kept_dir, &key, &head->digest);
    }
    head->tied = figures.tied;
    head->bias = architecture->head_bias;
    head->logit_scale = (double)figures.logit_scale;
    head->soft_cap = (double)figures.soft_cap;
    head->vocab = figures.vocab_used ? figures.vocab_used : weight->shape[0];
    *ret_copy = figures.tied ? own : NULL;
    return ASSAY_OK;
}

enum assay_status assay_making_describe(struct assay_making *making, struct assay_err *err)
{
    const struct assay_checkpoint *source = making->source;
    struct assay_manifest *manifest = making->manifest;
    const struct assay_tensor *copy = NULL;
    enum assay_status status = describe_head(making, &copy, err);
    if (status != ASSAY_OK)
        return status;
    manifest->tensors = assay_checkpoint_count(source);
    for (size_t i = 0; i < assay_checkpoint_count(source); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(source, i);
        manifest->source_bytes += tensor->bytes;
        manifest->parameters += is_floating(tensor->dtype) && tensor != copy ? assay_tensor_elements(tensor) : 0;
    }
    return ASSAY_OK;
}

enum assay_status assay_making_add_file(struct assay_making *making, const char *name, bool linked,
                                        struct assay_err *err)
{
    struct assay_manifest *manifest = making->manifest;
    enum { FILES_MAX = ASSAY_MODEL_SHARDS_MAX + 32 };
    if (!manifest->files)
        manifest->files = assay_arena_alloc(&manifest->arena, FILES_MAX * sizeof *manifest->files);
    char *copy = assay_arena_strdup(&manifest->arena, name);
    if (!manifest->files || !copy || manifest->files_count == FILES_MAX)
        return out_of_memory(making, err);
    manifest->files[manifest->files_count++] = (struct assay_artifact_file){.name = copy, .linked = linked};
    return ASSAY_OK;
}

enum assay_status assay_making_link(struct assay_making *making, const char *name, struct assay_err *err)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(from, making->dir, name, err);
    if (status == ASSAY_OK)
        status = assay_path_join(to, making->job->model_dir, name, err);
    if (status != ASSAY_OK)
        return status;
    if (symlink(to, from) != 0)
        return assay_err_errno(err, errno, "cannot link %s to %s", from, to);
    return assay_making_add_file(making, name, true, err);
}

static enum assay_status copy_file(struct assay_making *making, const char *name, struct assay_err *err)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *bytes = NULL;
    size_t len = 0;
    enum assay_status status = assay_path_join(from, making->job->model_dir, name, err);
    if (status == ASSAY_OK)
        status = assay_path_join(to, making->dir, name, err);
    if (status == ASSAY_OK)
        status = assay_file_read(from, ASSAY_TOKENIZER_FILE_BYTES_MAX, &bytes, &len, err);
    if (status == ASSAY_OK)
        status = assay_file_write(to, bytes, len, err);
    return status == ASSAY_OK ? assay_making_add_file(making, name, false, err) : status;
}

static bool has_file(const char *dir, const char *name)
{
    char path[ASSAY_PATH_MAX];
    struct stat st;
    return assay_path_join(path, dir, name, NULL) == ASSAY_OK && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

enum assay_status assay_making_add_companions(struct assay_making *making, bool linked, struct assay_err *err)
{
    static const char *const companions[] = {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "generation_config.json",
    };
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < ASSAY_COUNT(companions) && status == ASSAY_OK; i++)
        if (has_file(making->job->model_dir, companions[i]))
            status = linked ? assay_making_link(making, companions[i], err) : copy_file(making, companions[i], err);
    /* Weights in shards are found through their index; a link to it serves whoever is linked to the shards. */
    bool is_sharded = making->source_files_count > 1 && strcmp(making->source_files[1], "model.safetensors") != 0;
    if (status == ASSAY_OK && linked && is_sharded)
        status = assay_making_link(making, INDEX_FILE, err);
    return status;
}

enum assay_status assay_making_step(const struct assay_making *making, size_t done, size_t total, struct assay_err *err)
{
    const struct assay_quantize_job *job = making->job;
    if (job->cancelled && job->cancelled(job->arg))
        return assay_err_set(err, ASSAY_CANCELLED, "cancelled after %zu of %zu tensors", done, total);
    if (job->progress)
        job->progress(job->arg, done, total);
    return ASSAY_OK;
}
