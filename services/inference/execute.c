#include "services/inference/execute.h"

#include <stdlib.h>

#include "common/base/clock.h"

struct assay_executor {
    struct assay_pool *pool;
    struct assay_model *model; /* NULL: none is loaded */
    struct assay_variant_id variant;
};

struct assay_executor *assay_executor_new(struct assay_pool *pool)
{
    struct assay_executor *executor = calloc(1, sizeof *executor);
    if (executor)
        executor->pool = pool;
    return executor;
}

void assay_executor_free(struct assay_executor *executor)
{
    if (!executor)
        return;
    assay_model_free(executor->model);
    free(executor);
}

const struct assay_variant_id *assay_executor_loaded(const struct assay_executor *executor)
{
    return executor->model ? &executor->variant : NULL;
}

enum assay_status assay_executor_load(struct assay_executor *executor, const struct assay_variant_id *variant,
                                      const char *artifact_dir, bool *ret_was_loaded, struct assay_err *err)
{
    bool is_there = executor->model && assay_digest_equal(&executor->variant.digest, &variant->digest);
    if (!is_there) {
        struct assay_checkpoint *checkpoint = NULL;
        assay_model_free(assay_steal(&executor->model));
        enum assay_status status = assay_checkpoint_open(artifact_dir, &checkpoint, err);
        if (status == ASSAY_OK)
            status = assay_model_load(checkpoint, executor->pool, &executor->model, err);
        assay_checkpoint_close(checkpoint);
        if (status == ASSAY_OK)
            status = assay_model_check_rows(executor->model, executor->pool, err);
        if (status != ASSAY_OK) {
            assay_model_free(assay_steal(&executor->model));
            return status;
        }
        executor->variant = *variant;
    }
    *ret_was_loaded = is_there;
    return ASSAY_OK;
}

size_t assay_executor_width(const struct assay_executor *executor)
{
    return assay_model_config(executor->model)->hidden;
}

enum assay_status assay_executor_run(struct assay_executor *executor, const struct assay_sequence *sequences,
                                     size_t count, uint64_t *ret_compute_us, struct assay_err *err)
{
    int64_t started_us = assay_now_us();
    enum assay_status status = assay_model_forward(executor->model, executor->pool, sequences, count, NULL, err);
    if (status == ASSAY_OK)
        *ret_compute_us = (uint64_t)(assay_now_us() - started_us);
    return status;
}

size_t assay_batch_length(const uint32_t *tokens, size_t count, size_t tokens_max)
{
    size_t length = 0, sum = 0;
    while (length < count && (length == 0 || sum + tokens[length] <= tokens_max))
        sum += tokens[length++];
    return length;
}
