#include <stdio.h>
#include <stdlib.h>

#include "common/formats/architecture.h"
#include "common/nn/model_impl.h"

struct assay_head {
    const struct assay_kernels *kernels;
    struct assay_panels panels;
    float *bias; /* [vocab] or NULL */
    float scale, soft_cap;
    struct assay_digest digest;
};

/* The head's rows in use. A view of the first rows is enough where the weight is plain. Without a pool: how many bytes
 * that takes, alone. */
static enum assay_status load_weight(struct assay_head *head, const struct assay_checkpoint *checkpoint,
                                     struct assay_pool *pool, const char *name, const struct assay_model_config *config,
                                     struct assay_err *err)
{
    char full[320];
    struct assay_quantization quantization;
    enum assay_status status = assay_quantization_read(assay_checkpoint_config(checkpoint),
                                                       assay_checkpoint_dir(checkpoint), &quantization, err);
    if (status != ASSAY_OK)
        return status;
    if (config->vocab_used == config->vocab && !pool)
        return assay_panels_check(checkpoint, name, config->vocab, config->hidden, false, &quantization,
                                  &head->panels.bytes, err);
    if (config->vocab_used == config->vocab)
        return assay_panels_load(checkpoint, pool, name, config->vocab, config->hidden, false, &quantization,
                                 &head->panels, err);
    const struct assay_tensor *tensor = NULL;
    snprintf(full, sizeof full, "%s.weight", name);
    status = assay_tensor_get(checkpoint, full, config->vocab, config->hidden, &tensor, err);
    if (status == ASSAY_OK && !pool)
        head->panels.bytes = assay_panels_plain_bytes(tensor->dtype, config->vocab_used, config->hidden);
    if (status != ASSAY_OK || !pool)
        return status;
    return assay_panels_pack(pool, tensor->dtype, tensor->data, NULL, config->vocab_used, config->hidden, &head->panels,
                             err);
}

/* A bias that the family does not have would be left out without a word: refused. */
static enum assay_status load_bias(struct assay_head *head, const struct assay_checkpoint *checkpoint,
                                   const struct assay_architecture *architecture,
                                   const struct assay_model_config *config, struct assay_err *err)
{
    char full[320];
    snprintf(full, sizeof full, "%s.bias", architecture->head);
    if (architecture->head_bias)
        return assay_tensor_floats(checkpoint, architecture->head, "bias", config->vocab, 0, &head->bias, err);
    if (assay_checkpoint_find(checkpoint, full))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is there, but heads of %s have no bias",
                             assay_checkpoint_dir(checkpoint), full, config->architecture);
    return ASSAY_OK;
}

static enum assay_status load(struct assay_head *head, const struct assay_checkpoint *checkpoint,
                              struct assay_pool *pool, struct assay_err *err)
{
    char what[ASSAY_PATH_MAX], name[ASSAY_HEAD_NAME_BYTES];
    struct assay_model_config config;
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(checkpoint), "config.json", err);
    if (status == ASSAY_OK)
        status = assay_model_config_read(assay_checkpoint_config(checkpoint), what, &config, err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&head->kernels, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_architecture *architecture = assay_architecture_find(config.architecture);
    struct assay_head_figures figures;
    status = assay_head_figures_read(assay_checkpoint_config(checkpoint), architecture, what, &figures, err);
    if (status != ASSAY_OK)
        return status;
    assay_head_name(architecture, checkpoint, figures.tied, name);
    status = load_weight(head, checkpoint, pool, name, &config, err);
    if (status == ASSAY_OK)
        status = load_bias(head, checkpoint, architecture, &config, err);
    head->panels.n = config.vocab_used;
    if (status != ASSAY_OK || !pool)
        return status;
    head->digest = assay_head_content_digest(architecture, checkpoint, &figures);
    char weight[ASSAY_HEAD_NAME_BYTES + 8];
    snprintf(weight, sizeof weight, "%s.weight", name);
    const struct assay_tensor *source = assay_checkpoint_find(checkpoint, weight);
    if (source) /* is packed, and need not stay in memory as it lies in the file, too */
        assay_checkpoint_forget(checkpoint, source);
    head->scale = figures.logit_scale;
    head->soft_cap = figures.soft_cap;
    return status;
}

enum assay_status assay_head_load(const struct assay_checkpoint *checkpoint, struct assay_pool *pool,
                                  struct assay_head **ret, struct assay_err *err)
{
    struct assay_head *head = calloc(1, sizeof *head);
    if (!head)
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "out of memory for a head");
    enum assay_status status = load(head, checkpoint, pool, err);
    if (status != ASSAY_OK) {
        assay_head_free(head);
        return status;
    }
    *ret = head;
    return ASSAY_OK;
}

enum assay_status assay_head_measure(const struct assay_checkpoint *checkpoint, size_t *ret_bytes,
                                     struct assay_err *err)
{
    struct assay_head head = {0};
    enum assay_status status = load(&head, checkpoint, NULL, err);
    if (status == ASSAY_OK)
        *ret_bytes = assay_head_bytes(&head);
    free(head.bias);
    return status;
}

void assay_head_free(struct assay_head *head)
{
    if (!head)
        return;
    assay_panels_release(&head->panels);
    free(head->bias);
    free(head);
}

size_t assay_head_vocab(const struct assay_head *head)
{
    return head->panels.n;
}

size_t assay_head_hidden(const struct assay_head *head)
{
    return head->panels.k;
}

struct assay_digest assay_head_digest(const struct assay_head *head)
{
    return head->digest;
}

size_t assay_head_bytes(const struct assay_head *head)
{
    return head->panels.bytes + (head->bias ? head->panels.n * sizeof *head->bias : 0);
}

struct assay_head_parts assay_head_parts(const struct assay_head *head)
{
    return (struct assay_head_parts){&head->panels, head->bias, head->scale, head->soft_cap};
}

void assay_head_finish(const struct assay_head *head, size_t count, float *logits)
{
    if (head->soft_cap > 0)
        head->kernels->vector->soft_cap(count, head->scale, head->soft_cap, logits);
    else if (head->scale != 1)
        head->kernels->vector->scale(count, head->scale, logits);
}

struct finishing {
    const struct assay_head *head;
    float *logits;
};

static void finish_row(void *arg, size_t row, size_t thread)
{
    (void)thread;
    const struct finishing *finishing = arg;
    size_t vocab = finishing->head->panels.n;
    assay_head_finish(finishing->head, vocab, finishing->logits + row * vocab);
}

void assay_head_logits(const struct assay_head *head, struct assay_pool *pool, const float *hidden, size_t rows,
                       float *logits)
{
    struct finishing finishing = {head, logits};
    assay_gemm(head->kernels, pool, rows, hidden, head->panels.k, &head->panels, head->bias, logits, head->panels.n);
    if (head->soft_cap > 0 || head->scale != 1)
        assay_pool_run(pool, rows, finish_row, &finishing);
}

void assay_head_logits_part(const struct assay_head *head, const float *hidden, size_t rows, size_t first, size_t count,
                            float *logits, size_t ld)
{
    assay_gemm_columns(head->kernels, rows, hidden, head->panels.k, &head->panels, head->bias, first, count, logits,
                       ld);
    for (size_t row = 0; row < rows; row++)
        assay_head_finish(head, count, logits + row * ld);
}
