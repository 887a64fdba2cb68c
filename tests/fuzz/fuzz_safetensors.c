/* Any bytes as a safetensors file: what is accepted lies within the bytes, end to end. */
#include <stdlib.h>
#include <string.h>

#include "common/formats/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct assay_safetensors *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_safetensors_parse(data, size, "fuzz", &file, &err) != ASSAY_OK) {
        if (!err.text[0] || file)
            abort();
        return 0;
    }
    const uint8_t *at = NULL;
    volatile unsigned sum = 0; /* every byte is read */
    for (size_t i = 0; i < assay_safetensors_count(file); i++) {
        const struct assay_tensor *tensor = assay_safetensors_at(file, i);
        const uint8_t *bytes = tensor->data;
        if (bytes < data || bytes + tensor->bytes > data + size || (at && bytes != at))
            abort();
        if (assay_tensor_elements(tensor) * assay_dtype_bytes(tensor->dtype) != tensor->bytes)
            abort();
        if (assay_safetensors_find(file, tensor->name) != tensor)
            abort();
        for (size_t j = 0; j < tensor->bytes; j++)
            sum = sum + bytes[j];
        at = bytes + tensor->bytes;
    }
    if (at && at != data + size)
        abort();
    assay_safetensors_metadata(file, "format");
    assay_safetensors_close(file);
    return 0;
}
