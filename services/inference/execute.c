#include "services/inference/execute.h"

#include "common/base/clock.h"

enum assay_status assay_execute(struct assay_models *models, const struct assay_model *model, struct assay_pool *pool,
                                const struct assay_sequence *sequences, size_t count, uint64_t *ret_compute_us,
                                struct assay_err *err)
{
    assay_models_begin_pass(models);
    int64_t started_us = assay_now_us();
    enum assay_status status = assay_model_forward(model, pool, sequences, count, NULL, err);
    *ret_compute_us = (uint64_t)(assay_now_us() - started_us);
    assay_models_end_pass(models);
    return status;
}

size_t assay_batch_length(const uint32_t *tokens, size_t count, size_t tokens_max)
{
    size_t length = 0, sum = 0;
    while (length < count && (length == 0 || sum + tokens[length] <= tokens_max))
        sum += tokens[length++];
    return length;
}
