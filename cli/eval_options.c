#include "cli/eval_options.h"
#include "cli/remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/directory.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/fs.h"
#include "common/base/paths.h"
#include "common/corpus/chunks.h"

#define NAME_BYTES_MAX 200
#define OUT_MODE 0777
#define SETTINGS_MAX 24

static enum assay_status canonical(const char *option, const char *text, char ret[ASSAY_SPEC_TEXT_MAX],
                                   struct assay_err *err)
{
    struct assay_spec spec;
    enum assay_status status = assay_spec_parse(text, &spec, err);
    if (status != ASSAY_OK) {
        assay_err_prefix(err, "%s", option);
        return status;
    }
    assay_spec_format(&spec, ret);
    return ASSAY_OK;
}

enum assay_status assay_eval_variants_parse(const char *text,
                                            char variants[ASSAY_JOB_VARIANTS_MAX][ASSAY_SPEC_TEXT_MAX],
                                            size_t *ret_count, struct assay_err *err)
{
    size_t count = 0;
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char part[ASSAY_SPEC_TEXT_MAX];
        size_t len = strcspn(at, ",");
        if (len == 0 || len >= sizeof part)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                                 "--variants: found a part of %zu bytes in '%.100s', wanted SPEC[,SPEC]*", len, text);
        if (count == ASSAY_JOB_VARIANTS_MAX)
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--variants: a job has at most %d variants",
                                 ASSAY_JOB_VARIANTS_MAX);
        memcpy(part, at, len);
        part[len] = '\0';
        enum assay_status status = canonical("--variants", part, variants[count], err);
        if (status != ASSAY_OK)
            return status;
        for (size_t i = 0; i < count; i++)
            if (strcmp(variants[i], variants[count]) == 0)
                return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--variants: %s stands twice", variants[count]);
        count++;
    }
    *ret_count = count;
    return ASSAY_OK;
}

/* A coordinator over tcp may be on another machine, and the model's path is one of that machine. */
static bool is_elsewhere(const char *given, const char *coordinator)
{
    return given[0] == '/' && strlen(given) < ASSAY_PATH_MAX && coordinator &&
           strncmp(coordinator, "tcp://", strlen("tcp://")) == 0 && access(given, F_OK) != 0;
}

static enum assay_status check_model(const char *given, char model_dir[ASSAY_PATH_MAX], struct assay_err *err)
{
    char config[ASSAY_PATH_MAX];
    struct stat st;
    char *real = realpath(given, NULL);
    if (!real)
        return assay_err_errno(err, errno, "model %s", given);
    enum assay_status status = ASSAY_OK;
    if (strlen(real) >= ASSAY_PATH_MAX)
        status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "model %.200s...: the path is too long", given);
    else
        strcpy(model_dir, real);
    free(real);
    if (status == ASSAY_OK)
        status = assay_path_join(config, model_dir, "config.json", err);
    if (status != ASSAY_OK)
        return status;
    if (stat(model_dir, &st) != 0 || !S_ISDIR(st.st_mode))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "model %s: found a file, wanted a checkpoint directory",
                             given);
    if (access(config, R_OK) != 0)
        return assay_err_errno(err, errno, "model %s: cannot read config.json", given);
    return ASSAY_OK;
}

static enum assay_status check_corpus(const char *path, struct assay_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || access(path, R_OK) != 0)
        return assay_err_errno(err, errno, "corpus %s", path);
    if (S_ISDIR(st.st_mode))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "corpus %s: found a directory, wanted a text file", path);
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "corpus %s: the file is empty", path);
    if (S_ISREG(st.st_mode) && st.st_size > (off_t)ASSAY_CORPUS_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "corpus %s: found %lld bytes, wanted at most %u", path,
                             (long long)st.st_size, ASSAY_CORPUS_BYTES_MAX);
    if (!S_ISREG(st.st_mode))
        return ASSAY_OK;
    struct assay_mapping text;
    enum assay_status status = assay_map_file(path, &text, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_corpus_check((const char *)text.data, text.bytes, err);
    assay_unmap(&text);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "corpus %s", path);
    return status;
}

/* Inputs and the place of the results, so that nothing runs for nothing. */
static enum assay_status check_files(struct assay_eval_options *options, const char *model, const char *data,
                                     struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    if (is_elsewhere(model, options->coordinator))
        strcpy(options->model_dir, model);
    else
        status = check_model(model, options->model_dir, err);
    if (status == ASSAY_OK)
        status = check_corpus(options->corpus_path, err);
    if (status == ASSAY_OK)
        status = assay_data_dir(data, options->data_dir, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_directory_make(options->out_dir, OUT_MODE, err);
    if (status != ASSAY_OK)
        assay_err_prefix(err, "--out");
    return status;
}

static enum assay_status check_values(struct assay_eval_options *options, const char *reference, const char *variants,
                                      struct assay_err *err)
{
    if (options->name && strlen(options->name) > NAME_BYTES_MAX)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--name: at most %d bytes, found %zu", NAME_BYTES_MAX,
                             strlen(options->name));
    if (options->coordinator && options->keep_stack)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT,
                             "--keep-stack is for a stack that this command starts, --coordinator names another");
    if (strcmp(options->record_dtype, "f32") != 0 && strcmp(options->record_dtype, "f16") != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--record-dtype: found '%.100s', wanted f32 or f16",
                             options->record_dtype);
    if (!assay_protocol_find(options->protocol))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--protocol: found '%.100s', known: %s", options->protocol,
                             assay_protocol_names());
    enum assay_status status = canonical("--reference", reference, options->reference, err);
    return status == ASSAY_OK ? assay_eval_variants_parse(variants, options->variants, &options->variants_count, err)
                              : status;
}

static void join_command(int argc, char **argv, struct assay_buf *out)
{
    assay_buf_str(out, "assay");
    for (int i = 0; i < argc; i++) {
        bool quote = argv[i][0] == '\0' || argv[i][strcspn(argv[i], " \t\n\"'\\$;&|<>()*?#~`")] != '\0';
        assay_buf_str(out, quote ? " '" : " ");
        for (const char *at = argv[i]; *at; at++)
            assay_buf_append(out, quote && *at == '\'' ? "'\\''" : at, quote && *at == '\'' ? 4 : 1);
        if (quote)
            assay_buf_str(out, "'");
    }
}

/* What is measured, and against what. At most SETTINGS_MAX over both. */
static size_t measure_settings(struct assay_eval_options *options, const char **texts, struct assay_setting *ret)
{
    const struct assay_setting settings[] = {
        {.name = "reference",
         .type = ASSAY_SETTING_STRING,
         .target = &texts[1],
         .argument = "SPEC",
         .help = "what the variants are compared with"},
        {.name = "variants",
         .type = ASSAY_SETTING_STRING,
         .target = &texts[2],
         .argument = "SPEC,...",
         .help = "what is measured: scheme[:key=value]*",
         .required = true},
        {.name = "corpus",
         .type = ASSAY_SETTING_STRING,
         .target = &options->corpus_path,
         .argument = "FILE",
         .help = "text to run, UTF-8",
         .required = true},
        {.name = "protocol",
         .type = ASSAY_SETTING_STRING,
         .target = &options->protocol,
         .argument = "NAME",
         .help = "how the text is cut and scored"},
        {.name = "record-dtype",
         .type = ASSAY_SETTING_STRING,
         .target = &options->record_dtype,
         .argument = "DTYPE",
         .help = "what hidden states are kept as: f32, or f16 for half the room"},
        {.name = "chunks",
         .type = ASSAY_SETTING_INT,
         .target = &options->chunks_max,
         .max = ASSAY_JOB_CHUNKS_MAX,
         .argument = "N",
         .help = "run the first N chunks only, 0 for all"},
        {.name = "max-ppl-increase",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &options->perplexity_increase_percent_max,
         .max = 1e6,
         .argument = "PERCENT",
         .help = "threshold of the perplexity increase"},
        {.name = "max-kl",
         .type = ASSAY_SETTING_DOUBLE,
         .target = &options->kl_mean_nats_max,
         .max = 1e6,
         .argument = "NATS",
         .help = "threshold of the mean KL divergence"},
    };
    memcpy(ret, settings, sizeof settings);
    return ASSAY_COUNT(settings);
}

/* Where it is written, where it runs, where results go. */
static size_t place_settings(struct assay_eval_options *options, const char **texts, struct assay_setting *ret)
{
    const struct assay_setting settings[] = {
        {.name = "job",
         .type = ASSAY_SETTING_STRING,
         .target = &texts[4],
         .argument = "FILE",
         .help = "read the job from a YAML file; options override it"},
        {.name = "out",
         .type = ASSAY_SETTING_STRING,
         .target = &options->out_dir,
         .argument = "DIR",
         .help = "where the report files go"},
        {.name = "data",
         .type = ASSAY_SETTING_STRING,
         .target = &texts[3],
         .argument = "DIR",
         .help = "data directory of the stack, with its cache (else $XDG_DATA_HOME/assay)"},
        {.name = "coordinator",
         .type = ASSAY_SETTING_STRING,
         .target = &options->coordinator,
         .argument = "ENDPOINT",
         .help = "use this stack and start none"},
        ASSAY_REMOTE_KEY_SETTINGS,
        {.name = "away",
         .type = ASSAY_SETTING_INT,
         .target = &options->away_s,
         .min = 1,
         .max = 86400,
         .argument = "SECONDS",
         .help = "end when the coordinator has been away for so long"},
        {.name = "trace",
         .type = ASSAY_SETTING_STRING,
         .target = &options->trace_path,
         .argument = "FILE",
         .help = "write what each process did for the job as a trace for Perfetto"},
        {.name = "priority",
         .type = ASSAY_SETTING_INT,
         .target = &options->priority,
         .min = -ASSAY_PRIORITY_MAX,
         .max = ASSAY_PRIORITY_MAX,
         .argument = "N",
         .help = "-10 to 10; each step doubles the job's share of the workers"},
        {.name = "dry-run",
         .type = ASSAY_SETTING_FLAG,
         .target = &options->dry_run,
         .help = "print what would run and how long it would take, and stop"},
        {.name = "json",
         .type = ASSAY_SETTING_FLAG,
         .target = &options->json,
         .help = "print the whole report as JSON"},
        {.name = "name",
         .type = ASSAY_SETTING_STRING,
         .target = &options->name,
         .argument = "TEXT",
         .help = "title of the report"},
        {.name = "keep-stack",
         .type = ASSAY_SETTING_FLAG,
         .target = &options->keep_stack,
         .help = "leave the stack running that this command started"},
    };
    memcpy(ret, settings, sizeof settings);
    return ASSAY_COUNT(settings);
}

static bool parse_arguments(int argc, char **argv, struct assay_eval_options *options, const char **ret_texts,
                            int *ret_exit)
{
    const char *positional[1] = {ret_texts[0]};
    struct assay_setting settings[SETTINGS_MAX];
    size_t count = measure_settings(options, ret_texts, settings);
    count += place_settings(options, ret_texts, settings + count);
    const struct assay_command command = {
        .usage = "assay eval MODEL --variants SPEC,... --corpus FILE [--reference SPEC] [options]",
        .summary = "Measures what quantized variants of a model lose against its reference. Exit code 0: within the "
                   "thresholds, 1: beyond, 2: the data do not decide. Ctrl-C cancels the job and shows what was scored "
                   "so far (11); a second one "
                   "leaves at once (10).",
        .settings = settings,
        .settings_count = count,
        .positional = positional,
        .positional_min = ret_texts[0] ? 0 : 1,
        .positional_max = 1,
    };
    bool go_on = assay_say_parse("eval", &command, argc, argv, ret_exit);
    ret_texts[0] = positional[0];
    return go_on;
}

/* What a job file says stands in for the defaults. */
static enum assay_status load_job(const char *path, struct assay_eval_options *options, const char **texts,
                                  struct assay_err *err)
{
    struct assay_job_file *job = &options->job;
    enum assay_status status = path ? assay_job_file_load(path, job, err) : ASSAY_OK;
    if (status != ASSAY_OK || !path)
        return status;
    texts[0] = job->model;
    texts[1] = job->reference ? job->reference : texts[1];
    texts[2] = job->variants;
    options->name = job->name;
    options->corpus_path = job->corpus;
    options->protocol = job->protocol ? job->protocol : options->protocol;
    options->out_dir = job->out ? job->out : options->out_dir;
    options->record_dtype = job->record_dtype ? job->record_dtype : options->record_dtype;
    options->chunks_max = job->chunks;
    if (job->has_perplexity_increase)
        options->perplexity_increase_percent_max = job->perplexity_increase_percent;
    if (job->has_kl_mean)
        options->kl_mean_nats_max = job->kl_mean_nats;
    return ASSAY_OK;
}

bool assay_eval_options_parse(int argc, char **argv, struct assay_eval_options *options, int *ret_exit)
{
    const char *texts[5] = {NULL, "fp32", NULL, NULL, NULL}; /* model, reference, variants, data, job */
    const char *job = assay_job_file_named(argc, argv);
    struct assay_err err = ASSAY_ERR_INIT;
    *options = (struct assay_eval_options){
        .protocol = "llamacpp-512",
        .record_dtype = "f32",
        .away_s = 60,
        .out_dir = "./assay-results",
        .perplexity_increase_percent_max = 8,
        .kl_mean_nats_max = 0.1,
    };
    if (load_job(job, options, texts, &err) != ASSAY_OK) {
        *ret_exit = assay_say_failure("eval", &err);
        return false;
    }
    if (!parse_arguments(argc, argv, options, texts, ret_exit))
        return false;
    if (job ? !texts[4] || strcmp(job, texts[4]) != 0 : texts[4] != NULL) {
        assay_err_set(&err, ASSAY_INVALID_ARGUMENT,
                      "--job: write --job=FILE, and a value that begins with -- as --NAME=VALUE");
        assay_say_failure("eval", &err);
        *ret_exit = ASSAY_EXIT_USAGE;
        return false;
    }
    if (check_values(options, texts[1], texts[2], &err) != ASSAY_OK) {
        assay_say_failure("eval", &err);
        *ret_exit = ASSAY_EXIT_USAGE;
        return false;
    }
    if (check_files(options, texts[0], texts[3], &err) != ASSAY_OK) {
        *ret_exit = assay_say_failure("eval", &err);
        return false;
    }
    join_command(argc, argv, &options->command);
    return true;
}

void assay_eval_options_release(struct assay_eval_options *options)
{
    assay_job_file_release(&options->job);
    assay_buf_release(&options->command);
}
