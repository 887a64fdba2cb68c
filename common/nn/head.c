#include <stdio.h>
#include <stdlib.h>

#include "common/nn/model_impl.h"

struct assay_head {
    const struct assay_kernels *kernels;
    struct assay_panels panels;
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

static struct assay_digest digest_head(const struct assay_checkpoint *checkpoint, const char *name)
{
    static const char *const parts[] = {
        "weight",        "weight_scale",         "weight_packed",           "weight_zero_point",
        "weight.absmax", "weight.nested_absmax", "weight.nested_quant_map", "weight.quant_state.bitsandbytes__nf4"};
    struct assay_hash hash;
    assay_hash_init(&hash, "assay.head.v1");
    for (size_t i = 0; i < ASSAY_COUNT(parts); i++) {
        char full[256];
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        const struct assay_tensor *tensor = assay_checkpoint_find(checkpoint, full);
        if (tensor)
            digest_tensor(&hash, tensor);
    }
    return assay_hash_final(&hash);
}

static enum assay_status load(struct assay_head *head, const struct assay_checkpoint *checkpoint,
                              struct assay_pool *pool, struct assay_err *err)
{
    char what[ASSAY_PATH_MAX], bias[256];
    struct assay_model_config config;
    struct assay_quantization quantization;
    enum assay_status status = assay_path_join(what, assay_checkpoint_dir(checkpoint), "config.json", err);
    if (status == ASSAY_OK)
        status = assay_model_config_read(assay_checkpoint_config(checkpoint), what, &config, err);
    if (status == ASSAY_OK)
        status = assay_quantization_read(assay_checkpoint_config(checkpoint), what, &quantization, err);
    if (status == ASSAY_OK)
        status = assay_kernels_select(&head->kernels, err);
    if (status != ASSAY_OK)
        return status;
    const struct assay_family *family = assay_family_find(config.architecture);
    snprintf(bias, sizeof bias, "%s.bias", family->head);
    if (assay_checkpoint_find(checkpoint, bias))
        return assay_err_set(err, ASSAY_UNIMPLEMENTED, "%s: a head with a bias (%s) is not implemented",
                             assay_checkpoint_dir(checkpoint), bias);
    const char *name = config.tied_head ? family->embedding : family->head;
    status = assay_panels_load(checkpoint, pool, name, config.vocab, config.hidden, &quantization, &head->panels, err);
    if (status == ASSAY_OK)
        head->digest = digest_head(checkpoint, name);
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

void assay_head_free(struct assay_head *head)
{
    if (!head)
        return;
    assay_panels_release(&head->panels);
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

void assay_head_logits(const struct assay_head *head, struct assay_pool *pool, const float *hidden, size_t rows,
                       float *logits)
{
    assay_gemm(head->kernels, pool, rows, hidden, head->panels.k, &head->panels, NULL, logits, head->panels.n);
}
