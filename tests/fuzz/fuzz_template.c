/* Any bytes as a chat template: refused with a sentence, or rendered to a text that ends where it says. */
#include <stdlib.h>
#include <string.h>

#include "common/tokenizer/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char variables[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"h\xc3\xa9\\n\"}], \"tools\": null, \"bos_token\": \"<s>\","
        " \"add_generation_prompt\": true, \"x\": [1, 2.5, {\"a\": null}]}";
    struct assay_template *template = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_template_parse((const char *)data, size, "fuzz", &template, &err) != ASSAY_OK) {
        if (!err.text[0] || template)
            abort();
        return 0;
    }
    char *text = NULL;
    size_t len = 0;
    if (assay_template_render(template, variables, sizeof variables - 1, 0, &text, &len, &err) == ASSAY_OK &&
        strlen(text) > len)
        abort();
    free(text);
    assay_template_free(template);
    return 0;
}
