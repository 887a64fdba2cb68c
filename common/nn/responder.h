/* A model that answers texts: its generator, its tokenizer, and where its files say that a response ends. */
#pragma once

#include "common/nn/generator.h"
#include "common/tokenizer/tokenizer.h"

struct assay_responder;

/* Loads a checkpoint or an artifact. EOS is what generation_config.json says, else config.json. `responses_max` and
 * `kv` as in generator.h. Errors name the file. The pool outlives it. */
enum assay_status assay_responder_open(const char *dir, struct assay_pool *pool, size_t responses_max,
                                       enum assay_dtype kv, struct assay_responder **ret,
                                       struct assay_err *err) ASSAY_MUST_USE;
/* The same over the model and the head of `dir` that somebody else has loaded, on this pool; they outlive it. */
enum assay_status assay_responder_over(const char *dir, const struct assay_model *model, const struct assay_head *head,
                                       struct assay_pool *pool, size_t responses_max, enum assay_dtype kv,
                                       struct assay_responder **ret, struct assay_err *err) ASSAY_MUST_USE;
/* assay_generator_limit_cache */
void assay_responder_limit_cache(struct assay_responder *responder, uint64_t bytes_max);
void assay_responder_close(struct assay_responder *responder); /* NULL is fine */

const struct assay_tokenizer *assay_responder_tokenizer(const struct assay_responder *responder);
/* Bytes of weights, as packed. */
size_t assay_responder_bytes(const struct assay_responder *responder);

struct assay_response {
    enum assay_finish finish;
    const struct assay_err *err; /* of ASSAY_FINISH_FAILED */
    bool cancelled;              /* on_text or is_wanted said so */
    const int32_t *ids;          /* [tokens], EOS too */
    const double *logprobs;      /* [tokens], of the model's own distribution */
    size_t tokens;
    const char *text; /* without special tokens, cut before a stop string */
    size_t text_len;
    double first_token_s, total_s; /* since the first step that worked on it */
};

struct assay_request {
    const int32_t *prompt; /* as in struct assay_generation */
    size_t prompt_tokens, tokens_max;
    struct assay_sampling sampling;
    const char *const *stops;
    size_t stops_count;
    bool ignore_eos;
    bool has_kv; /* as in struct assay_generation */
    enum assay_dtype kv;
    /* As in struct assay_generation; the response is cancelled then. May be NULL. */
    bool (*is_wanted)(void *arg);
    /* Called for each piece of text, which may be empty, with the token that made it certain. False: enough. May be
     * NULL. */
    bool (*on_text)(void *arg, const char *text, size_t len, const struct assay_choice *choice);
    /* Called once, last; the response is valid during the call. */
    void (*on_end)(void *arg, const struct assay_response *response);
    void *arg;
};

/* As assay_generator_add. */
enum assay_status assay_responder_add(struct assay_responder *responder, const struct assay_request *request,
                                      struct assay_err *err) ASSAY_MUST_USE;
/* One step for all. False when nothing is left to do. */
bool assay_responder_step(struct assay_responder *responder);
