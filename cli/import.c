/* assay import: a GGUF file as a checkpoint directory. */
#include <stdio.h>

#include "cli/commands.h"
#include "cli/import_gguf.h"
#include "cli/interrupt.h"
#include "cli/say.h"
#include "cli/workplace.h"
#include "common/base/exit_code.h"

#define NAME "import"

static enum assay_status print_json(const char *dir, const struct assay_gguf_summary *summary, struct assay_err *err)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "directory", dir);
    assay_import_json(object, summary);
    char *text = cJSON_Print(object);
    cJSON_Delete(object);
    if (!text)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    puts(text);
    cJSON_free(text);
    return ASSAY_OK;
}

static enum assay_status import(const char *file, const char *dir, bool json, struct assay_err *err)
{
    assay_auto(assay_workplace_close) struct assay_workplace place = {0};
    struct assay_gguf_summary summary = {0};
    enum assay_status status = assay_workplace_open(dir, &place, err);
    if (status == ASSAY_OK)
        status = assay_import_gguf(file, place.model, &summary, err);
    if (status == ASSAY_OK)
        status = assay_workplace_commit(&place, err);
    if (status == ASSAY_OK && json)
        return print_json(dir, &summary, err);
    if (status == ASSAY_OK)
        assay_import_print(dir, &summary);
    return status;
}

int assay_command_import(int argc, char **argv)
{
    const char *file = NULL, *dir = NULL;
    bool json = false;
    const struct assay_setting settings[] = {
        {.name = "output",
         .type = ASSAY_SETTING_STRING,
         .target = &dir,
         .argument = "DIR",
         .help = "the checkpoint's directory; it must not exist, or be empty",
         .required = true},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &json, .help = "the result as JSON"},
    };
    const struct assay_command command = {
        .usage = "assay import FILE.gguf -o DIR [--json]",
        .summary = "Makes a checkpoint in the Hugging Face layout of a GGUF file: llama, qwen2, qwen3, phi2, phi3, "
                   "granite, gemma2, gemma3, gpt2, gptneox, deepseek2 with DeepSeek-V3's experts (F32, F16, BF16, "
                   "Q8_0, Q4 and Q5 of both kinds, Q2_K to Q6_K, IQ4_NL, IQ4_XS). Values stay as they are: a tensor is "
                   "stored in F32 where 16 bits do not hold "
                   "it exactly, so expect about 4 bytes a weight.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &file,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    if (!assay_say_parse(NAME, &command, argc, argv, &code))
        return code;
    assay_interrupt_prepare();
    struct assay_err err = ASSAY_ERR_INIT;
    if (import(file, dir, json, &err) != ASSAY_OK)
        return assay_say_failure(NAME, &err);
    return ASSAY_EXIT_PASS;
}
