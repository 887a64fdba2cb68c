/* fp16 and bf16: weights rounded to the nearest value of the dtype, in a plain checkpoint. */
#include "common/artifact/method.h"

static enum assay_dtype dtype_of(const struct assay_spec *spec)
{
    return spec->scheme == ASSAY_SCHEME_FP16 ? ASSAY_F16 : ASSAY_BF16;
}

static enum assay_status plan(const struct assay_spec *spec, size_t rows, size_t cols,
                              struct assay_part parts[ASSAY_PARTS_MAX], size_t *ret_count, struct assay_err *err)
{
    (void)err;
    parts[0] = (struct assay_part){".weight", dtype_of(spec), 2, {rows, cols}, ASSAY_PART_CODES};
    *ret_count = 1;
    return ASSAY_OK;
}

static bool is_finite(enum assay_dtype dtype, uint16_t code)
{
    return (code & 0x7fff) < (dtype == ASSAY_F16 ? 0x7c00 : 0x7f80);
}

static enum assay_status encode(const struct assay_spec *spec, const float *weights, const struct assay_rows *rows,
                                struct assay_err *err)
{
    enum assay_dtype dtype = dtype_of(spec);
    uint16_t *codes = (uint16_t *)rows->parts[0] + rows->begin * rows->cols;
    for (size_t i = 0; i < (rows->end - rows->begin) * rows->cols; i++) {
        codes[i] = dtype == ASSAY_F16 ? assay_f32_to_f16(weights[i]) : assay_f32_to_bf16(weights[i]);
        if (!is_finite(dtype, codes[i]))
            return assay_err_set(err, ASSAY_INVALID_ARGUMENT, "row %zu, column %zu is %g, beyond what %s holds",
                                 rows->begin + i / rows->cols, i % rows->cols, (double)weights[i],
                                 assay_dtype_name(dtype));
    }
    return ASSAY_OK;
}

static void decode(const struct assay_spec *spec, const struct assay_rows *rows, float *weights)
{
    const uint16_t *codes = (const uint16_t *)rows->parts[0] + rows->begin * rows->cols;
    if (!assay_dtype_to_f32(dtype_of(spec), codes, (rows->end - rows->begin) * rows->cols, weights))
        ASSAY_BUG("F16 and BF16 are read as f32");
}

const struct assay_method assay_method_fp16 = {
    .scheme = ASSAY_SCHEME_FP16,
    .plan = plan,
    .encode = encode,
    .decode = decode,
    .dtype = "float16",
};

const struct assay_method assay_method_bf16 = {
    .scheme = ASSAY_SCHEME_BF16,
    .plan = plan,
    .encode = encode,
    .decode = decode,
    .dtype = "bfloat16",
};
