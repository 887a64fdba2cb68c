/* Logits and final hidden states of one sequence, written tile by tile beside the output and renamed when whole. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/ids.h"
#include "cli/load.h"
#include "cli/say.h"
#include "common/base/limits.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"

#define NAME "logits"
#define TILE_ROWS ((size_t)64)

struct engine {
    struct assay_pool *pool;
    struct assay_model *model;
    struct assay_head *head;
};

static void release_engine(struct engine *engine)
{
    assay_head_free(engine->head);
    assay_model_free(engine->model);
    assay_pool_free(engine->pool);
}

static enum assay_status open_engine(const char *dir, size_t threads, const char *cpus, struct engine *engine,
                                     struct assay_err *err)
{
    enum assay_status status = assay_pool_new(threads, cpus, &engine->pool, err);
    return status == ASSAY_OK ? assay_load(dir, engine->pool, &engine->model, &engine->head, err) : status;
}

static int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

/* Also notes the first of the largest logits of each row in top[tokens]. */
static enum assay_status append_logits(const struct engine *engine, const float *hidden, size_t tokens, int32_t *top,
                                       struct assay_safetensors_writer *writer, struct assay_err *err)
{
    size_t vocab = assay_head_vocab(engine->head), d = assay_head_hidden(engine->head);
    size_t tile = ASSAY_MIN(tokens, TILE_ROWS);
    assay_auto(assay_free_ptr) float *logits = malloc(tile * vocab * sizeof *logits);
    if (!logits)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu rows of %zu logits", tile, vocab);
    for (size_t t = 0; t < tokens; t += tile) {
        size_t rows = ASSAY_MIN(tile, tokens - t);
        assay_head_logits(engine->head, engine->pool, hidden + t * d, rows, logits);
        for (size_t r = 0; r < rows; r++)
            top[t + r] = largest(logits + r * vocab, vocab);
        enum assay_status status = assay_safetensors_append(writer, logits, rows * vocab * sizeof *logits, err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status write_result(const struct engine *engine, const float *hidden, size_t tokens, int32_t *top,
                                      const char *path, struct assay_err *err)
{
    size_t vocab = assay_head_vocab(engine->head), d = assay_head_hidden(engine->head);
    const struct assay_tensor tensors[] = {
        {.name = "logits", .dtype = ASSAY_F32, .rank = 2, .shape = {tokens, vocab}},
        {.name = "hidden", .dtype = ASSAY_F32, .rank = 2, .shape = {tokens, d}},
    };
    char half[ASSAY_PATH_MAX];
    if (snprintf(half, sizeof half, "%s.part", path) >= (int)sizeof half)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the path of the output is longer than %d bytes",
                             ASSAY_PATH_MAX);
    struct assay_safetensors_writer *writer;
    enum assay_status status = assay_safetensors_create(half, tensors, ASSAY_COUNT(tensors), &writer, err);
    if (status != ASSAY_OK)
        return status;
    status = append_logits(engine, hidden, tokens, top, writer, err);
    if (status == ASSAY_OK)
        status = assay_safetensors_append(writer, hidden, tokens * d * sizeof *hidden, err);
    if (status == ASSAY_OK)
        status = assay_safetensors_finish(writer, err);
    else
        assay_safetensors_abandon(writer);
    if (status == ASSAY_OK && rename(half, path) != 0)
        status = assay_err_errno(err, errno, "cannot rename %s to %s", half, path);
    if (status != ASSAY_OK)
        unlink(half);
    return status;
}

static enum assay_status print_json(const struct engine *engine, const char *output, const int32_t *top, size_t tokens,
                                    struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "output", output);
    cJSON_AddNumberToObject(object, "tokens", (double)tokens);
    cJSON_AddNumberToObject(object, "vocabulary", (double)assay_head_vocab(engine->head));
    cJSON_AddNumberToObject(object, "hidden_size", (double)assay_head_hidden(engine->head));
    cJSON_AddItemToObject(object, "top1", cJSON_CreateIntArray(top, (int)tokens));
    char *text = cJSON_Print(object);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for JSON");
    puts(text);
    cJSON_free(text);
    return ASSAY_OK;
}

static enum assay_status run(const char *dir, const char *ids_path, const char *output, size_t threads,
                             const char *cpus, bool json, struct assay_err *err)
{
    assay_auto(assay_free_ptr) int32_t *ids = NULL;
    size_t tokens = 0;
    enum assay_status status = assay_ids_load(ids_path, &ids, &tokens, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(release_engine) struct engine engine = {NULL, NULL, NULL};
    status = open_engine(dir, threads, cpus, &engine, err);
    if (status != ASSAY_OK)
        return status;
    assay_auto(assay_free_ptr) float *hidden = calloc(tokens, assay_head_hidden(engine.head) * sizeof *hidden);
    assay_auto(assay_free_ptr) int32_t *top = calloc(tokens, sizeof *top);
    if (!hidden || !top)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the hidden states of %zu tokens",
                             tokens);
    const struct assay_sequence sequence = {.ids = ids, .tokens = tokens, .begin = 0, .end = tokens, .hidden = hidden};
    status = assay_model_forward(engine.model, engine.pool, &sequence, 1, NULL, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "%s with %s", dir, ids_path);
    if (status == ASSAY_OK)
        status = write_result(&engine, hidden, tokens, top, output, err);
    return status == ASSAY_OK && json ? print_json(&engine, output, top, tokens, err) : status;
}

int assay_command_logits(int argc, char **argv)
{
    const char *ids_path = NULL, *output = NULL, *cpus = NULL, *dir = NULL;
    bool json = false;
    int64_t threads = (int64_t)ASSAY_MIN(assay_cpu_count(), (size_t)ASSAY_POOL_THREADS_MAX);
    const struct assay_setting settings[] = {
        {.name = "ids",
         .type = ASSAY_SETTING_STRING,
         .target = &ids_path,
         .argument = "FILE",
         .help = "JSON array of token ids",
         .required = true},
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &output,
         .argument = "FILE",
         .help = "safetensors file for logits [tokens, vocabulary] and hidden [tokens, d], F32",
         .required = true},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads to compute with; all CPUs unless given"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &cpus,
         .argument = "LIST",
         .help = "CPUs to pin threads to, as 0-3,8"},
        {.name = "json",
         .type = ASSAY_SETTING_FLAG,
         .target = &json,
         .help = "print sizes and the first choice after each token as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay " NAME " MODEL --ids FILE -o FILE [--json]",
        .summary = "Runs MODEL, a checkpoint or artifact directory, over token ids and writes what it answers.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &dir,
        .positional_min = 1,
        .positional_max = 1,
    };
    int exit_code;
    if (!assay_say_parse(NAME, &command, argc, argv, &exit_code))
        return exit_code;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = run(dir, ids_path, output, (size_t)threads, cpus, json, &err);
    return status == ASSAY_OK ? 0 : assay_say_failure(NAME, &err);
}
