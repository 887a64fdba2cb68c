/* int4: compressed-tensors "pack-quantized", asymmetric by group or by row, weights only. */
#include <stdio.h>

#include "common/artifact/method.h"
#include "common/quant/int4.h"

enum { SHAPE, SCALES, CODES, ZEROS, PARTS };

static struct assay_int4_shape shape_of(const struct assay_spec *spec, size_t rows, size_t cols)
{
    return (struct assay_int4_shape){rows, cols, spec->group_size == ASSAY_GROUP_CHANNEL ? cols : spec->group_size};
}

static void resolve(struct assay_spec *spec, const size_t *cols, size_t count)
{
    if (spec->group_size == 0)
        spec->group_size = assay_int4_group_size(cols, count);
}

static enum assay_status plan(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err)
{
    const struct assay_int4_shape shape = shape_of(spec, rows, cols);
    size_t groups = assay_int4_groups(&shape), zero_rows = assay_int4_zero_words(&shape) / groups;
    if (cols % shape.group != 0)
        return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "rows of %zu do not divide into groups of %zu", cols,
                             shape.group);
    parts[SHAPE] = (struct assay_part){".weight_shape", ASSAY_I64, 1, {2}, ASSAY_PART_SCALES};
    parts[SCALES] = (struct assay_part){".weight_scale", ASSAY_F32, 2, {rows, groups}, ASSAY_PART_SCALES};
    parts[CODES] =
        (struct assay_part){".weight_packed", ASSAY_I32, 2, {rows, assay_int4_words(&shape)}, ASSAY_PART_CODES};
    parts[ZEROS] = (struct assay_part){".weight_zero_point", ASSAY_I32, 2, {zero_rows, groups}, ASSAY_PART_SCALES};
    *ret_count = PARTS;
    return ASSAY_OK;
}

/* The parts of a block of rows, which begins at a whole word of zero points. */
struct block {
    struct assay_int4_shape shape;
    uint32_t *codes, *zeros;
    float *scales;
};

static struct block block_of(const struct assay_spec *spec, const struct assay_rows *rows)
{
    struct block block = {.shape = shape_of(spec, rows->end - rows->begin, rows->cols)};
    size_t groups = assay_int4_groups(&block.shape);
    block.codes = (uint32_t *)rows->parts[CODES] + rows->begin * assay_int4_words(&block.shape);
    block.scales = (float *)rows->parts[SCALES] + rows->begin * groups;
    block.zeros = (uint32_t *)rows->parts[ZEROS] + rows->begin / 8 * groups;
    return block;
}

static enum assay_status encode(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err)
{
    struct block block = block_of(spec, rows);
    return rows->ops->int4_encode(weights, &block.shape, block.codes, block.scales, block.zeros, err);
}

static void finish(const struct assay_spec *spec, const struct assay_rows *rows)
{
    (void)spec;
    int64_t *shape = rows->parts[SHAPE];
    shape[0] = (int64_t)rows->end;
    shape[1] = (int64_t)rows->cols;
}

static void decode(const struct assay_spec *spec, const struct assay_rows *rows, float *weights)
{
    struct block block = block_of(spec, rows);
    rows->ops->int4_decode(block.codes, block.scales, block.zeros, &block.shape, weights);
}

/* As compressed-tensors writes it: readers there expect every key. "dequantize" is for transformers: without it the
 * skeleton of its model has zero points that are not packed (docs/NUMERICS.md), and plain loading fails. */
static cJSON *config(const struct assay_spec *spec)
{
    bool by_row = spec->group_size == ASSAY_GROUP_CHANNEL;
    char group_size[16] = "null", text[1024];
    if (!by_row)
        snprintf(group_size, sizeof group_size, "%u", (unsigned)spec->group_size);
    snprintf(text, sizeof text,
             "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"dequantize\": true,"
             " \"quantization_status\": \"compressed\", \"global_compression_ratio\": null,"
             " \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 4,"
             " \"type\": \"int\", \"symmetric\": false, \"strategy\": \"%s\", \"group_size\": %s,"
             " \"block_structure\": null, \"dynamic\": false, \"actorder\": null, \"observer\": \"minmax\"},"
             " \"input_activations\": null, \"output_activations\": null, \"format\": \"pack-quantized\"}},"
             " \"ignore\": [\"lm_head\"], \"kv_cache_scheme\": null}",
             by_row ? "channel" : "group", group_size);
    return cJSON_Parse(text);
}

const struct assay_method assay_method_int4 = {
    .scheme = ASSAY_SCHEME_INT4,
    .resolve = resolve,
    .plan = plan,
    .encode = encode,
    .finish = finish,
    .decode = decode,
    .config = config,
    .dtype = "float32",
};
