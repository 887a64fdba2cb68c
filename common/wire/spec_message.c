#include "common/wire/spec_message.h"

#include <string.h>

#include "common/base/buf.h"

void assay_spec_message_fill(struct assay_spec_message *message, const char *canonical)
{
    char *rest = NULL;
    assay__v1__variant_spec__init(&message->spec);
    if (strlen(canonical) >= sizeof message->text)
        ASSAY_BUG("a canonical spec has a bounded length");
    strcpy(message->text, canonical);
    message->spec.scheme = strtok_r(message->text, ":", &rest);
    message->spec.parameters = message->list;
    for (char *part = strtok_r(NULL, ":", &rest); part; part = strtok_r(NULL, ":", &rest)) {
        char *equals = strchr(part, '=');
        if (!equals || message->spec.n_parameters == ASSAY_SPEC_PARAMETERS_MAX)
            ASSAY_BUG("a canonical spec is scheme[:key=value]*");
        *equals = '\0';
        if (strcmp(part, "compute") == 0) {
            message->spec.compute = equals + 1;
            continue;
        }
        Assay__V1__Parameter *parameter = &message->parameters[message->spec.n_parameters];
        assay__v1__parameter__init(parameter);
        parameter->key = part;
        parameter->value = equals + 1;
        message->list[message->spec.n_parameters++] = parameter;
    }
}

enum assay_status assay_spec_of_message(const Assay__V1__VariantSpec *message, struct assay_spec *ret,
                                        struct assay_err *err)
{
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT;
    assay_buf_str(&text, message->scheme ? message->scheme : "");
    for (size_t i = 0; i < message->n_parameters; i++) {
        const Assay__V1__Parameter *parameter = message->parameters[i];
        assay_buf_printf(&text, ":%s=%s", parameter->key ? parameter->key : "",
                         parameter->value ? parameter->value : "");
    }
    if (message->compute && message->compute[0])
        assay_buf_printf(&text, ":compute=%s", message->compute);
    enum assay_status status = assay_buf_check(&text, err);
    return status == ASSAY_OK ? assay_spec_parse(assay_buf_cstr(&text), ret, err) : status;
}
