#include "cli/generate_prompts.h"

#include <stdlib.h>
#include <string.h>

#include "cli/date.h"
#include "cli/texts.h"
#include "common/base/fs.h"
#include "common/base/limits.h"
#include "common/corpus/chat.h"
#include "common/formats/json.h"
#include "common/wire/utf8.h"

void assay_prompts_release(struct assay_prompts *prompts)
{
    for (size_t i = 0; i < prompts->count; i++)
        free(prompts->at[i].ids);
    free(prompts->at);
    *prompts = (struct assay_prompts){0};
}

/* A text as a user's only message. */
static enum assay_status message_of(const char *text, char **ret, struct assay_err *err)
{
    assay_auto(assay_json_delete) cJSON *list = cJSON_CreateArray();
    cJSON *message = cJSON_CreateObject();
    bool whole = list && cJSON_AddItemToArray(list, message) && cJSON_AddStringToObject(message, "role", "user") &&
                 cJSON_AddStringToObject(message, "content", text);
    *ret = whole ? cJSON_PrintUnformatted(list) : NULL;
    return *ret ? ASSAY_OK : assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a message");
}

static enum assay_status encode_chat(const struct assay_generate_options *options, const struct assay_chat *chat,
                                     const struct assay_tokenizer *tokenizer, const char *messages,
                                     struct assay_prompt *prompt, struct assay_err *err)
{
    struct assay_chat_request request = {.messages = messages, .add_generation_prompt = true};
    assay_auto(assay_free_ptr) char *text = NULL;
    size_t len = 0;
    enum assay_status status = assay_date_read(options->date, &request.now_s, err);
    if (status == ASSAY_OK)
        status = assay_chat_render(chat, &request, &text, &len, err);
    if (status == ASSAY_OK)
        status = assay_tokenizer_encode(tokenizer, text, len, false, &prompt->ids, &prompt->tokens, err);
    return status;
}

static enum assay_status encode_text(const struct assay_generate_options *options, const struct assay_chat *chat,
                                     const struct assay_tokenizer *tokenizer, const char *text, size_t len,
                                     struct assay_prompt *prompt, struct assay_err *err)
{
    if (!chat)
        return assay_tokenizer_encode(tokenizer, text, len, true, &prompt->ids, &prompt->tokens, err);
    assay_auto(assay_free_ptr) char *copy = strndup(text, len);
    assay_auto(assay_free_ptr) char *messages = NULL;
    if (!copy)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a prompt of %zu bytes", len);
    enum assay_status status = message_of(copy, &messages, err);
    return status == ASSAY_OK ? encode_chat(options, chat, tokenizer, messages, prompt, err) : status;
}

static enum assay_status encode_all(const struct assay_generate_options *options, const struct assay_chat *chat,
                                    const struct assay_tokenizer *tokenizer, const struct assay_text *texts,
                                    size_t count, struct assay_prompts *prompts, struct assay_err *err)
{
    prompts->at = calloc(count, sizeof *prompts->at);
    if (!prompts->at)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu prompts", count);
    for (size_t i = 0; i < count; i++) {
        struct assay_prompt *prompt = &prompts->at[prompts->count++];
        enum assay_status status = encode_text(options, chat, tokenizer, texts[i].text, texts[i].len, prompt, err);
        if (status == ASSAY_OK && prompt->tokens == 0)
            status = assay_err_set(err, ASSAY_INVALID_ARGUMENT, "prompt %zu has no tokens", i);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

static enum assay_status read_conversation(const struct assay_generate_options *options, const struct assay_chat *chat,
                                           const struct assay_tokenizer *tokenizer, struct assay_prompts *prompts,
                                           struct assay_err *err)
{
    assay_auto(assay_free_ptr) char *messages = NULL;
    size_t len;
    const char *file = strcmp(options->messages, "-") == 0 ? "/dev/stdin" : options->messages;
    enum assay_status status = assay_file_read(file, ASSAY_CHAT_MESSAGES_BYTES_MAX, &messages, &len, err);
    if (status != ASSAY_OK)
        return status;
    prompts->at = calloc(1, sizeof *prompts->at);
    if (!prompts->at)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a prompt");
    prompts->count = 1;
    return encode_chat(options, chat, tokenizer, messages, &prompts->at[0], err);
}

static enum assay_status read_texts(const struct assay_generate_options *options, const struct assay_chat *chat,
                                    const struct assay_tokenizer *tokenizer, struct assay_prompts *prompts,
                                    struct assay_err *err)
{
    if (options->prompt) {
        const struct assay_text text = {options->prompt, strlen(options->prompt)};
        return encode_all(options, chat, tokenizer, &text, 1, prompts, err);
    }
    struct assay_texts texts;
    enum assay_status status = assay_texts_read(options->prompts, &texts, err);
    if (status != ASSAY_OK)
        return status;
    status = encode_all(options, chat, tokenizer, texts.at, texts.count, prompts, err);
    assay_texts_release(&texts);
    return status;
}

enum assay_status assay_prompts_read(const struct assay_generate_options *options,
                                     const struct assay_tokenizer *tokenizer, struct assay_prompts *ret,
                                     struct assay_err *err)
{
    struct assay_prompts prompts = {0};
    struct assay_chat *chat = NULL;
    enum assay_status status = ASSAY_OK;
    if (options->messages || options->chat)
        status = assay_chat_open(options->model, &chat, err);
    if (status == ASSAY_OK)
        status = options->messages ? read_conversation(options, chat, tokenizer, &prompts, err)
                                   : read_texts(options, chat, tokenizer, &prompts, err);
    assay_chat_close(chat);
    if (status != ASSAY_OK) {
        assay_prompts_release(&prompts);
        return status;
    }
    *ret = prompts;
    return ASSAY_OK;
}

void assay_conversations_release(struct assay_conversations *conversations)
{
    for (size_t i = 0; i < conversations->count; i++)
        free(conversations->at[i]);
    free(conversations->at);
    *conversations = (struct assay_conversations){0};
}

/* One prompt, as a message where the chat template is wanted. */
static enum assay_status add_prompt(const struct assay_generate_options *options, const char *text, size_t len,
                                    struct assay_conversations *to, struct assay_err *err)
{
    if (memchr(text, '\0', len) || !assay_utf8_valid(text, len))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "prompt %zu is not UTF-8, or has a NUL; a worker takes none",
                             to->count);
    char *copy = strndup(text, len), *message = NULL;
    if (!copy)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a prompt of %zu bytes", len);
    enum assay_status status = options->chat ? message_of(copy, &message, err) : ASSAY_OK;
    if (options->chat)
        free(copy);
    if (status == ASSAY_OK)
        to->at[to->count++] = options->chat ? message : copy;
    return status;
}

static enum assay_status add_prompts(const struct assay_generate_options *options, const struct assay_text *texts,
                                     size_t count, struct assay_conversations *to, struct assay_err *err)
{
    enum assay_status status = ASSAY_OK;
    to->at = calloc(count, sizeof *to->at);
    to->are_messages = options->chat;
    if (!to->at)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu prompts", count);
    for (size_t i = 0; i < count && status == ASSAY_OK; i++)
        status = add_prompt(options, texts[i].text, texts[i].len, to, err);
    return status;
}

/* The file as it is: whether it is a conversation is for the worker to say. */
static enum assay_status add_messages(const struct assay_generate_options *options, struct assay_conversations *to,
                                      struct assay_err *err)
{
    char *messages = NULL;
    size_t len = 0;
    const char *file = strcmp(options->messages, "-") == 0 ? "/dev/stdin" : options->messages;
    enum assay_status status = assay_file_read(file, ASSAY_CHAT_MESSAGES_BYTES_MAX, &messages, &len, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_text text = {messages, len};
    const struct assay_generate_options as_it_is = {.chat = false};
    status = add_prompts(&as_it_is, &text, 1, to, err);
    to->are_messages = true;
    free(messages);
    return status;
}

enum assay_status assay_conversations_read(const struct assay_generate_options *options,
                                           struct assay_conversations *ret, struct assay_err *err)
{
    struct assay_conversations found = {0};
    struct assay_texts texts = {0};
    enum assay_status status;
    if (options->messages) {
        status = add_messages(options, &found, err);
    } else if (options->prompt) {
        const struct assay_text text = {options->prompt, strlen(options->prompt)};
        status = add_prompts(options, &text, 1, &found, err);
    } else {
        status = assay_texts_read(options->prompts, &texts, err);
        if (status == ASSAY_OK)
            status = add_prompts(options, texts.at, texts.count, &found, err);
        assay_texts_release(&texts);
    }
    if (status == ASSAY_OK)
        *ret = found;
    else
        assay_conversations_release(&found);
    return status;
}

enum assay_status assay_stops_read(const char *stop, const char ***ret, size_t *ret_count, void **ret_json,
                                   struct assay_err *err)
{
    cJSON *json = NULL;
    if (stop && stop[strspn(stop, " ")] == '[') {
        enum assay_status status = assay_json_parse(stop, strlen(stop), "--stop", &json, err);
        if (status != ASSAY_OK)
            return status;
    }
    size_t count = json ? (size_t)cJSON_GetArraySize(json) : stop ? 1 : 0, i = 0;
    const char **stops = calloc(count + 1, sizeof *stops);
    if (!stops) {
        cJSON_Delete(json);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu stop strings", count);
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, json)
    {
        stops[i++] = cJSON_GetStringValue(item);
        if (!stops[i - 1]) {
            free(stops);
            cJSON_Delete(json);
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "--stop: element %zu is no text", i - 1);
        }
    }
    if (!json && stop)
        stops[0] = stop;
    *ret = stops;
    *ret_count = count;
    *ret_json = json;
    return ASSAY_OK;
}
