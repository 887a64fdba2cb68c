#include "cli/generate_options.h"

#include <string.h>

#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/limits.h"
#include "common/base/pool.h"

#define NAME "generate"
#define BATCH_MAX 256

#define TEXT(key, member, value, text)                                                                                 \
    {                                                                                                                  \
        .name = key, .type = ASSAY_SETTING_STRING, .target = &o->member, .argument = value, .help = text               \
    }
#define NUMBER(key, kind, member, low, high, value, text)                                                              \
    {                                                                                                                  \
        .name = key, .type = kind, .target = &o->member, .min = low, .max = high, .argument = value, .help = text      \
    }
#define FLAG(key, member, text)                                                                                        \
    {                                                                                                                  \
        .name = key, .type = ASSAY_SETTING_FLAG, .target = &o->member, .help = text                                    \
    }

struct assay_sampling assay_generate_sampling(const struct assay_generate_options *options)
{
    return (struct assay_sampling){
        .temperature = options->temperature,
        .top_k = (size_t)options->top_k,
        .top_p = options->top_p,
        .min_p = options->min_p,
        .repetition_penalty = options->repetition_penalty,
        .seed = (uint64_t)options->seed,
    };
}

enum assay_status assay_generate_read_kv(const char *name, enum assay_dtype *ret, struct assay_err *err)
{
    static const struct {
        const char *name;
        enum assay_dtype dtype;
    } kinds[] = {{"f32", ASSAY_F32}, {"f16", ASSAY_F16}, {"bf16", ASSAY_BF16}, {"i8", ASSAY_I8}};
    for (size_t i = 0; i < ASSAY_COUNT(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0) {
            *ret = kinds[i].dtype;
            return ASSAY_OK;
        }
    return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--kv is \"%s\", wanted f32, f16, bf16 or i8", name);
}

static enum assay_status check(const struct assay_generate_options *o, struct assay_err *err)
{
    struct assay_sampling sampling = assay_generate_sampling(o);
    if (!!o->prompt + !!o->prompts + !!o->messages != 1)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "wanted one of --prompt, --prompts and --messages");
    if (assay_respond_is_remote(&o->where) && o->side_by_side)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--side-by-side is done here, not by a worker");
    return assay_sampling_check(&sampling, err);
}

bool assay_generate_parse(int argc, char **argv, struct assay_generate_options *ret, int *ret_exit)
{
    *ret = (struct assay_generate_options){
        .kv = "f32", .tokens_max = 128, .batch = 16, .top_p = 1, .repetition_penalty = 1};
    struct assay_generate_options *o = ret;
    o->threads = (int64_t)ASSAY_MIN(assay_cpu_count(), (size_t)ASSAY_POOL_THREADS_MAX);
    const struct assay_setting settings[] = {
        TEXT("prompt", prompt, "TEXT", "what to go on with"),
        TEXT("prompts", prompts, "FILE", "many: one a line, or a JSON array of strings; - for stdin"),
        TEXT("messages", messages, "FILE", "a conversation for the model's chat template, as `assay chat` takes it"),
        FLAG("chat", chat, "each prompt is a user's message, put through the model's chat template"),
        TEXT("date", date, "YYYY-MM-DD", "what a template that asks for the date gets (default: today, UTC)"),
        NUMBER("max-tokens", ASSAY_SETTING_INT, tokens_max, 1, 1048576, "N", "tokens of a response, at most"),
        NUMBER("temperature", ASSAY_SETTING_DOUBLE, temperature, 0, 100, "T", "0 takes the most probable token"),
        NUMBER("top-k", ASSAY_SETTING_INT, top_k, 0, 16777216, "K", "choose among so many; 0: all"),
        NUMBER("top-p", ASSAY_SETTING_DOUBLE, top_p, 0, 1, "P", "choose among the fewest that reach this probability"),
        NUMBER("min-p", ASSAY_SETTING_DOUBLE, min_p, 0, 1, "P", "choose among those of this share of the highest"),
        NUMBER("repetition-penalty", ASSAY_SETTING_DOUBLE, repetition_penalty, 0.01, 100, "X",
               "logits of tokens seen are divided by it, or multiplied where negative"),
        NUMBER("seed", ASSAY_SETTING_INT, seed, 0, 9007199254740992.0, "N", "prompt i of many draws with seed + i"),
        TEXT("stop", stop, "TEXT", "end before this text; a JSON array of strings for several"),
        FLAG("ignore-eos", ignore_eos, "go on behind the end that the model's files name"),
        TEXT("kv", kv, "DTYPE", "what keys and values are kept as: f32, f16, bf16 or i8"),
        NUMBER("batch", ASSAY_SETTING_INT, batch, 1, BATCH_MAX, "N", "responses under way at once"),
        TEXT("side-by-side", side_by_side, "SPECS", "answer by each of these schemes, as fp32,int8,nf4"),
        NUMBER("threads", ASSAY_SETTING_INT, threads, 1, ASSAY_POOL_THREADS_MAX, "N",
               "threads to compute with; all CPUs unless given"),
        TEXT("cpus", cpus, "LIST", "CPUs to pin them to, as 0-3,8"),
        ASSAY_RESPOND_WHERE_SETTINGS(o->where),
        FLAG("json", json, "print JSON, with ids, log-probabilities and times; by a worker a line for each message"),
    };
    const struct assay_command command = {
        .usage = "assay generate MODEL --prompt TEXT | --prompts FILE | --messages FILE [--worker ENDPOINT] [OPTIONS]",
        .summary = "Responses of a model: a checkpoint or an artifact; in this process, or by a worker.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &o->model,
        .positional_min = 1,
        .positional_max = 1,
    };
    if (!assay_say_parse(NAME, &command, argc, argv, ret_exit))
        return false;
    struct assay_err err = ASSAY_ERR_INIT;
    if (check(o, &err) == ASSAY_OK)
        return true;
    *ret_exit = assay_say_setting_failure(NAME, &err);
    return false;
}
