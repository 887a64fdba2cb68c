#include "cli/import_gguf.h"

#include <stdio.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "common/formats/checkpoint.h"
#include "common/nn/model.h"
#include "common/tokenizer/tokenizer.h"

static bool show_progress(void *arg, size_t done, size_t total)
{
    (void)arg;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rtensors %zu of %zu%s", done, total, done == total ? "\n" : "");
    return !assay_interrupt_wait(0);
}

static void close_tokenizer(struct assay_tokenizer **tokenizer)
{
    assay_tokenizer_close(*tokenizer);
}

static void close_checkpoint(struct assay_checkpoint **checkpoint)
{
    assay_checkpoint_close(*checkpoint);
}

/* A vocabulary can be well-formed and yet none that the tokenizer takes. */
static enum assay_status check(const char *dir, struct assay_err *err)
{
    assay_auto(close_checkpoint) struct assay_checkpoint *checkpoint = NULL;
    assay_auto(close_tokenizer) struct assay_tokenizer *tokenizer = NULL;
    struct assay_model_config config;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK)
        status = assay_model_config_read(assay_checkpoint_config(checkpoint), "config.json", &config, err);
    return status == ASSAY_OK ? assay_tokenizer_open(dir, &tokenizer, err) : status;
}

enum assay_status assay_import_gguf(const char *file, const char *dir, struct assay_gguf_summary *ret,
                                    struct assay_err *err)
{
    struct assay_gguf *gguf = NULL;
    enum assay_status status = assay_gguf_open(file, &gguf, err);
    if (status != ASSAY_OK)
        return status;
    status = assay_gguf_import(gguf, dir, show_progress, NULL, ret, err);
    assay_gguf_close(gguf);
    if (status == ASSAY_OK && (status = check(dir, err)) != ASSAY_OK)
        assay_err_prefix(err, "%s, as imported", file);
    return status;
}

void assay_import_print(const char *dir, const struct assay_gguf_summary *summary)
{
    printf("%s: %zu tensors, %.1f MB in the GGUF file, %.1f MB here (%zu F32, %zu F16, %zu BF16: no value changed)\n",
           dir, summary->tensors, (double)summary->source_bytes / 1e6, (double)summary->bytes / 1e6, summary->f32,
           summary->f16, summary->bf16);
}

void assay_import_json(cJSON *object, const struct assay_gguf_summary *summary)
{
    cJSON_AddNumberToObject(object, "tensors", (double)summary->tensors);
    cJSON_AddNumberToObject(object, "tensors_f32", (double)summary->f32);
    cJSON_AddNumberToObject(object, "tensors_f16", (double)summary->f16);
    cJSON_AddNumberToObject(object, "tensors_bf16", (double)summary->bf16);
    cJSON_AddNumberToObject(object, "source_bytes", (double)summary->source_bytes);
    cJSON_AddNumberToObject(object, "bytes", (double)summary->bytes);
}
