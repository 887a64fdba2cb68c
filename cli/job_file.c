#include "cli/job_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/corpus/chunks.h"
#include "common/formats/yaml.h"
#include "common/quant/scheme.h"
#include "common/wire/json.h"

#define NAME_BYTES_MAX 200
#define THRESHOLD_MAX 1e6

struct reading {
    const char *path;
    const struct assay_yaml *yaml;
    struct assay_job_file *file;
    struct assay_err *err;
};

/* 'FILE:LINE: ' before the sentence that is there. */
static enum assay_status at_line(struct reading *reading, const cJSON *value, enum assay_status status)
{
    size_t line = assay_yaml_line(reading->yaml, value);
    if (line)
        assay_err_prefix(reading->err, "%.250s:%zu", reading->path, line);
    else
        assay_err_prefix(reading->err, "%.250s", reading->path);
    return status;
}

/* The value of a field, by either of its names; the whole when it is not there. */
static const cJSON *value_of(const struct reading *reading, const char *name, const char *camel)
{
    const cJSON *json = assay_yaml_json(reading->yaml);
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!value)
        value = cJSON_GetObjectItemCaseSensitive(json, camel);
    return value ? value : json;
}

static enum assay_status check_spec(struct reading *reading, const char *text, const cJSON *value, const char *field,
                                    char ret[ASSAY_SPEC_TEXT_MAX])
{
    struct assay_spec spec;
    enum assay_status status = assay_spec_parse(text, &spec, reading->err);
    if (status != ASSAY_OK) {
        assay_err_prefix(reading->err, "field \"%s\"", field);
        return at_line(reading, value, status);
    }
    assay_spec_format(&spec, ret);
    return ASSAY_OK;
}

static enum assay_status check_variants(struct reading *reading)
{
    const Assay__V1__JobFile *message = reading->file->message;
    const cJSON *list = value_of(reading, "variants", "variants");
    char canonical[ASSAY_JOB_VARIANTS_MAX][ASSAY_SPEC_TEXT_MAX];
    if (message->n_variants > ASSAY_JOB_VARIANTS_MAX) {
        assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"variants\": found %zu, wanted at most %d",
                      message->n_variants, ASSAY_JOB_VARIANTS_MAX);
        return at_line(reading, list, ASSAY_INVALID_ARGUMENT);
    }
    const cJSON *value = list->child;
    for (size_t i = 0; i < message->n_variants; i++, value = value->next) {
        char field[40];
        snprintf(field, sizeof field, "variants[%zu]", i);
        enum assay_status status = check_spec(reading, message->variants[i], value, field, canonical[i]);
        for (size_t k = 0; k < i && status == ASSAY_OK; k++) {
            if (strcmp(canonical[k], canonical[i]) != 0)
                continue;
            assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"%s\": %s stands twice", field, canonical[i]);
            status = at_line(reading, value, ASSAY_INVALID_ARGUMENT);
        }
        if (status != ASSAY_OK)
            return status;
        assay_buf_printf(&reading->file->variants_text, "%s%s", i ? "," : "", canonical[i]);
    }
    reading->file->variants = message->n_variants ? assay_buf_cstr(&reading->file->variants_text) : NULL;
    return assay_buf_check(&reading->file->variants_text, reading->err);
}

static enum assay_status check_threshold(struct reading *reading, const char *name, const char *camel, double found)
{
    if (found >= 0 && found <= THRESHOLD_MAX)
        return ASSAY_OK;
    const cJSON *thresholds = value_of(reading, "thresholds", "thresholds");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(thresholds, name);
    if (!value)
        value = cJSON_GetObjectItemCaseSensitive(thresholds, camel);
    assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"thresholds.%s\": found %g, wanted 0 to %g", name,
                  found, THRESHOLD_MAX);
    return at_line(reading, value, ASSAY_INVALID_ARGUMENT);
}

static enum assay_status check_thresholds(struct reading *reading)
{
    struct assay_job_file *file = reading->file;
    const Assay__V1__Thresholds *thresholds = file->message->thresholds;
    enum assay_status status = ASSAY_OK;
    if (!thresholds)
        return ASSAY_OK;
    file->has_perplexity_increase = thresholds->has_perplexity_increase_percent;
    file->perplexity_increase_percent = thresholds->perplexity_increase_percent;
    file->has_kl_mean = thresholds->has_kl_mean_nats;
    file->kl_mean_nats = thresholds->kl_mean_nats;
    if (file->has_perplexity_increase)
        status = check_threshold(reading, "perplexity_increase_percent", "perplexityIncreasePercent",
                                 file->perplexity_increase_percent);
    if (status == ASSAY_OK && file->has_kl_mean)
        status = check_threshold(reading, "kl_mean_nats", "klMeanNats", file->kl_mean_nats);
    return status;
}

static bool is_record_dtype(const char *text)
{
    return strcmp(text, "f32") == 0 || strcmp(text, "f16") == 0;
}

static enum assay_status check_values(struct reading *reading)
{
    struct assay_job_file *file = reading->file;
    const Assay__V1__JobFile *message = file->message;
    char reference[ASSAY_SPEC_TEXT_MAX];
    const char *at_fault = NULL, *camel = NULL;
    if (message->name && strlen(message->name) > NAME_BYTES_MAX) {
        at_fault = "name";
        assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"name\": found %zu bytes, wanted at most %d",
                      strlen(message->name), NAME_BYTES_MAX);
    } else if (message->protocol && !assay_protocol_find(message->protocol)) {
        at_fault = "protocol";
        assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"protocol\": found '%.60s', known: %s",
                      message->protocol, assay_protocol_names());
    } else if (message->chunks > ASSAY_JOB_CHUNKS_MAX) {
        at_fault = "chunks";
        assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"chunks\": found %llu, wanted at most %u",
                      (unsigned long long)message->chunks, ASSAY_JOB_CHUNKS_MAX);
    } else if (message->record_dtype && !is_record_dtype(message->record_dtype)) {
        at_fault = "record_dtype";
        camel = "recordDtype";
        assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "field \"record_dtype\": found '%.60s', wanted f32 or f16",
                      message->record_dtype);
    }
    if (at_fault)
        return at_line(reading, value_of(reading, at_fault, camel ? camel : at_fault), ASSAY_INVALID_ARGUMENT);
    file->record_dtype = message->record_dtype;
    file->name = message->name;
    file->protocol = message->protocol;
    file->has_chunks = message->has_chunks;
    file->chunks = (int64_t)message->chunks;
    file->reference = message->reference;
    return message->reference ? check_spec(reading, message->reference, value_of(reading, "reference", "reference"),
                                           "reference", reference)
                              : ASSAY_OK;
}

/* A path of the file's, relative to its folder. */
static enum assay_status resolve(struct reading *reading, const char *given, char path[ASSAY_PATH_MAX],
                                 const char **ret)
{
    const char *slash = strrchr(reading->path, '/');
    size_t folder = slash && given && given[0] != '/' ? (size_t)(slash - reading->path) + 1 : 0;
    if (!given)
        return ASSAY_OK;
    if (!*given || folder + strlen(given) >= ASSAY_PATH_MAX)
        return assay_err_set(reading->err, ASSAY_INVALID_ARGUMENT, "%.250s: the path '%.100s' is empty or too long",
                             reading->path, given);
    memcpy(path, reading->path, folder);
    strcpy(path + folder, given);
    *ret = path;
    return ASSAY_OK;
}

static enum assay_status read_file(struct reading *reading)
{
    struct assay_job_file *file = reading->file;
    ProtobufCMessage *message = NULL;
    const cJSON *fault = NULL;
    enum assay_status status = assay_message_from_json(&assay__v1__job_file__descriptor, assay_yaml_json(reading->yaml),
                                                       &message, &fault, reading->err);
    if (status != ASSAY_OK)
        return at_line(reading, fault, status);
    file->message = (Assay__V1__JobFile *)(void *)message;
    status = check_values(reading);
    if (status == ASSAY_OK)
        status = check_variants(reading);
    if (status == ASSAY_OK)
        status = check_thresholds(reading);
    if (status == ASSAY_OK)
        status = resolve(reading, file->message->model, file->model_path, &file->model);
    if (status == ASSAY_OK)
        status = resolve(reading, file->message->corpus, file->corpus_path, &file->corpus);
    if (status == ASSAY_OK)
        status = resolve(reading, file->message->out, file->out_path, &file->out);
    return status;
}

enum assay_status assay_job_file_load(const char *path, struct assay_job_file *ret, struct assay_err *err)
{
    struct assay_yaml *yaml = NULL;
    enum assay_status status = assay_yaml_load(path, &yaml, err);
    if (status != ASSAY_OK)
        return status;
    *ret = (struct assay_job_file){.chunks = 0};
    struct reading reading = {.path = path, .yaml = yaml, .file = ret, .err = err};
    status = read_file(&reading);
    if (status != ASSAY_OK)
        assay_job_file_release(ret);
    assay_yaml_free(yaml);
    return status;
}

void assay_job_file_release(struct assay_job_file *file)
{
    if (file->message)
        assay__v1__job_file__free_unpacked(file->message, NULL);
    assay_buf_release(&file->variants_text);
    *file = (struct assay_job_file){.chunks = 0};
}

const char *assay_job_file_named(int argc, char **argv)
{
    static const char flag[] = "--job";
    size_t len = sizeof flag - 1;
    const char *found = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], flag) == 0 && i + 1 < argc)
            found = argv[++i];
        else if (strncmp(argv[i], flag, len) == 0 && argv[i][len] == '=')
            found = argv[i] + len + 1;
    }
    return found ? found : getenv("ASSAY_JOB");
}
