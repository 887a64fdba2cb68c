/* fp32: the checkpoint itself. Weights keep their stored dtype; whoever runs them widens them to f32, exactly. */
#include <string.h>

#include "common/artifact/method.h"

/* config.json says what is computed; a checkpoint of ours may say so already. */
static bool keeps_config(const struct assay_making *making)
{
    return making->spec.compute == ASSAY_COMPUTE_F32 &&
           !cJSON_HasObjectItem(assay_checkpoint_config(making->source), "assay");
}

static enum assay_status link_all(struct assay_making *making, struct assay_err *err)
{
    static const struct assay_config_change no_change = {0};
    size_t tensors = assay_checkpoint_count(making->source);
    making->manifest->kept_bytes = making->manifest->source_bytes;
    enum assay_status status = ASSAY_OK;
    for (size_t i = 0; i < making->source_files_count && status == ASSAY_OK; i++) {
        bool is_config = strcmp(making->source_files[i], "config.json") == 0;
        status = is_config && !keeps_config(making) ? assay_making_write_config(making, &no_change, err)
                                                    : assay_making_link(making, making->source_files[i], err);
    }
    if (status == ASSAY_OK)
        status = assay_making_add_companions(making, true, err);
    return status == ASSAY_OK ? assay_making_step(making, tensors, tensors, err) : status;
}

const struct assay_method assay_method_fp32 = {
    .scheme = ASSAY_SCHEME_FP32,
    .make = link_all,
};
