/* int8: compressed-tensors "int-quantized", one scale a row, symmetric, weights only. */
#include "common/artifact/method.h"
#include "common/quant/int8.h"

enum { CODES, SCALES };

static enum assay_status plan(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err)
{
    (void)spec, (void)err;
    parts[CODES] = (struct assay_part){".weight", ASSAY_I8, 2, {rows, cols}, ASSAY_PART_CODES};
    parts[SCALES] = (struct assay_part){".weight_scale", ASSAY_F32, 2, {rows, 1}, ASSAY_PART_SCALES};
    *ret_count = 2;
    return ASSAY_OK;
}

static enum assay_status encode(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err)
{
    (void)spec;
    int8_t *codes = (int8_t *)rows->parts[CODES] + rows->begin * rows->cols;
    float *scales = (float *)rows->parts[SCALES] + rows->begin;
    return rows->ops->int8_encode(weights, rows->end - rows->begin, rows->cols, codes, scales, err);
}

static void decode(const struct assay_spec *spec, const struct assay_rows *rows, float *weights)
{
    (void)spec;
    const int8_t *codes = (const int8_t *)rows->parts[CODES] + rows->begin * rows->cols;
    const float *scales = (const float *)rows->parts[SCALES] + rows->begin;
    rows->ops->int8_decode(codes, scales, rows->end - rows->begin, rows->cols, weights);
}

/* As compressed-tensors writes it: readers there expect every key. */
static cJSON *config(const struct assay_spec *spec)
{
    (void)spec;
    return cJSON_Parse("{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\","
                       " \"quantization_status\": \"compressed\", \"global_compression_ratio\": null,"
                       " \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8,"
                       " \"type\": \"int\", \"symmetric\": true, \"strategy\": \"channel\", \"group_size\": null,"
                       " \"block_structure\": null, \"dynamic\": false, \"actorder\": null, \"observer\": \"minmax\"},"
                       " \"input_activations\": null, \"output_activations\": null, \"format\": \"int-quantized\"}},"
                       " \"ignore\": [\"lm_head\"], \"kv_cache_scheme\": null}");
}

const struct assay_method assay_method_int8 = {
    .scheme = ASSAY_SCHEME_INT8,
    .plan = plan,
    .encode = encode,
    .decode = decode,
    .config = config,
    .dtype = "float32",
};
