#include "cli/load.h"

enum assay_status assay_load(const char *dir, struct assay_pool *pool, struct assay_model **ret_model,
                             struct assay_head **ret_head, struct assay_err *err)
{
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_model *model = NULL;
    enum assay_status status = assay_checkpoint_open(dir, &checkpoint, err);
    if (status == ASSAY_OK && ret_model)
        status = assay_model_load(checkpoint, pool, &model, err);
    if (status == ASSAY_OK && ret_head)
        status = assay_head_load(checkpoint, pool, ret_head, err);
    assay_checkpoint_close(checkpoint);
    if (status == ASSAY_OK && ret_model)
        *ret_model = model;
    else
        assay_model_free(model);
    return status;
}
