/* What a Generate call asks for. */
#pragma once

#include "common/corpus/chat.h"
#include "common/nn/responder.h"
#include "proto/respond.pb-c.h"

/* Bytes of prompt, messages, tools and variables together. */
#define ASSAY_GENERATE_TEXT_BYTES_MAX (1u << 20)
#define ASSAY_GENERATE_STOPS_MAX 16
#define ASSAY_GENERATE_STOP_BYTES_MAX 256
#define ASSAY_GENERATE_TOKENS_DEFAULT 128

/* Everything that can be said without the model; `tokens_max` is the ceiling of prompt and response together. Cheap.
 * Errors as in proto/respond.proto. */
enum assay_status assay_generate_check(const Assay__V1__GenerateRequest *request, size_t tokens_max,
                                       struct assay_err *err) ASSAY_MUST_USE;

/* Options of a request that was checked, in *ret; prompt and callbacks are left to the caller. Points into the message.
 */
void assay_generate_options(const Assay__V1__GenerateRequest *request, struct assay_request *ret);

/* The prompt's ids (malloc), at least one and with the response at most tokens_max (RESOURCE_EXHAUSTED). `chat` is NULL
 * unless the request has messages. */
enum assay_status assay_generate_prompt(const Assay__V1__GenerateRequest *request,
                                        const struct assay_tokenizer *tokenizer, const struct assay_chat *chat,
                                        size_t tokens_max, int32_t **ret, size_t *ret_tokens,
                                        struct assay_err *err) ASSAY_MUST_USE;
