/* assay chat: the prompt that a model's chat template makes of a conversation. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/date.h"
#include "cli/say.h"
#include "common/base/exit_code.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/corpus/chat.h"
#include "common/formats/json.h"
#include "common/tokenizer/tokenizer.h"

#define NAME "chat"

struct chat_options {
    const char *model, *messages, *tools, *variables, *date;
    bool no_generation_prompt, ids, json;
};

static void close_chat(struct assay_chat **chat)
{
    assay_chat_close(*chat);
}

static void close_tokenizer(struct assay_tokenizer **tokenizer)
{
    assay_tokenizer_close(*tokenizer);
}

static enum assay_status read_optional(const char *file, char **ret, struct assay_err *err)
{
    size_t len;
    if (!file)
        return ASSAY_OK;
    return assay_file_read(strcmp(file, "-") == 0 ? "/dev/stdin" : file, ASSAY_CHAT_MESSAGES_BYTES_MAX, ret, &len, err);
}

static enum assay_status render(const struct chat_options *options, char **ret, size_t *ret_len, struct assay_err *err)
{
    assay_auto(close_chat) struct assay_chat *chat = NULL;
    assay_auto(assay_free_ptr) char *messages = NULL;
    assay_auto(assay_free_ptr) char *tools = NULL;
    assay_auto(assay_free_ptr) char *variables = NULL;
    int64_t now_s = 0;
    enum assay_status status = assay_date_read(options->date, &now_s, err);
    if (status == ASSAY_OK)
        status = assay_chat_open(options->model, &chat, err);
    if (status == ASSAY_OK)
        status = read_optional(options->messages, &messages, err);
    if (status == ASSAY_OK)
        status = read_optional(options->tools, &tools, err);
    if (status == ASSAY_OK)
        status = read_optional(options->variables, &variables, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_chat_request request = {
        .messages = messages,
        .tools = tools,
        .variables = variables,
        .add_generation_prompt = !options->no_generation_prompt,
        .now_s = now_s,
    };
    return assay_chat_render(chat, &request, ret, ret_len, err);
}

static enum assay_status encode(const char *model, const char *text, size_t len, cJSON **ret, struct assay_err *err)
{
    assay_auto(close_tokenizer) struct assay_tokenizer *tokenizer = NULL;
    assay_auto(assay_free_ptr) int32_t *ids = NULL;
    size_t count = 0;
    enum assay_status status = assay_tokenizer_open(model, &tokenizer, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_encode(tokenizer, text, len, false, &ids, &count, err);
    if (status != ASSAY_OK)
        return status;
    *ret = cJSON_CreateIntArray(ids, (int)count);
    return *ret ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu ids", count);
}

static enum assay_status print_json(const char *text, cJSON *ids, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *root = cJSON_CreateObject();
    bool whole = root && cJSON_AddStringToObject(root, "prompt", text);
    if (ids && !cJSON_AddItemToObject(root, "ids", ids)) {
        cJSON_Delete(ids);
        whole = false;
    }
    assay_auto(assay_free_ptr) char *printed = whole ? cJSON_PrintUnformatted(root) : NULL;
    if (!printed)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the prompt");
    puts(printed);
    return ASSAY_OK;
}

static enum assay_status chat(const struct chat_options *options, struct assay_err *err)
{
    assay_auto(assay_free_ptr) char *text = NULL;
    cJSON *ids = NULL;
    size_t len = 0;
    enum assay_status status = render(options, &text, &len, err);
    if (status == ASSAY_OK && options->ids)
        status = encode(options->model, text, len, &ids, err);
    if (status != ASSAY_OK)
        return status;
    if (options->json) {
        status = print_json(text, ids, err);
    } else if (ids) {
        const cJSON *id;
        cJSON_ArrayForEach(id, ids)
        {
            printf("%d\n", id->valueint);
        }
        cJSON_Delete(ids);
    } else {
        fwrite(text, 1, len, stdout);
    }
    if (status == ASSAY_OK && (fflush(stdout) != 0 || ferror(stdout)))
        return assay_err_errno(err, errno, "cannot write the prompt");
    return status;
}

int assay_command_chat(int argc, char **argv)
{
    struct chat_options options = {0};
    const struct assay_setting settings[] = {
        {.name = "messages",
         .type = ASSAY_SETTING_STRING,
         .target = &options.messages,
         .argument = "FILE",
         .help = "JSON: an array of objects with role and content; - for stdin",
         .required = true},
        {.name = "tools",
         .type = ASSAY_SETTING_STRING,
         .target = &options.tools,
         .argument = "FILE",
         .help = "JSON: an array of tools that the model may call"},
        {.name = "variables",
         .type = ASSAY_SETTING_STRING,
         .target = &options.variables,
         .argument = "FILE",
         .help = "a JSON object of further variables"},
        {.name = "no-generation-prompt",
         .type = ASSAY_SETTING_FLAG,
         .target = &options.no_generation_prompt,
         .help = "end behind the last message, not where the assistant begins"},
        {.name = "date",
         .type = ASSAY_SETTING_STRING,
         .target = &options.date,
         .argument = "YYYY-MM-DD",
         .help = "what a template that asks for the date gets (default: today, UTC)"},
        {.name = "ids",
         .type = ASSAY_SETTING_FLAG,
         .target = &options.ids,
         .help = "token ids of the prompt, a line each (with --json beside the prompt)"},
        {.name = "json", .type = ASSAY_SETTING_FLAG, .target = &options.json, .help = "print JSON"},
    };
    const struct assay_command command = {
        .usage = "assay chat MODEL --messages FILE [--tools FILE] [--variables FILE] [--ids] [--json]",
        .summary = "Prints the prompt that a model's chat template makes of a conversation.",
        .settings = settings,
        .settings_count = ASSAY_COUNT(settings),
        .positional = &options.model,
        .positional_min = 1,
        .positional_max = 1,
    };
    int code;
    if (!assay_say_parse(NAME, &command, argc, argv, &code))
        return code;
    struct assay_err err = ASSAY_ERR_INIT;
    if (chat(&options, &err) != ASSAY_OK)
        return assay_say_failure(NAME, &err);
    return ASSAY_EXIT_PASS;
}
