/* Any bytes as tokenizer.model: an error with a sentence, or a tokenizer.json that the library takes. */
#include <stdlib.h>

#include "common/tokenizer/hf/assay_hf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t config[] = "{\"add_bos_token\": false}";
    char error[256] = "";
    char *json = NULL;
    size_t len = 0;
    if (assay_hf_from_sentencepiece(data, size, config, sizeof config - 1, &json, &len, error, sizeof error) != 0) {
        if (!error[0] || json)
            abort();
        return 0;
    }
    struct assay_hf *hf = NULL;
    if (assay_hf_new((const uint8_t *)json, len, &hf, error, sizeof error) == 0)
        assay_hf_free(hf);
    free(json);
    return 0;
}
