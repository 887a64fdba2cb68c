/* config.json: the sizes and options of a model, and what its quantization_config says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/artifact/stored_layouts.h"
#include "common/nn/model_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A refusal has a sentence, and an acceptance has none. */
static void want_sentence(enum assay_status status, const struct assay_err *err)
{
    if ((status == ASSAY_OK) != (err->text[0] == '\0'))
        abort();
}

static void want_sane(const struct assay_model_config *c)
{
    const size_t sizes[] = {c->hidden, c->layers, c->heads, c->kv_heads, c->head_dim, c->vocab, c->positions_max};
    for (size_t i = 0; i < ASSAY_COUNT(sizes); i++)
        if (sizes[i] == 0 || sizes[i] > UINT32_MAX)
            abort();
    if (!c->architecture || c->heads % c->kv_heads != 0 || !(c->norm_eps >= 0) || !isfinite(c->rope.theta))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *config = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_json_parse((const char *)data, size, "config.json", &config, &err) != ASSAY_OK)
        return 0;
    struct assay_model_config model;
    enum assay_status status = assay_model_config_read(config, "config.json", &model, &err);
    want_sentence(status, &err);
    if (status == ASSAY_OK)
        want_sane(&model);
    err = (struct assay_err)ASSAY_ERR_INIT;
    struct assay_quantization quantization;
    want_sentence(assay_quantization_read(config, "config.json", &quantization, &err), &err);
    const cJSON *stored = cJSON_GetObjectItemCaseSensitive(config, "quantization_config");
    for (int compressed = 0; compressed < 2; compressed++) {
        err = (struct assay_err)ASSAY_ERR_INIT;
        want_sentence(assay_stored_check_config(stored, "config.json", compressed == 1, &err), &err);
    }
    cJSON_Delete(config);
    return 0;
}
