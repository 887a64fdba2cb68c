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

static void digest_tensor(struct assay_hash *hash, const struct assay_tensor *tensor)
{
    assay_hash_str(hash, assay_dtype_name(tensor->dtype));
    assay_hash_u64(hash, tensor->rank);
    for (size_t i = 0; i < tensor->rank; i++)
        assay_hash_u64(hash, tensor->shape[i]);
    assay_hash_bytes(hash, tensor->data, tensor->bytes);
}

/* What heads of most models do not have is left out, so that their digest is that of the weight. */
static struct assay_digest digest_head(const struct assay_checkpoint *checkpoint, const char *name,
                                       const struct assay_model_config *config)
{
    static const char *const parts[] = {
        "weight",        "weight_scale",         "weight_packed",           "weight_zero_point",
        "weight.absmax", "weight.nested_absmax", "weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"};
    char bias[320];
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.head.v1");
    for (size_t i = 0; i < ASSAY_COUNT(parts); i++) {
        char full[320];
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, full);
        if (tensor)
            digest_tensor(&hash, tensor);
    }
    snprintf(bias, sizeof bias, "%s.bias", name);
    if (config->family->head_bias && assay_checkpoint_find(checkpoint, bias))
        digest_tensor(&hash, assay_checkpoint_find(checkpoint, bias));
    const struct {
        const char *name;
        float value, usual;
    } factors[] = {{"soft_cap", config->final_cap, 0}, {"logit_scale", config->logit_scale, 1}};
    for (size_t i = 0; i < ASSAY_COUNT(factors); i++) {
        if (factors[i].value == factors[i].usual)
            continue;
        assay_hash_str(&hash, factors[i].name);
        assay_hash_bytes(&hash, &factors[i].value, sizeof factors[i].value);
    }
    if (config->vocab_used != config->vocab) {
        assay_hash_str(&hash, "used_vocab");
        assay_hash_u64(&hash, config->vocab_used);
    }
    return assay_hash_final(&hash);
}

/* The head's rows in use. A view of the first rows is enough where the weight is plain. */
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
    if (config->vocab_used == config->vocab)
        return assay_panels_load(checkpoint, pool, name, config->vocab, config->hidden, false, &quantization,
                                 &head->panels, err);
    const struct assay_tensor *tensor = NULL;
    snprintf(full, sizeof full, "%s.weight", name);
    status = assay_tensor_get(checkpoint, full, config->vocab, config->hidden, &tensor, err);
    if (status != ASSAY_OK)
        return status;
    return assay_panels_pack(pool, tensor->dtype, tensor->data, NULL, config->vocab_used, config->hidden, &head->panels,
                             err);
}

/* A bias that the family does not have would be left out without a word: refused. */
static enum assay_status load_bias(struct assay_head *head, const struct assay_checkpoint *checkpoint, const char *name,
                                   const struct assay_model_config *config, struct assay_err *err)
{
    char full[320];
    snprintf(full, sizeof full, "%s.bias", name);
    if (config->family->head_bias)
        return assay_tensor_floats(checkpoint, name, "bias", config->vocab, 0, &head->bias, err);
    if (assay_checkpoint_find(checkpoint, full))
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s is there, but heads of %s have no bias",
                             assay_checkpoint_dir(checkpoint), full, config->architecture);
    return ASSAY_OK;
}

static enum assay_status load(struct assay_head *head, const struct assay_checkpoint *checkpoint,
                              struct assay_pool *pool, struct assay_err *err)
{
    char what[ASSAY_PATH_MAX], name[256];
    struct assay_model_config config;
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(checkpoint), "config.json", err);
    if (status == ASSAY_OK)
        status = assay_model_config_read(assay_checkpoint_config(checkpoint), what, &config, err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&head->kernels, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_architecture *architecture = assay_architecture_find(config.architecture);
    const char *base = assay_architecture_base(architecture, checkpoint);
    if (config.tied_head)
        snprintf(name, sizeof name, "%s%s", base, architecture->embedding);
    else
        snprintf(name, sizeof name, "%s", architecture->head);
    status = load_weight(head, checkpoint, pool, name, &config, err);
    if (status != ASSAY_OK)
        return status;
    status = load_bias(head, checkpoint, architecture->head, &config, err);
    if (status != ASSAY_OK)
        return status;
    head->scale = config.logit_scale;
    head->soft_cap = config.final_cap;
    head->digest = digest_head(checkpoint, name, &config);
    return ASSAY_OK;
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
