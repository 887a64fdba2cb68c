/* What a model's files say about conversations: its chat templates and the names of its special tokens. Rules as in
 * transformers: chat_template.jinja and additional_chat_templates/NAME.jinja win over "chat_template" of
 * tokenizer_config.json (a text, or a list of named ones); a request with tools takes "tool_use" where there is one.
 * Immutable: any thread. */
#pragma once

#include "common/tokenizer/template.h"

struct assay_chat;

/* NOT_FOUND when the directory has no template; INVALID_ARGUMENT names the file that is broken. */
enum assay_status assay_chat_open(const char *dir, struct assay_chat **ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_chat_close(struct assay_chat *chat); /* NULL is fine */

struct assay_chat_request {
    const char *messages;       /* JSON: an array of objects with role and content */
    const char *tools;          /* JSON array, or NULL */
    const char *variables;      /* a JSON object of further variables, or NULL; they win over all others */
    bool add_generation_prompt; /* ends where the assistant begins */
    int64_t now_s;              /* what a template that asks for the date gets, seconds since 1970, UTC */
};

/* The prompt (malloc, NUL-terminated). Its special tokens are in the text: encode it without adding any.
 * INVALID_ARGUMENT names what is not JSON, or the template and line that cannot be rendered or refuses the messages. */
enum assay_status assay_chat_render(const struct assay_chat *chat, const struct assay_chat_request *request, char **ret,
                                    size_t *ret_len, struct assay_err *err) ASSAY_MUST_USE;
