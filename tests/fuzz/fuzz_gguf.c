/* Any bytes as a GGUF file: what is accepted lies within the bytes, decodes, and can be asked for its model. */
#include <stdlib.h>
#include <string.h>

#include "common/formats/gguf_model.h"
#include "common/formats/gguf_tokenizer.h"
#include "common/formats/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const struct assay_gguf_tensor *tensor, const uint8_t *data, size_t size)
{
    const uint8_t *bytes = tensor->data;
    float values[256];
    volatile float sum = 0;
    if (bytes < data || bytes > data + size || tensor->bytes > (size_t)(data + size - bytes))
        abort();
    for (uint64_t at = 0; at < tensor->elements; at += ASSAY_COUNT(values)) {
        size_t n = (size_t)ASSAY_MIN(tensor->elements - at, (uint64_t)ASSAY_COUNT(values));
        assay_gguf_to_f32(tensor, at, n, values);
        sum = sum + values[n - 1];
    }
}

/* What is written is JSON, whatever the texts. */
static void check_json(const struct assay_buf *text)
{
    cJSON *json = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_json_parse(text->data, text->len, "written", &json, &err) != ASSAY_OK)
        abort();
    cJSON_Delete(json);
}

/* Every row of every part, as an import reads them twice. */
static void read_rows(const struct assay_gguf_model *model)
{
    volatile float sum = 0;
    for (size_t i = 0; i < model->parts_count; i++) {
        const struct assay_gguf_part *part = &model->parts[i];
        bool filled = false;
        float *scratch = malloc((assay_gguf_part_scratch(part) + 1) * sizeof *scratch);
        float *row = malloc(part->columns * sizeof *row);
        if (!scratch || !row)
            abort();
        for (uint64_t j = 0; j < part->rows; j++) {
            assay_gguf_part_rows(part, j, 1, scratch, &filled, row);
            sum = sum + row[part->columns - 1];
        }
        free(scratch);
        free(row);
    }
}

static void ask(const struct assay_gguf *file)
{
    const char *name = NULL;
    assay_auto(assay_buf_release) struct assay_buf text = ASSAY_BUF_INIT, config = ASSAY_BUF_INIT,
                                                   tokenizer_config = ASSAY_BUF_INIT;
    struct assay_gguf_model model = {0};
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_gguf_model_read(file, &model, &err) != ASSAY_OK) {
        if (!err.text[0])
            abort();
    } else {
        if (assay_gguf_config(file, &model, "float32", &config, &err) == ASSAY_OK)
            check_json(&config);
        read_rows(&model);
        assay_gguf_model_release(&model);
    }
    if (assay_gguf_tokenizer(file, 1000, &name, &text, &tokenizer_config, &err) == ASSAY_OK) {
        if (strcmp(name, "tokenizer.json") == 0)
            check_json(&text);
        check_json(&tokenizer_config);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct assay_gguf *file = NULL;
    struct assay_err err = ASSAY_ERR_INIT;
    if (assay_gguf_parse(data, size, "fuzz", &file, &err) != ASSAY_OK) {
        if (!err.text[0] || file)
            abort();
        return 0;
    }
    for (size_t i = 0; i < assay_gguf_count(file); i++)
        decode(assay_gguf_at(file, i), data, size);
    ask(file);
    assay_gguf_close(file);
    return 0;
}
