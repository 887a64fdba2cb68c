/* The prompts of `assay generate` as token ids. */
#pragma once

#include "cli/generate_options.h"
#include "common/tokenizer/tokenizer.h"

struct assay_prompt {
    int32_t *ids;
    size_t tokens;
};

struct assay_prompts {
    struct assay_prompt *at;
    size_t count;
};

/* Reads what the options name and encodes it with the model's tokenizer and chat template. */
enum assay_status assay_prompts_read(const struct assay_generate_options *options,
                                     const struct assay_tokenizer *tokenizer, struct assay_prompts *ret,
                                     struct assay_err *err) ASSAY_MUST_USE;
void assay_prompts_release(struct assay_prompts *prompts);

/* The same as texts, for who encodes them elsewhere. */
struct assay_conversations {
    char **at; /* [count] */
    size_t count;
    bool are_messages; /* JSON for the chat template; else plain prompts */
};

/* INVALID_ARGUMENT names a prompt that is not UTF-8 or has a NUL. */
enum assay_status assay_conversations_read(const struct assay_generate_options *options,
                                           struct assay_conversations *ret, struct assay_err *err) ASSAY_MUST_USE;
void assay_conversations_release(struct assay_conversations *conversations);

/* One stop string, or a JSON array of them. *ret and its texts live as long as *ret_json does, which
 * cJSON_Delete ends; *ret is to be freed. */
enum assay_status assay_stops_read(const char *stop, const char ***ret, size_t *ret_count, void **ret_json,
                                   struct assay_err *err) ASSAY_MUST_USE;
