/* assay generate: responses to prompts, by one model or by several schemes of it side by side. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/generate_prompts.h"
#include "cli/generate_remote.h"
#include "cli/interrupt.h"
#include "cli/say.h"
#include "common/artifact/job.h"
#include "common/base/exit_code.h"
#include "common/base/fs.h"
#include "common/formats/json.h"
#include "common/nn/responder.h"

#define NAME "generate"
#define SIDES_MAX 16

/* One response, kept until all are there. */
struct answer {
    struct run *run;
    size_t index;
    struct assay_response response;
    int32_t *ids;
    double *logprobs;
    char *text;
    struct assay_err err;
};

struct run {
    const struct assay_generate_options *options;
    struct assay_pool *pool;
    struct assay_prompts prompts;
    struct answer *answers; /* [prompts] of the side under way */
    bool streams;           /* print the text as it comes */
    cJSON *json;            /* list of sides, or NULL */
    bool failed;
    struct assay_err *err;
};

static bool on_text(void *arg, const char *text, size_t len, const struct assay_choice *choice)
{
    (void)choice;
    struct answer *answer = arg;
    if (answer->run->streams) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
    return !assay_interrupt_wait(0);
}

static void on_end(void *arg, const struct assay_response *response)
{
    struct answer *answer = arg;
    answer->response = *response;
    answer->ids = malloc((response->tokens + 1) * sizeof *answer->ids);
    answer->logprobs = malloc((response->tokens + 1) * sizeof *answer->logprobs);
    answer->text = strndup(response->text, response->text_len);
    if (response->err)
        answer->err = *response->err;
    if (!answer->ids || !answer->logprobs || !answer->text) {
        assay_err_set(&answer->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a response");
        return;
    }
    memcpy(answer->ids, response->ids, response->tokens * sizeof *answer->ids);
    memcpy(answer->logprobs, response->logprobs, response->tokens * sizeof *answer->logprobs);
}

static const char *finish_name(const struct assay_response *response)
{
    switch (response->finish) {
    case ASSAY_FINISH_EOS:
        return "eos";
    case ASSAY_FINISH_LENGTH:
        return "length";
    case ASSAY_FINISH_STOPPED:
        return response->cancelled ? "cancelled" : "stop";
    case ASSAY_FINISH_FAILED:
        break;
    }
    return "failed";
}

static cJSON *answer_json(const struct answer *answer)
{
    cJSON *row = cJSON_CreateObject(), *ids = cJSON_CreateIntArray(answer->ids, (int)answer->response.tokens);
    cJSON *logprobs = cJSON_CreateDoubleArray(answer->logprobs, (int)answer->response.tokens);
    cJSON_AddStringToObject(row, "text", answer->text);
    cJSON_AddStringToObject(row, "finish", finish_name(&answer->response));
    cJSON_AddItemToObject(row, "ids", ids);
    cJSON_AddItemToObject(row, "logprobs", logprobs);
    cJSON_AddNumberToObject(row, "first_token_seconds", answer->response.first_token_s);
    cJSON_AddNumberToObject(row, "seconds", answer->response.total_s);
    return row;
}

static enum assay_status add_all(struct run *run, struct assay_responder *responder, const char *const *stops,
                                 size_t stops_count)
{
    for (size_t i = 0; i < run->prompts.count; i++) {
        run->answers[i] = (struct answer){.run = run, .index = i};
        struct assay_request request = {
            .prompt = run->prompts.at[i].ids,
            .prompt_tokens = run->prompts.at[i].tokens,
            .tokens_max = (size_t)run->options->tokens_max,
            .sampling = assay_generate_sampling(run->options),
            .stops = stops,
            .stops_count = stops_count,
            .ignore_eos = run->options->ignore_eos,
            .on_text = on_text,
            .on_end = on_end,
            .arg = &run->answers[i],
        };
        request.sampling.seed += i;
        enum assay_status status = assay_responder_add(responder, &request, run->err);
        if (status != ASSAY_OK)
            return status;
    }
    return ASSAY_OK;
}

/* The first failure of a response, if any. */
static enum assay_status first_failure(const struct run *run)
{
    for (size_t i = 0; i < run->prompts.count; i++)
        if (run->answers[i].err.status != ASSAY_OK) {
            *run->err = run->answers[i].err;
            return run->err->status;
        }
    return ASSAY_OK;
}

static void print_answers(struct run *run, const char *title)
{
    if (run->json) {
        cJSON *side = cJSON_CreateObject(), *rows = cJSON_CreateArray();
        cJSON_AddStringToObject(side, "model", title);
        for (size_t i = 0; i < run->prompts.count; i++)
            cJSON_AddItemToArray(rows, answer_json(&run->answers[i]));
        cJSON_AddItemToObject(side, "responses", rows);
        cJSON_AddItemToArray(run->json, side);
        return;
    }
    if (run->streams) {
        putchar('\n');
        return;
    }
    for (size_t i = 0; i < run->prompts.count; i++) {
        if (run->options->side_by_side || run->prompts.count > 1)
            printf("=== %s, prompt %zu ===\n", title, i + 1);
        printf("%s\n", run->answers[i].text);
    }
}

static void release_answers(struct run *run)
{
    for (size_t i = 0; i < run->prompts.count; i++) {
        free(run->answers[i].ids);
        free(run->answers[i].logprobs);
        free(run->answers[i].text);
        run->answers[i] = (struct answer){0};
    }
}

static enum assay_status answer_with(struct run *run, struct assay_responder *responder, const char *title)
{
    const char **stops = NULL;
    size_t stops_count = 0;
    void *json = NULL;
    enum assay_status status = assay_stops_read(run->options->stop, &stops, &stops_count, &json, run->err);
    if (status != ASSAY_OK)
        return status;
    if (!run->prompts.at)
        status = assay_prompts_read(run->options, assay_responder_tokenizer(responder), &run->prompts, run->err);
    if (status == ASSAY_OK && !run->answers && !(run->answers = calloc(run->prompts.count, sizeof *run->answers)))
        status = assay_err_set(run->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for %zu prompts", run->prompts.count);
    run->streams = !run->json && !run->options->side_by_side && run->prompts.count == 1;
    if (status == ASSAY_OK)
        status = add_all(run, responder, stops, stops_count);
    while (status == ASSAY_OK && assay_responder_step(responder))
        ;
    if (status == ASSAY_OK)
        status = first_failure(run);
    if (status == ASSAY_OK)
        print_answers(run, title);
    if (run->answers)
        release_answers(run);
    free(stops);
    cJSON_Delete(json);
    return status;
}

static enum assay_status answer_from(struct run *run, const char *dir, const char *title)
{
    enum assay_dtype kv = ASSAY_F32;
    struct assay_responder *responder = NULL;
    enum assay_status status = assay_generate_read_kv(run->options->kv, &kv, run->err);
    if (status == ASSAY_OK)
        status = assay_responder_open(dir, run->pool, (size_t)run->options->batch, kv, &responder, run->err);
    if (status == ASSAY_OK)
        status = answer_with(run, responder, title);
    assay_responder_close(responder);
    return status;
}

static bool is_interrupted(void *arg)
{
    (void)arg;
    return assay_interrupt_wait(0);
}

/* Makes the artifact of one scheme in `scratch`, answers with it, and removes it. */
static enum assay_status answer_by_scheme(struct run *run, const char *scratch, const char *model, const char *text)
{
    struct assay_spec spec;
    char path[ASSAY_PATH_MAX], canonical[ASSAY_SPEC_TEXT_MAX];
    struct assay_manifest manifest = ASSAY_MANIFEST_INIT;
    enum assay_status status = assay_spec_parse(text, &spec, run->err);
    if (status == ASSAY_OK)
        status = assay_path_join(path, scratch, "side", run->err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_quantize_job job = {
        .artifacts_dir = scratch,
        .wanted_dir = path,
        .model_dir = model,
        .spec = spec,
        .pool = run->pool,
        .cancelled = is_interrupted,
    };
    status = assay_quantize_to(&job, &manifest, run->err);
    assay_manifest_release(&manifest);
    if (status == ASSAY_OK)
        status = answer_from(run, path, assay_spec_format(&spec, canonical));
    struct assay_err unused = ASSAY_ERR_INIT;
    enum assay_status removed = assay_remove_tree(path, status == ASSAY_OK ? run->err : &unused);
    return status == ASSAY_OK ? removed : status;
}

static enum assay_status answer_side_by_side(struct run *run)
{
    char model[ASSAY_PATH_MAX], scratch[] = "/tmp/assay-generate-XXXXXX";
    assay_auto(assay_free_ptr) char *specs = strdup(run->options->side_by_side);
    if (!specs)
        return assay_err_set(run->err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    if (!realpath(run->options->model, model))
        return assay_err_errno(run->err, errno, "cannot open the checkpoint %.200s", run->options->model);
    if (!mkdtemp(scratch))
        return assay_err_errno(run->err, errno, "cannot make a directory under /tmp");
    enum assay_status status = ASSAY_OK;
    size_t sides = 0;
    char *rest = specs;
    for (char *text; status == ASSAY_OK && (text = strsep(&rest, ","));) {
        if (++sides > SIDES_MAX)
            status = assay_err_set(run->err, ASSAY_INVALID_ARGUMENT, "more than %d schemes side by side", SIDES_MAX);
        else
            status = answer_by_scheme(run, scratch, model, text);
    }
    rmdir(scratch);
    return status;
}

static enum assay_status generate(const struct assay_generate_options *options, struct assay_err *err)
{
    struct run run = {.options = options, .err = err};
    enum assay_status status = assay_pool_new((size_t)options->threads, options->cpus, &run.pool, err);
    if (status == ASSAY_OK && options->json && !(run.json = cJSON_CreateArray()))
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory");
    if (status == ASSAY_OK)
        status = options->side_by_side ? answer_side_by_side(&run) : answer_from(&run, options->model, options->model);
    char *text = status == ASSAY_OK && run.json ? cJSON_Print(run.json) : NULL;
    if (text)
        puts(text);
    else if (status == ASSAY_OK && run.json)
        status = assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for the result");
    if (status == ASSAY_OK && (fflush(stdout) != 0 || ferror(stdout)))
        status = assay_err_errno(err, errno, "cannot write the result");
    if (status == ASSAY_OK && assay_interrupt_wait(0))
        status = assay_err_set(err, ASSAY_CANCELLED, "interrupted");
    free(text);
    cJSON_Delete(run.json);
    free(run.answers);
    assay_prompts_release(&run.prompts);
    assay_pool_free(run.pool);
    return status;
}

int assay_command_generate(int argc, char **argv)
{
    struct assay_generate_options options;
    struct assay_err err = ASSAY_ERR_INIT;
    int exit_code;
    if (!assay_generate_parse(argc, argv, &options, &exit_code))
        return exit_code;
    assay_interrupt_prepare();
    enum assay_status status =
        assay_respond_is_remote(&options.where) ? assay_generate_remote(&options, &err) : generate(&options, &err);
    return status == ASSAY_OK ? ASSAY_EXIT_PASS : assay_say_failure(NAME, &err);
}
