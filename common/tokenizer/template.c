#include "common/tokenizer/template.h"

#include <stdlib.h>
#include <string.h>

#include "common/tokenizer/hf/assay_hf.h"

#define ERROR_BYTES 384

struct assay_template {
    struct assay_hf_chat *chat;
    char *what;
};

enum assay_status assay_template_parse(const char *source, size_t len, const char *what, struct assay_template **ret,
                                       struct assay_err *err)
{
    char error[ERROR_BYTES];
    struct assay_template *template = calloc(1, sizeof *template);
    char *name = strdup(what);
    if (!template || !name) {
        free(template);
        free(name);
        return assay_err_set(err, ASSAY_RESOURCE_EXHAUSTED, "%s: out of memory", what);
    }
    template->what = name;
    if (assay_hf_chat_new((const uint8_t *)source, len, &template->chat, error, sizeof error) != 0) {
        assay_template_free(template);
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s is not a chat template we can render: %s", what, error);
    }
    *ret = template;
    return ASSAY_OK;
}

void assay_template_free(struct assay_template *template)
{
    if (!template)
        return;
    assay_hf_chat_free(template->chat);
    free(template->what);
    free(template);
}

enum assay_status assay_template_render(const struct assay_template *template, const char *variables, size_t len,
                                        int64_t now_s, char **ret, size_t *ret_len, struct assay_err *err)
{
    char error[ERROR_BYTES];
    if (assay_hf_chat_render(template->chat, (const uint8_t *)variables, len, now_s, ret, ret_len, error,
                             sizeof error) != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "%s: %s", template->what, error);
    return ASSAY_OK;
}
