/* nf4: the layout that bitsandbytes serializes, blocks of 64, with or without quantized scales. */
#include <stdio.h>
#include <string.h>

#include "common/artifact/method.h"
#include "common/quant/nf4.h"

/* With quantized scales, ABSMAX is room for the plain ones; without them, their parts are empty room. */
enum { TABLE, ABSMAX, ABSMAX2, MAP, CODES, ABSMAX_CODES, STATE, PARTS };

/* Words about the tensor, in the order and with the spaces of bitsandbytes. Numbers have one length whatever their
 * value, and spaces behind make the bytes of the narrow tensors a multiple of 8: whatever follows stays aligned. */
static int state_text(char *text, size_t bytes, const struct assay_spec *spec, size_t rows, size_t cols, float offset)
{
    size_t count = rows * cols, codes = assay_nf4_bytes(count), scales = assay_nf4_blocks(count, ASSAY_NF4_BLOCK);
    int used = snprintf(text, bytes,
                        "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"dtype\": \"float32\", \"shape\": [%zu, %zu]",
                        ASSAY_NF4_BLOCK, rows, cols);
    if (spec->double_quant)
        used += snprintf(text + used, bytes - (size_t)used,
                         ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": %.16e",
                         ASSAY_NF4_NESTED_BLOCK, (double)offset);
    used += snprintf(text + used, bytes - (size_t)used, "}");
    size_t narrow = codes + (spec->double_quant ? scales : 0) + (size_t)used;
    return used + snprintf(text + used, bytes - (size_t)used, "%*s", (int)((8 - narrow % 8) % 8), "");
}

#define STATE_BYTES_MAX 256

static enum assay_status plan(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err)
{
    (void)err;
    char text[STATE_BYTES_MAX];
    size_t bytes = assay_nf4_bytes(rows * cols), blocks = assay_nf4_blocks(rows * cols, ASSAY_NF4_BLOCK);
    size_t state = (size_t)state_text(text, sizeof text, spec, rows, cols, 0.0f);
    size_t nested = assay_nf4_blocks(blocks, ASSAY_NF4_NESTED_BLOCK);
    for (size_t i = 0; i < PARTS; i++)
        parts[i] = (struct assay_part){NULL, ASSAY_U8, 1, {0}, ASSAY_PART_ROOM};
    parts[TABLE] = (struct assay_part){".weight.quant_map", ASSAY_F32, 1, {16}, ASSAY_PART_SCALES};
    parts[ABSMAX] = (struct assay_part){".weight.absmax", ASSAY_F32, 1, {blocks}, ASSAY_PART_SCALES};
    parts[CODES] = (struct assay_part){".weight", ASSAY_U8, 2, {bytes, 1}, ASSAY_PART_CODES};
    parts[STATE] =
        (struct assay_part){".weight.quant_state.bitsandbytes__nf4", ASSAY_U8, 1, {state}, ASSAY_PART_SCALES};
    *ret_count = PARTS;
    if (!spec->double_quant)
        return ASSAY_OK;
    parts[ABSMAX] = (struct assay_part){NULL, ASSAY_F32, 1, {blocks}, ASSAY_PART_ROOM};
    parts[ABSMAX2] = (struct assay_part){".weight.nested_absmax", ASSAY_F32, 1, {nested}, ASSAY_PART_SCALES};
    parts[MAP] = (struct assay_part){".weight.nested_quant_map", ASSAY_F32, 1, {256}, ASSAY_PART_SCALES};
    parts[ABSMAX_CODES] = (struct assay_part){".weight.absmax", ASSAY_U8, 1, {blocks}, ASSAY_PART_SCALES};
    return ASSAY_OK;
}

/* Blocks cross rows but not blocks of ASSAY_REWRITE_ROWS rows. */
_Static_assert(ASSAY_REWRITE_ROWS % ASSAY_NF4_BLOCK == 0, "a block of rows begins with a block of weights");

static enum assay_status encode(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err)
{
    (void)spec;
    size_t begin = rows->begin * rows->cols;
    return rows->ops->nf4_encode(weights, (rows->end - rows->begin) * rows->cols, ASSAY_NF4_BLOCK,
                                 (uint8_t *)rows->parts[CODES] + begin / 2,
                                 (float *)rows->parts[ABSMAX] + begin / ASSAY_NF4_BLOCK, err);
}

static void finish(const struct assay_spec *spec, const struct assay_rows *rows)
{
    size_t blocks = assay_nf4_blocks(rows->end * rows->cols, ASSAY_NF4_BLOCK);
    float offset = 0;
    memcpy(rows->parts[TABLE], assay_nf4_table, sizeof assay_nf4_table);
    if (spec->double_quant) {
        float *absmax = rows->parts[ABSMAX], *absmax2 = rows->parts[ABSMAX2], *map = rows->parts[MAP];
        uint8_t *codes = rows->parts[ABSMAX_CODES];
        assay_nested_map(map);
        assay_nested_encode(absmax, blocks, map, codes, absmax2, &offset);
        assay_nested_decode(codes, absmax2, blocks, ASSAY_NF4_NESTED_BLOCK, map, offset, absmax);
    }
    char text[STATE_BYTES_MAX];
    int bytes = state_text(text, sizeof text, spec, rows->end, rows->cols, offset);
    memcpy(rows->parts[STATE], text, (size_t)bytes);
}

static void decode(const struct assay_spec *spec, const struct assay_rows *rows, float *weights)
{
    (void)spec;
    size_t begin = rows->begin * rows->cols;
    rows->ops->nf4_decode((const uint8_t *)rows->parts[CODES] + begin / 2,
                          (const float *)rows->parts[ABSMAX] + begin / ASSAY_NF4_BLOCK,
                          (rows->end - rows->begin) * rows->cols, ASSAY_NF4_BLOCK, weights);
}

/* As transformers writes it: readers there expect every key. */
static cJSON *config(const struct assay_spec *spec)
{
    cJSON *object =
        cJSON_Parse("{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true, \"load_in_8bit\": false,"
                    " \"bnb_4bit_quant_type\": \"nf4\", \"bnb_4bit_compute_dtype\": \"float32\","
                    " \"bnb_4bit_quant_storage\": \"uint8\","
                    " \"llm_int8_skip_modules\": [\"lm_head\"], \"llm_int8_enable_fp32_cpu_offload\": false,"
                    " \"llm_int8_has_fp16_weight\": false}");
    /* Readers want a number with a point. */
    if (object && (!cJSON_AddBoolToObject(object, "bnb_4bit_use_double_quant", spec->double_quant) ||
                   !cJSON_AddRawToObject(object, "llm_int8_threshold", "6.0"))) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

const struct assay_method assay_method_nf4 = {
    .scheme = ASSAY_SCHEME_NF4,
    .plan = plan,
    .encode = encode,
    .finish = finish,
    .finish_decides = true,
    .decode = decode,
    .config = config,
    .dtype = "float32",
};
