/* assay embed and assay classify: an encoder over texts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/embed_remote.h"
#include "cli/interrupt.h"
#include "cli/say.h"
#include "cli/texts.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/formats/json.h"
#include "common/formats/safetensors.h"

struct encoder_options {
    const char *model, *texts, *output, *cpus;
    int64_t threads;
    bool json;
    struct assay_respond_where where;
};

/* What both commands need. */
struct encoder_run {
    struct assay_pool *pool;
    struct assay_sentences *sentences;
    struct assay_texts texts;
    struct assay_embedded embedded;
};

static void release_run(struct encoder_run *run)
{
    assay_embedded_release(&run->embedded);
    assay_texts_release(&run->texts);
    assay_sentences_close(run->sentences);
    assay_pool_free(run->pool);
}

/* The labels of a classifier. */
static enum assay_status copy_labels(struct encoder_run *run, struct assay_err *err)
{
    struct assay_embedded *embedded = &run->embedded;
    embedded->labels = calloc(embedded->width + 1, sizeof *embedded->labels);
    bool whole = embedded->labels != NULL;
    for (size_t i = 0; i < embedded->width && whole; i++)
        whole = (embedded->labels[i] = strdup(assay_sentences_label(run->sentences, i))) != NULL;
    return whole ? ASSAY_OK
                 : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu labels", embedded->width);
}

/* In this process. */
static enum assay_status run_here(const struct encoder_options *options, bool classify, struct encoder_run *run,
                                  struct assay_err *err)
{
    struct assay_embedded *embedded = &run->embedded;
    enum assay_status status = assay_pool_new((size_t)options->threads, options->cpus, &run->pool, err);
    if (status == ASSAY_OK)
        status = assay_sentences_open(options->model, run->pool, &run->sentences, err);
    if (status != ASSAY_OK)
        return status;
    embedded->width = classify ? assay_sentences_labels(run->sentences) : assay_sentences_hidden(run->sentences);
    embedded->values = calloc(run->texts.count * embedded->width + 1, sizeof *embedded->values);
    if (!embedded->values)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu texts", run->texts.count);
    if (!classify)
        return assay_sentences_embed(run->sentences, run->texts.at, run->texts.count, embedded->values, err);
    status = assay_sentences_classify(run->sentences, run->texts.at, run->texts.pairs, run->texts.count,
                                      embedded->values, err);
    return status == ASSAY_OK ? copy_labels(run, err) : status;
}

static enum assay_status open_run(const struct encoder_options *options, bool classify, struct encoder_run *run,
                                  struct assay_err *err)
{
    enum assay_status status = assay_texts_read(options->texts, &run->texts, err);
    if (status == ASSAY_OK && run->texts.pairs && !classify)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                               "%s has pairs of texts, which classify takes and embed does not", options->texts);
    if (status != ASSAY_OK || !assay_respond_is_remote(&options->where))
        return status == ASSAY_OK ? run_here(options, classify, run, err) : status;
    assay_interrupt_prepare();
    return assay_embed_remote(&options->where, options->model, &run->texts, classify, &run->embedded, err);
}

static enum assay_status flush_output(struct assay_err *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return assay_err_errno(err, errno, "cannot write the result");
    return ASSAY_OK;
}

static void print_row(const float *row, size_t width)
{
    putchar('[');
    for (size_t i = 0; i < width; i++)
        printf("%s%.9g", i ? ", " : "", (double)row[i]);
    putchar(']');
}

static enum assay_status write_embeddings(const struct encoder_run *run, const char *path, struct assay_err *err)
{
    const struct assay_tensor tensor = {
        .name = "embeddings", .dtype = ASSAY_F32, .rank = 2, .shape = {run->texts.count, run->embedded.width}};
    char half[ASSAY_PATH_MAX];
    if (snprintf(half, sizeof half, "%s.part", path) >= (int)sizeof half)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "the path of the output is longer than %d bytes",
                             ASSAY_PATH_MAX);
    struct assay_safetensors_writer *writer;
    enum assay_status status = assay_safetensors_create(half, &tensor, 1, &writer, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_safetensors_append(writer, run->embedded.values,
                                      run->texts.count * run->embedded.width * sizeof(float), err);
    if (status == ASSAY_OK)
        status = assay_safetensors_finish(writer, err);
    else
        assay_safetensors_abandon(writer);
    if (status == ASSAY_OK && rename(half, path) != 0)
        status = assay_err_errno(err, errno, "cannot rename %s to %s", half, path);
    if (status != ASSAY_OK)
        remove(half);
    return status;
}

static enum assay_status embed(const struct encoder_options *options, struct assay_err *err)
{
    struct encoder_run run = {0};
    enum assay_status status = open_run(options, false, &run, err);
    if (status == ASSAY_OK && options->output) {
        status = write_embeddings(&run, options->output, err);
    } else if (status == ASSAY_OK) {
        printf("{\"embeddings\": [");
        for (size_t i = 0; i < run.texts.count; i++) {
            printf("%s\n  ", i ? "," : "");
            print_row(run.embedded.values + i * run.embedded.width, run.embedded.width);
        }
        puts("\n]}");
        status = flush_output(err);
    }
    release_run(&run);
    return status;
}

static enum assay_status print_classes(const struct encoder_run *run, bool json, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < run->texts.count && list; i++) {
        cJSON *row = json ? cJSON_CreateObject() : NULL;
        for (size_t k = 0; k < run->embedded.width; k++) {
            const char *label = run->embedded.labels[k];
            double probability = (double)run->embedded.values[i * run->embedded.width + k];
            if (json)
                cJSON_AddNumberToObject(row, label, probability);
            else
                printf("%s%s %.6f", k ? "  " : "", label, probability);
        }
        if (json)
            cJSON_AddItemToArray(list, row);
        else
            putchar('\n');
    }
    assay_auto(assay_free_ptr) char *text = json && list ? cJSON_Print(list) : NULL;
    if (!list || (json && !text))
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the result");
    if (json)
        puts(text);
    return flush_output(err);
}

static enum assay_status classify(const struct encoder_options *options, struct assay_err *err)
{
    struct encoder_run run = {0};
    enum assay_status status = open_run(options, true, &run, err);
    if (status == ASSAY_OK)
        status = print_classes(&run, options->json, err);
    release_run(&run);
    return status;
}

/* The settings of both; one is the command's own. */
static int run_command(const char *name, const char *usage, const char *summary, bool classifies, int argc, char **argv)
{
    enum { OWN = 3 };
    struct encoder_options options = {0};
    options.threads = (int64_t)ASSAY_MIN(assay_cpu_count(), (size_t)ASSAY_POOL_THREADS_MAX);
    struct assay_setting settings[] = {
        {.name = "texts",
         .type = ASSAY_SETTING_STRING,
         .target = &options.texts,
         .argument = "FILE",
         .help = classifies ? "one text a line, or a JSON array of strings or of pairs of strings; - for stdin"
                            : "one text a line, or a JSON array of strings; - for stdin",
         .required = true},
        {.name = "threads",
         .type = ASSAY_SETTING_INT,
         .target = &options.threads,
         .min = 1,
         .max = ASSAY_POOL_THREADS_MAX,
         .argument = "N",
         .help = "threads to compute with; all CPUs unless given"},
        {.name = "cpus",
         .type = ASSAY_SETTING_STRING,
         .target = &options.cpus,
         .argument = "LIST",
         .help = "CPUs to pin them to, as 0-3,8"},
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &options.output,
         .argument = "FILE",
         .help = "write safetensors with `embeddings` F32 [texts, hidden] instead of printing JSON"},
        ASSAY_RESPOND_WHERE_SETTINGS(options.where),
    };
    if (classifies)
        settings[OWN] = (struct assay_setting){
            .name = "json", .type = ASSAY_SETTING_FLAG, .target = &options.json, .help = "print JSON"};
    const struct assay_command command = {
        .usage = usage,
        .summary = summary,
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &options.model,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    if (!assay_say_parse(name, &command, argc, argv, &code))
        return code;
    struct assay_err err = ASSAY_ERR_INIT;
    enum assay_status status = classifies ? classify(&options, &err) : embed(&options, &err);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure(name, &err);
}

int assay_command_embed(int argc, char **argv)
{
    return run_command("embed", "assay embed MODEL --texts FILE [-o FILE] [--worker ENDPOINT]",
                       "Embeddings of texts by an encoder, or a decoder made for it, as JSON or safetensors.", false,
                       argc, argv);
}

int assay_command_classify(int argc, char **argv)
{
    return run_command("classify", "assay classify MODEL --texts FILE [--json] [--worker ENDPOINT]",
                       "Probabilities of a classifier's labels for texts.", true, argc, argv);
}
