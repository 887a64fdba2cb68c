/* fp32: the checkpoint itself. Weights keep their stored dtype; whoever runs them widens them to f32, exactly. */
#include "services/quantizer/method.h"

static enum assay_status link_all(struct assay_making *making, struct assay_err *err)
{
    size_t tensors = assay_checkpoint_count(making->source);
    making->manifest->kept_bytes = making->manifest->source_bytes;
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < making->source_files_count && status == ASSAY_OK; i++)
        status = assay_making_link(making, making->source_files[i], err);
    if (status == ASSAY_OK)
        status = assay_making_add_companions(making, true, err);
    return status == ASSAY_OK ? assay_making_step(making, tensors, tensors, err) : status;
}

const struct assay_method assay_method_fp32 = {
    .scheme = ASSAY_SCHEME_FP32,
    .make = link_all,
};
