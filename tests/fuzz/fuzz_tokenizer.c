/* Any bytes as tokenizer.json; one that is accepted encodes and decodes some text, and encodes a pair within a length.
 */
#include <stdlib.h>
#include <string.h>

#include "common/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello, w\xc3\xb6rld! \xff\xf0\x9f\x98\x80 <s> 123\n";
    struct assay_tokenizer *tokenizer = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_tokenizer_parse(data, size, "fuzz", &tokenizer, &err) != ASSAY_OK) {
        if (!err.text[0] || tokenizer)
            abort();
        return 0;
    }
    int32_t *ids = NULL;
    char *back = NULL;
    size_t count = 0, len = 0;
    if (assay_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &count, &err) == ASSAY_OK &&
        assay_tokenizer_decode(tokenizer, ids, count, false, &back, &len, &err) == ASSAY_OK && strlen(back) > len)
        abort();
    free(back);
    free(ids);
    int32_t *types = NULL;
    ids = NULL;
    if (assay_tokenizer_encode_within(tokenizer, text, sizeof text - 1, text, 5, 8, &ids, &types, &count, &err) ==
            ASSAY_OK &&
        (!ids || !types || count > 8))
        abort();
    free(types);
    free(ids);
    assay_tokenizer_close(tokenizer);
    return 0;
}
