/* A directory made of the input: config.json, index and one shard, each behind a line "---". */
#include <stdlib.h>

#include "common/formats/checkpoint.h"
#include "tests/fuzz/directory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "model.safetensors.index.json", "one.safetensors"};
    const char *dir = fuzz_directory_fill(names, ASSAY_COUNT(names), data, size);
    struct assay_checkpoint *checkpoint = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_checkpoint_open(dir, &checkpoint, &err) != ASSAY_OK) {
        if (!err.text[0] || checkpoint)
            abort();
        return 0;
    }
    for (size_t i = 0; i < assay_checkpoint_count(checkpoint); i++) {
        const struct assay_tensor *tensor = assay_checkpoint_at(checkpoint, i);
        if (assay_checkpoint_find(checkpoint, tensor->name) != tensor)
            abort();
    }
    assay_checkpoint_close(checkpoint);
    struct assay_model_id id;
    if (assay_checkpoint_id(dir, NULL, NULL, &id, &err) != ASSAY_OK)
        abort();
    return 0;
}
